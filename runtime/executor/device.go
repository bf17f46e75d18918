package executor

import (
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

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

// device is a node of the host as it is made in a container.
type device struct {
	spec.Device
	mode     uint32
	rdev     uint64
	uid, gid uint32
}

func lookUpDevice(d spec.Device) (device, error) {
	var st unix.Stat_t
	if err := unix.Stat(d.HostPath, &st); err != nil {
		return device{}, fmt.Errorf("device %s: %w", d.HostPath, err)
	}
	kind := st.Mode & unix.S_IFMT
	if kind != unix.S_IFCHR && kind != unix.S_IFBLK {
		return device{}, fmt.Errorf("device %s: not a device node", d.HostPath)
	}
	return device{d, st.Mode, st.Rdev, st.Uid, st.Gid}, nil
}

// rule is what the device filter of the cgroup has to allow.
func (d device) rule() cgroup.DeviceRule {
	kind := byte('c')
	if d.mode&unix.S_IFMT == unix.S_IFBLK {
		kind = 'b'
	}
	return cgroup.DeviceRule{Type: kind, Major: int64(unix.Major(d.rdev)), Minor: int64(unix.Minor(d.rdev)), Access: d.Permissions}
}

// below tells the part of a container path after /dev/; a device elsewhere is
// bound there instead.
func (d device) below() (string, bool) {
	return strings.CutPrefix(path.Clean(d.ContainerPath), "/dev/")
}

// devFolder makes the container's /dev.
func devFolder(devices []device, terminal bool, ids *spec.IDMapping) (*mount.Tree, error) {
	owner := 0
	options := []mount.Option{{Key: "mode", Value: "0755"}, {Key: "size", Value: "65536k"}}
	if ids != nil {
		owner = int(ids.Host)
		root := fmt.Sprint(owner)
		options = append(options, mount.Option{Key: "uid", Value: root}, mount.Option{Key: "gid", Value: root})
	}
	tree, err := mount.New("tmpfs", unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NOEXEC, options...)
	if err != nil {
		return nil, err
	}
	d := devDir{fd: int(tree.Fd()), owner: owner}
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
	fd    int
	owner int // added to all ids
	err   error
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
	d.own(name, int(uid), int(gid))
}

func (d *devDir) own(name string, uid, gid int) {
	if uid+d.owner != 0 || gid+d.owner != 0 {
		d.try(name, unix.Fchownat(d.fd, name, uid+d.owner, gid+d.owner, unix.AT_SYMLINK_NOFOLLOW))
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
