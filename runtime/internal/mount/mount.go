// Package mount makes detached mounts: trees that are in no mount table and
// are freed with their last descriptor. They become visible only where a
// container attaches them, so the host's table does not grow with pods and
// nothing has to be unmounted after a crash.
//
// A Tree is such a mount. The package changes no mount namespace and needs
// Linux 5.12; what needs more says so with Unsupported.
package mount

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"cri-mini/runtime/spec"
)

// Tree is a detached mount.
type Tree struct {
	*os.File
}

// Unsupported is a kernel that lacks something.
type Unsupported struct{ Feature string }

func (u *Unsupported) Error() string { return "kernel feature missing: " + u.Feature }

// Option is a parameter of a file system, as fsconfig(2) takes it.
type Option struct {
	Key   string
	Value string
	File  *os.File // instead of Value
	Flag  bool     // no value at all
}

// New makes a file system and a mount of it. Attributes are MOUNT_ATTR_*.
func New(kind string, attributes int, options ...Option) (*Tree, error) {
	fs, err := unix.Fsopen(kind, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make %s: %w", kind, err)
	}
	defer unix.Close(fs)
	for _, o := range options {
		if err := o.set(fs); err != nil {
			return nil, fmt.Errorf("make %s: option %s: %w%s", kind, o.Key, err, explanation(fs))
		}
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return nil, fmt.Errorf("make %s: %w%s", kind, err, explanation(fs))
	}
	fd, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, attributes)
	if err != nil {
		return nil, fmt.Errorf("mount %s: %w%s", kind, err, explanation(fs))
	}
	return &Tree{os.NewFile(uintptr(fd), kind)}, nil
}

func (o Option) set(fs int) error {
	switch {
	case o.File != nil:
		return unix.FsconfigSetFd(fs, o.Key, int(o.File.Fd()))
	case o.Flag:
		return unix.FsconfigSetFlag(fs, o.Key)
	default:
		return unix.FsconfigSetString(fs, o.Key, o.Value)
	}
}

// explanation is what the kernel says beyond the errno.
func explanation(fs int) string {
	buffer := make([]byte, 512)
	n, err := unix.Read(fs, buffer)
	if err != nil || n < 3 {
		return ""
	}
	return " (" + string(buffer[2:n]) + ")" // after the level: "e "
}

// Bind clones what is mounted at a path of the host, with everything below
// it or alone. Symbolic links are followed.
func Bind(path string, recursive bool) (*Tree, error) {
	flags := uint(unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC)
	if recursive {
		flags |= unix.AT_RECURSIVE
	}
	fd, err := unix.OpenTree(unix.AT_FDCWD, path, flags)
	if err != nil {
		return nil, err
	}
	return &Tree{os.NewFile(uintptr(fd), path)}, nil
}

// CloneFile clones the mount of an open file or folder, from there on.
func CloneFile(f *os.File) (*Tree, error) {
	fd, err := unix.OpenTree(int(f.Fd()), "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH)
	if errors.Is(err, unix.EINVAL) {
		return nil, &Unsupported{"open_tree of a detached mount (Linux 6.15)"}
	}
	if err != nil {
		return nil, err
	}
	return &Tree{os.NewFile(uintptr(fd), f.Name())}, nil
}

// Open opens something below the tree. A link never leads out of it.
func (t *Tree) Open(name string, flags uint64) (*os.File, error) {
	how := unix.OpenHow{Flags: flags | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS}
	fd, err := unix.Openat2(int(t.Fd()), name, &how)
	// Something was renamed or mounted, anywhere on the node, while a look-up
	// went through "..": the kernel cannot tell whether it stayed inside.
	for tries := 0; err == unix.EAGAIN && tries < 1000; tries++ {
		fd, err = unix.Openat2(int(t.Fd()), name, &how)
	}
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	return os.NewFile(uintptr(fd), name), nil
}

// IsFolder tells what kind of thing the mount's root is.
func (t *Tree) IsFolder() (bool, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(t.Fd()), &st); err != nil {
		return false, err
	}
	return st.Mode&unix.S_IFMT == unix.S_IFDIR, nil
}

// Set adds attributes, to this mount or to all below it as well.
func (t *Tree) Set(attributes uint64, recursive bool) error {
	return t.setattr(&unix.MountAttr{Attr_set: attributes}, recursive)
}

// Propagate sets how mounts made later pass, here and below.
func (t *Tree) Propagate(p spec.Propagation) error {
	kind := map[spec.Propagation]uint64{
		spec.Private: unix.MS_PRIVATE, spec.HostToContainer: unix.MS_SLAVE, spec.Bidirectional: unix.MS_SHARED, "": unix.MS_PRIVATE,
	}[p]
	return t.setattr(&unix.MountAttr{Propagation: kind}, true)
}

// MapIDs shows the files with the ids of a user namespace.
func (t *Tree) MapIDs(userns *os.File) error {
	err := t.setattr(&unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(userns.Fd())}, true)
	if errors.Is(err, unix.EINVAL) {
		return &Unsupported{"id-mapped mounts on the file system of " + t.Name()}
	}
	return err
}

func (t *Tree) setattr(attr *unix.MountAttr, recursive bool) error {
	flags := uint(unix.AT_EMPTY_PATH)
	if recursive {
		flags |= unix.AT_RECURSIVE
	}
	return unix.MountSetattr(int(t.Fd()), "", flags, attr)
}
