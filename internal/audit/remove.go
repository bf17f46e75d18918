package audit

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

var errMounted = errors.New("something is mounted there")

// RemoveFolder deletes a folder with all that is in it, and never what is mounted
// there: it goes down by descriptors, through no link and into no mount. At the
// first mount it stops, with an error that names it. What is gone is fine.
func RemoveFolder(path string) error {
	path = filepath.Clean(path)
	above := filepath.Dir(path)
	dir, err := unix.Open(above, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err == unix.ENOENT {
		return nil
	}
	if err != nil {
		return &fs.PathError{Op: "open", Path: above, Err: err}
	}
	defer unix.Close(dir)
	if failed := removeAt(dir, filepath.Base(path)); failed != nil {
		failed.Path = filepath.Join(above, failed.Path)
		return failed
	}
	return nil
}

// removeAt gives the error with the path from dir on.
func removeAt(dir int, name string) *fs.PathError {
	err := retried(func() error { return unix.Unlinkat(dir, name, 0) })
	if err == unix.EISDIR {
		if failed := empty(dir, name); failed != nil {
			return failed
		}
		err = retried(func() error { return unix.Unlinkat(dir, name, unix.AT_REMOVEDIR) })
	}
	switch err {
	case nil, unix.ENOENT:
		return nil
	case unix.EBUSY:
		err = errMounted
	}
	return &fs.PathError{Op: "remove", Path: name, Err: err}
}

// empty removes what is in a folder.
func empty(dir int, name string) *fs.PathError {
	var fd int
	err := retried(func() (err error) {
		fd, err = unix.Openat2(dir, name, &unix.OpenHow{
			Flags:   unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC,
			Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV,
		})
		return err
	})
	switch err {
	case nil:
	case unix.ENOENT:
		return nil
	case unix.EXDEV:
		return &fs.PathError{Op: "remove", Path: name, Err: errMounted}
	default:
		return &fs.PathError{Op: "open", Path: name, Err: err}
	}
	folder := os.NewFile(uintptr(fd), name)
	defer folder.Close()
	for {
		// From the beginning: what is removed while it is listed may hide others.
		if _, err := folder.Seek(0, io.SeekStart); err != nil {
			return &fs.PathError{Op: "read", Path: name, Err: err}
		}
		inside, err := folder.Readdirnames(1024)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return &fs.PathError{Op: "read", Path: name, Err: err}
		}
		for _, one := range inside {
			if failed := removeAt(fd, one); failed != nil {
				failed.Path = filepath.Join(name, failed.Path)
				return failed
			}
		}
	}
}

func retried(call func() error) error {
	for {
		if err := call(); err != unix.EINTR && err != unix.EAGAIN {
			return err
		}
	}
}
