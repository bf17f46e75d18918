package executor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"cri-mini/internal/hostpath"
)

// logPatience is how long the file system of a log may take. A start that was
// asked for has no other end.
const logPatience = 10 * time.Second

// openLogInTime is openLog on a file system that may not answer.
func openLogInTime(ctx context.Context, root, path string) (*os.File, error) {
	ctx, cancel := context.WithTimeout(ctx, logPatience)
	defer cancel()
	f, err := hostpath.Ask(ctx, "log_path", path, func() (*os.File, error) { return openLog(root, path) }, func(f *os.File) { f.Close() })
	if silent := (*hostpath.SilentError)(nil); errors.As(err, &silent) {
		return nil, fmt.Errorf("log_path: %w", err)
	}
	return f, err
}

// openLog opens a container's log for appending, and for a look at its end, and
// makes the folders to it.
// Below root no link is followed: a pod that can write to some of the folders
// must not choose where another one's log goes.
func openLog(root, path string) (*os.File, error) {
	f, err := openBelow(root, path)
	if err != nil {
		return nil, fmt.Errorf("log file %s: %w", path, err)
	}
	// A FIFO that nobody reads would stop us, or the monitor for all.
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		f.Close()
		return nil, fmt.Errorf("log file %s: not a regular file", path)
	}
	return f, nil
}

func openBelow(root, path string) (*os.File, error) {
	rest, below := strings.CutPrefix(path, strings.TrimSuffix(root, "/")+"/")
	if root == "" || !below {
		root, rest = filepath.Split(path)
	}
	if err := os.MkdirAll(root, 0o755); err != nil {
		return nil, err
	}
	dir, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer func() { unix.Close(dir) }()
	parts := strings.Split(rest, "/")
	for _, part := range parts[:len(parts)-1] {
		if err := unix.Mkdirat(dir, part, 0o755); err != nil && err != unix.EEXIST {
			return nil, err
		}
		next, err := openPlain(dir, part, unix.O_PATH|unix.O_DIRECTORY)
		if err != nil {
			return nil, err
		}
		unix.Close(dir)
		dir = next
	}
	fd, err := openPlain(dir, parts[len(parts)-1], unix.O_RDWR|unix.O_APPEND|unix.O_CREAT|unix.O_NOCTTY|unix.O_NONBLOCK)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), path), nil
}

// openPlain opens what is in a folder and no link.
func openPlain(dir int, name string, flags uint64) (int, error) {
	how := &unix.OpenHow{Flags: flags | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS}
	if flags&unix.O_CREAT != 0 {
		how.Mode = 0o640
	}
	return unix.Openat2(dir, name, how)
}
