package layer

import (
	"bytes"
	"strconv"

	"cri-mini/image/layer/tree"

	"golang.org/x/sys/unix"
)

// overlayOpaque makes overlayfs hide what the lower layers have in a directory.
const overlayOpaque = "trusted.overlay.opaque"

// describe gives an open file or directory its attributes. The owner comes
// before the mode and the xattrs, for chown(2) clears set-user-id bits and
// capabilities; the time comes last, for nothing after it changes it.
func describe(fd int, n *tree.Node) error {
	if n.UID != 0 || n.GID != 0 {
		if err := unix.Fchown(fd, int(n.UID), int(n.GID)); err != nil {
			return wrap("set owner", err)
		}
	}
	for _, x := range n.Xattrs {
		if err := unix.Fsetxattr(fd, x.Name, x.Value, 0); err != nil {
			return wrap("set xattr "+x.Name, err)
		}
	}
	if err := unix.Fchmod(fd, n.Mode&0o7777); err != nil {
		return wrap("set mode", err)
	}
	return wrap("set time", unix.UtimesNanoAt(fd, "", times(n), unix.AT_EMPTY_PATH))
}

// describeSpecial does the same for what cannot be opened without effect. The
// descriptor is O_PATH, so chmod and setxattr go by way of /proc, whose link
// leads to the very inode, even to a symbolic link, and not to a name.
func describeSpecial(parent int, name string, n *tree.Node) error {
	fd, err := unix.Openat(parent, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return wrap("open", err)
	}
	defer unix.Close(fd)
	if n.UID != 0 || n.GID != 0 {
		if err := unix.Fchownat(fd, "", int(n.UID), int(n.GID), unix.AT_EMPTY_PATH); err != nil {
			return wrap("set owner", err)
		}
	}
	self := "/proc/self/fd/" + strconv.Itoa(fd)
	for _, x := range n.Xattrs {
		if err := unix.Setxattr(self, x.Name, x.Value, 0); err != nil {
			return wrap("set xattr "+x.Name, err)
		}
	}
	if n.Type() != unix.S_IFLNK {
		if err := unix.Chmod(self, n.Mode&0o7777); err != nil {
			return wrap("set mode", err)
		}
	}
	return wrap("set time", unix.UtimesNanoAt(fd, "", times(n), unix.AT_EMPTY_PATH))
}

func times(n *tree.Node) []unix.Timespec {
	t := unix.Timespec{Sec: n.Sec, Nsec: int64(n.Nsec)}
	return []unix.Timespec{t, t}
}

var zeros [64 << 10]byte

func isZero(p []byte) bool {
	for len(p) > len(zeros) {
		if !bytes.Equal(p[:len(zeros)], zeros[:]) {
			return false
		}
		p = p[len(zeros):]
	}
	return bytes.Equal(p, zeros[:len(p)])
}
