package executor

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"cri-mini/runtime/internal/mount"
)

// maxLinks is how many symbolic links a path may lead over, as in the kernel.
const maxLinks = 40

// place tells where a mount point has to be made. A path that exists is its
// own place. Many images have links to what is made only at run time, as
// /etc/resolv.conf to a file below /run: what such a link points to is the
// place, seen from the container's root.
func place(root *mount.Tree, name string) (string, error) {
	f, err := root.Open(name, unix.O_PATH)
	if err == nil {
		return name, f.Close()
	}
	if !errors.Is(err, unix.ENOENT) {
		return name, nil // the mount itself will say what is wrong
	}
	resolved, rest := "/", strings.Split(name, "/")
	for links := 0; len(rest) > 0; {
		part := rest[0]
		rest = rest[1:]
		next := path.Join(resolved, part)
		target, err := readLink(root, next)
		switch {
		case errors.Is(err, unix.ENOENT):
			return path.Join(next, path.Join(rest...)), nil
		case err != nil:
			return "", err
		case target == "":
			resolved = next
			continue
		}
		if links++; links > maxLinks {
			return "", fmt.Errorf("%s: %w", name, unix.ELOOP)
		}
		if path.IsAbs(target) {
			resolved = "/"
		}
		rest = append(strings.Split(target, "/"), rest...)
	}
	return resolved, nil
}

// readLink reads the link at a path whose folders are none; what is not a
// link gives "".
func readLink(root *mount.Tree, name string) (string, error) {
	fd, err := unix.Openat2(number(root.File), name, &unix.OpenHow{
		Flags: unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_SYMLINKS,
	})
	if err != nil {
		return "", &os.PathError{Op: "open", Path: name, Err: err}
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFLNK {
		return "", err
	}
	buffer := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(fd, "", buffer)
	return string(buffer[:max(n, 0)]), err
}
