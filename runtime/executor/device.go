package executor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"cri-mini/internal/hostpath"
	"cri-mini/runtime/cgroup"
	"cri-mini/runtime/internal/mount"
	"cri-mini/runtime/spec"
)

// standard are the devices of every container.
var standard = []struct {
	name         string
	major, minor uint32
}{{"null", 1, 3}, {"zero", 1, 5}, {"full", 1, 7}, {"random", 1, 8}, {"urandom", 1, 9}, {"tty", 5, 0}}

// links are the names that point into /proc, and the terminal multiplexer.
var links = [][2]string{{"fd", "/proc/self/fd"}, {"stdin", "/proc/self/fd/0"}, {"stdout", "/proc/self/fd/1"},
	{"stderr", "/proc/self/fd/2"}, {"ptmx", "pts/ptmx"}}

// device is a node as it is made in a container.
type device struct {
	spec.Device
	mode     uint32
	rdev     uint64
	uid, gid uint32
}

// types are the bits of stat(2) for the kinds of nodes.
var types = map[spec.DeviceKind]uint32{spec.CharacterDevice: unix.S_IFCHR, spec.BlockDevice: unix.S_IFBLK, spec.Pipe: unix.S_IFIFO}

func lookUpDevice(ctx context.Context, d spec.Device) (device, error) {
	found := device{Device: d, mode: types[d.Kind] | 0o666, rdev: unix.Mkdev(d.Major, d.Minor)}
	if d.Kind == "" {
		st, err := hostpath.Ask(ctx, "device "+d.ContainerPath+": host path", d.HostPath, func() (st unix.Stat_t, err error) {
			err = unix.Stat(d.HostPath, &st)
			return st, err
		}, nil)
		if err != nil {
			return device{}, wrongDevice(d, err)
		}
		if kind := st.Mode & unix.S_IFMT; kind != unix.S_IFCHR && kind != unix.S_IFBLK {
			return device{}, wrongDevice(d, errors.New("is not a device node"))
		}
		found = device{d, st.Mode, st.Rdev, st.Uid, st.Gid}
	}
	if d.Mode != nil {
		found.mode = found.mode&unix.S_IFMT | *d.Mode&0o777
	}
	if d.UID != nil {
		found.uid = *d.UID
	}
	if d.GID != nil {
		found.gid = *d.GID
	}
	return found, nil
}

func wrongDevice(d spec.Device, err error) error {
	return &spec.InputError{Part: spec.InputDevice, Name: d.ContainerPath, Value: d.HostPath, Err: err}
}

// rule is what the device filter of the cgroup has to allow; none for a pipe,
// and for a device that only has to be there.
func (d device) rule() (cgroup.DeviceRule, bool) {
	kind := byte('c')
	if d.mode&unix.S_IFMT == unix.S_IFBLK {
		kind = 'b'
	}
	return cgroup.DeviceRule{Type: kind, Major: int64(unix.Major(d.rdev)), Minor: int64(unix.Minor(d.rdev)), Access: d.Permissions},
		d.Permissions != "" && d.mode&unix.S_IFMT != unix.S_IFIFO
}

// below tells the part of a container path after /dev/; a device elsewhere is
// bound there instead.
func (d device) below() (string, bool) {
	return strings.CutPrefix(path.Clean(d.ContainerPath), "/dev/")
}

// devFolder makes the container's /dev.
func devFolder(devices []device, terminal bool, ids *spec.IDMapping, label string) (*mount.Tree, error) {
	options := labelled(label, mount.Option{Key: "mode", Value: "0755"}, mount.Option{Key: "size", Value: "65536k"})
	if ids != nil {
		root := fmt.Sprint(ids.Host)
		options = append(options, mount.Option{Key: "uid", Value: root}, mount.Option{Key: "gid", Value: root})
	}
	tree, err := mount.New("tmpfs", unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NOEXEC, options...)
	if err != nil {
		return nil, err
	}
	d := devDir{fd: int(tree.Fd()), ids: ids}
	for _, s := range standard {
		d.node(s.name, unix.S_IFCHR|0o666, unix.Mkdev(s.major, s.minor), 0, 0)
	}
	for _, l := range links {
		d.link(l[0], l[1])
	}
	for _, name := range []string{"pts", "mqueue", "shm"} {
		d.folder(name)
	}
	if terminal {
		d.node("console", unix.S_IFREG|0o600, 0, 0, 0)
	}
	for _, dev := range devices {
		if name, ok := dev.below(); ok {
			d.parents(name)
			d.node(name, dev.mode, dev.rdev, dev.uid, dev.gid)
		}
	}
	if d.err != nil {
		tree.Close()
		return nil, fmt.Errorf("/dev: %w", d.err)
	}
	return tree, nil
}

// devDir makes entries in a folder of ours that nobody else sees yet. The
// first error stays.
type devDir struct {
	fd  int
	ids *spec.IDMapping // of the owners
	err error
}

func (d *devDir) try(name string, err error) {
	if d.err == nil && err != nil {
		d.err = &os.PathError{Op: "make", Path: name, Err: err}
	}
}

func (d *devDir) node(name string, mode uint32, rdev uint64, uid, gid uint32) {
	err := unix.Mknodat(d.fd, name, mode, int(rdev))
	if err == unix.EEXIST { // one of the standard ones asked for again
		return
	}
	d.try(name, err)
	// mknod is subject to our umask.
	d.try(name, unix.Fchmodat(d.fd, name, mode&0o7777, 0))
	d.own(name, uid, gid)
}

// own gives an entry to a user of the container. One that has no place in its
// user namespace would be another container's: then it belongs to root.
func (d *devDir) own(name string, uid, gid uint32) {
	if m := d.ids; m != nil {
		for _, id := range []*uint32{&uid, &gid} {
			if *id >= m.Length {
				*id = 0
			}
			*id += m.Host
		}
	}
	if uid != 0 || gid != 0 {
		d.try(name, unix.Fchownat(d.fd, name, int(uid), int(gid), unix.AT_SYMLINK_NOFOLLOW))
	}
}

func (d *devDir) link(name, target string) {
	d.try(name, unix.Symlinkat(target, d.fd, name))
	d.own(name, 0, 0)
}

func (d *devDir) folder(name string) {
	err := unix.Mkdirat(d.fd, name, 0o755)
	if err == unix.EEXIST {
		return
	}
	d.try(name, err)
	d.own(name, 0, 0)
}

func (d *devDir) parents(name string) {
	dir := filepath.Dir(name)
	if dir != "." {
		d.parents(dir)
		d.folder(dir)
	}
}
