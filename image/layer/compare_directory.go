package layer

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"

	"cri-mini/image/layer/index"
	"cri-mini/image/layer/tree"

	"golang.org/x/sys/unix"
)

// directoryComparer compares a directory with an index. It goes from descriptor
// to descriptor, opens nothing but directories and regular files, and follows
// no link: who spoiled the layer may have put anything there.
type directoryComparer struct {
	*content
	ctx    context.Context
	found  func(Difference)
	inodes map[*tree.Node]uint64 // of nodes with several names
}

func compareDirectory(ctx context.Context, folder *os.File, x index.Index, found func(Difference)) error {
	c := directoryComparer{content: newContent(), ctx: ctx, found: found, inodes: map[*tree.Node]uint64{}}
	return c.entry(int(folder.Fd()), "tree", ".", x.Root)
}

// judge turns an error that means damage into a difference.
func (c *directoryComparer) judge(path string, err error) error {
	if errors.Is(err, errCutOff) || isDamage(err) {
		c.found(Difference{path, "cannot be read: " + err.Error()})
		return nil
	}
	return err
}

func (c *directoryComparer) differ(path, format string, args ...any) {
	c.found(Difference{path, fmt.Sprintf(format, args...)})
}

// entry compares the inode that a name leads to, with all below it.
func (c *directoryComparer) entry(parent int, name, path string, n *tree.Node) error {
	fd, err := unix.Openat2(parent, name, &unix.OpenHow{Flags: unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC, Resolve: beneath})
	if err == unix.ENOENT {
		c.differ(path, "is missing")
		return nil
	}
	if err != nil {
		return c.judge(path, err)
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return c.judge(path, err)
	}
	if st.Mode&unix.S_IFMT != n.Type() {
		c.differ(path, "is a %s, want a %s", typeName(st.Mode), typeName(n.Mode))
		return nil
	}
	device := n.Type() == unix.S_IFCHR || n.Type() == unix.S_IFBLK
	if want := unix.Mkdev(n.Major, n.Minor); device && st.Rdev != want {
		c.differ(path, "is device %d:%d, want %d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev), n.Major, n.Minor)
	}
	if n.IsWhiteout() {
		return nil
	}
	whole := true
	switch n.Type() {
	case unix.S_IFDIR:
		whole, err = c.dir(fd, path, n)
	case unix.S_IFREG:
		err = c.file(fd, path, n, &st)
	case unix.S_IFLNK:
		err = c.link(fd, path, n)
	}
	if err == nil {
		err = c.attributes(fd, path, n, &st, whole)
	}
	return err
}

// dir compares what is in a directory and tells whether all names are there and
// no other.
func (c *directoryComparer) dir(fd int, path string, n *tree.Node) (whole bool, err error) {
	reading, err := unix.Openat2(fd, ".", &unix.OpenHow{Flags: unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOATIME | unix.O_CLOEXEC, Resolve: beneath})
	if err != nil {
		return true, c.judge(path, err)
	}
	f := os.NewFile(uintptr(reading), "directory")
	names, err := f.Readdirnames(-1)
	f.Close()
	if err != nil {
		return true, c.judge(path, err)
	}
	whole = len(names) == n.Len()
	for _, name := range names {
		if n.Child(name) == nil {
			whole = false
			c.differ(within(path, name), "is not in the image")
		}
	}
	for _, name := range n.Names() {
		if err := c.entry(fd, name, within(path, name), n.Child(name)); err != nil {
			return whole, err
		}
	}
	return whole, nil
}

func within(path, name string) string {
	if path == "." {
		return name
	}
	return path + "/" + name
}

func (c *directoryComparer) file(fd int, path string, n *tree.Node, st *unix.Stat_t) error {
	if n.Links > 1 {
		switch first, met := c.inodes[n]; {
		case met && first == st.Ino:
			return nil
		case met:
			c.differ(path, "is no hard link to what it should be one to")
		default:
			c.inodes[n] = st.Ino
		}
	}
	if st.Size != n.Size {
		c.differ(path, "has %d bytes, want %d", st.Size, n.Size)
		return nil
	}
	if n.Size == 0 {
		return nil
	}
	reading, err := c.open(unix.AT_FDCWD, self(fd), 0)
	if err != nil {
		return c.judge(path, err)
	}
	defer unix.Close(reading)
	got, err := c.sum(c.ctx, reading, 0, n.Size)
	if err != nil {
		return c.judge(path, err)
	}
	if got != n.Sum {
		c.differ(path, "content differs")
	}
	return nil
}

func (c *directoryComparer) link(fd int, path string, n *tree.Node) error {
	target := make([]byte, unix.PathMax)
	length, err := unix.Readlinkat(fd, "", target)
	if err != nil {
		return c.judge(path, err)
	}
	if got := string(target[:length]); got != n.Target {
		c.differ(path, "leads to %q, want %q", got, n.Target)
	}
	return nil
}

// attributes compares all but the content. The time of a directory that lost or
// got a name would only say the same again.
func (c *directoryComparer) attributes(fd int, path string, n *tree.Node, st *unix.Stat_t, whole bool) error {
	if got, want := st.Mode&0o7777, n.Mode&0o7777; got != want && n.Type() != unix.S_IFLNK {
		c.differ(path, "mode is %04o, want %04o", got, want)
	}
	if st.Uid != n.UID || st.Gid != n.GID {
		c.differ(path, "owner is %d:%d, want %d:%d", st.Uid, st.Gid, n.UID, n.GID)
	}
	if whole && (st.Mtim.Sec != n.Sec || st.Mtim.Nsec != int64(n.Nsec)) {
		c.differ(path, "time is %d.%09d, want %d.%09d", st.Mtim.Sec, st.Mtim.Nsec, n.Sec, n.Nsec)
	}
	return c.xattrs(fd, path, n)
}

// self leads to the very inode of a descriptor, even to a symbolic link.
func self(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }

func typeName(mode uint32) string {
	switch mode & unix.S_IFMT {
	case unix.S_IFREG:
		return "regular file"
	case unix.S_IFDIR:
		return "directory"
	case unix.S_IFLNK:
		return "symbolic link"
	case unix.S_IFCHR:
		return "character device"
	case unix.S_IFBLK:
		return "block device"
	case unix.S_IFIFO:
		return "pipe"
	}
	return "socket"
}
