package selinux

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

const attribute = "security.selinux"

// forbidden are folders of the node that no container may have for its own,
// with all that is in them: giving them a container's label would break the
// node, or open it (CVE-2021-43816).
var forbidden = []string{
	"/", "/bin", "/boot", "/dev", "/etc", "/home", "/lib", "/lib32", "/lib64", "/libx32", "/media", "/mnt", "/opt", "/proc", "/root", "/run",
	"/sbin", "/srv", "/sys", "/tmp", "/usr", "/var", "/var/cache", "/var/lib", "/var/log", "/var/run", "/var/spool", "/var/tmp",
}

// whole are folders of which no part may be relabelled either.
var whole = []string{"/bin", "/boot", "/dev", "/etc", "/lib", "/lib32", "/lib64", "/proc", "/sbin", "/sys", "/usr"}

// Allowed refuses to relabel what belongs to the node. The path is a real one,
// without links.
func Allowed(path string) error {
	path = filepath.Clean(path)
	below := func(dir string) bool { return strings.HasPrefix(path, dir+"/") }
	if slices.Contains(forbidden, path) || slices.ContainsFunc(whole, below) {
		return fmt.Errorf("relabelling %s is not allowed: it belongs to the node", path)
	}
	return nil
}

// Relabel gives a file, or a folder with all that is in it, a label. Links are
// labelled and not followed, and other file systems below are left alone.
// Where the file system keeps no labels there is nothing to do.
func Relabel(ctx context.Context, root *os.File, label string) error {
	err := relabel(ctx, int(root.Fd()), []byte(label+"\x00"), 0)
	if errors.Is(err, unix.EOPNOTSUPP) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("relabel: %w", err)
	}
	return nil
}

// deepest is more than a path can have parts; each costs a descriptor.
const deepest = 4096

func relabel(ctx context.Context, fd int, label []byte, depth int) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if depth > deepest {
		return unix.ELOOP
	}
	if err := set(fd, label); err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return nil
	}
	list, err := open(fd, ".", unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	folder := os.NewFile(uintptr(list), ".")
	defer folder.Close()
	for {
		names, err := folder.Readdirnames(512)
		for _, name := range names {
			if err := relabelBelow(ctx, fd, name, label, depth); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func relabelBelow(ctx context.Context, folder int, name string, label []byte, depth int) error {
	fd, err := open(folder, name, unix.O_PATH|unix.O_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EXDEV) {
		return nil // gone meanwhile; or another file system
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return relabel(ctx, fd, label, depth+1)
}

func open(folder int, name string, flags uint64) (int, error) {
	how := unix.OpenHow{Flags: flags | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_XDEV}
	if flags&unix.O_NOFOLLOW != 0 { // the last part may be a link: it is opened itself
		how.Resolve = unix.RESOLVE_BENEATH | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV
	}
	return unix.Openat2(folder, name, &how)
}

// set labels what a descriptor shows, unless it has the label already: a write
// for each of a million files is what makes starts slow.
func set(fd int, label []byte) error {
	// The name of the descriptor, since one of a link or of what cannot be
	// opened takes no attribute itself. It leads to the very file.
	name := "/proc/self/fd/" + strconv.Itoa(fd)
	var present [256]byte
	if n, err := unix.Getxattr(name, attribute, present[:]); err == nil && string(present[:n]) == string(label) {
		return nil
	}
	return unix.Setxattr(name, attribute, label, 0)
}
