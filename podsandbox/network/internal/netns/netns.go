// Package netns runs code in a network namespace.
//
// A namespace is an open file. Do borrows the calling thread for it; Current
// and New give files to pass. The package knows nothing of what is done inside.
package netns

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

const self = "/proc/thread-self/ns/net"

// ErrNotNamespace says that a path or file is not a network namespace.
var ErrNotNamespace = errors.New("not a network namespace")

// Current opens the network namespace of the calling thread.
func Current() (*os.File, error) { return os.Open(self) }

// Open opens the network namespace at path. A path may outlive what it named
// (a number below /proc is given to another process), so it is checked.
func Open(path string) (*os.File, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open network namespace", Path: path, Err: err}
	}
	kind, err := unix.IoctlRetInt(fd, unix.NS_GET_NSTYPE)
	if err != nil || kind != unix.CLONE_NEWNET {
		unix.Close(fd)
		return nil, fmt.Errorf("%s: %w", path, ErrNotNamespace)
	}
	return os.NewFile(uintptr(fd), path), nil
}

// New makes a network namespace that lives as long as the file, or something
// in it, does.
func New() (*os.File, error) {
	type made struct {
		file *os.File
		err  error
	}
	answer := make(chan made)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		var m made
		if m.err = unix.Unshare(unix.CLONE_NEWNET); m.err == nil {
			m.file, m.err = Current()
		}
		answer <- m
	}()
	m := <-answer
	if m.err != nil {
		return nil, fmt.Errorf("new network namespace: %w", m.err)
	}
	return m.file, nil
}

// Identity tells a namespace from every other one, before and after it, in this
// and other lives of the machine. A number below /proc may name another
// namespace later, and so may an inode.
func Identity(ns *os.File) (string, error) {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", err
	}
	var cookie uint64
	err = Do(ns, func() error {
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		cookie, err = unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
		return err
	})
	if err != nil {
		return "", fmt.Errorf("identity of network namespace: %w", err)
	}
	return fmt.Sprintf("%s/%d", bytes.TrimSpace(boot), cookie), nil
}

// Do runs fn with the calling thread in the namespace. Sockets that fn opens
// stay in it; processes that fn starts are born in it.
func Do(ns *os.File, fn func() error) error {
	runtime.LockOSThread()
	home, err := unix.Open(self, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("open own network namespace: %w", err)
	}
	defer unix.Close(home)
	if err := enter(ns); err != nil {
		runtime.UnlockOSThread()
		return err
	}
	failed := fn()
	if err := unix.Setns(home, unix.CLONE_NEWNET); err != nil {
		// The thread stays locked: it must not run other goroutines in a pod's
		// network, and ends with this one.
		return errors.Join(failed, fmt.Errorf("return to own network namespace: %w", err))
	}
	runtime.UnlockOSThread()
	return failed
}

func enter(ns *os.File) error {
	raw, err := ns.SyscallConn() // Fd would switch the file to blocking mode
	if err != nil {
		return err
	}
	var failed error
	if err := raw.Control(func(fd uintptr) { failed = unix.Setns(int(fd), unix.CLONE_NEWNET) }); err != nil {
		return err
	}
	if failed != nil {
		return fmt.Errorf("enter network namespace %s: %w", ns.Name(), failed)
	}
	return nil
}
