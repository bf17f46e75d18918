package cgroup

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// A program with a writable cgroup mount can make groups below its own, so
// deep that their paths are longer than the kernel takes and their descriptors
// more than we may open. The two walks below therefore hold one directory at a
// time and go up by "..", which control groups cannot move away.

// removeTree removes a group and all below it, deepest first.
func removeTree(dir string) error {
	if err := unix.Rmdir(dir); !errors.Is(err, unix.EBUSY) && !errors.Is(err, unix.ENOTEMPTY) {
		return err // the usual case: no groups below
	}
	if err := walk(dir, func(parent int, name string) error {
		if name == "." {
			return nil
		}
		return unix.Unlinkat(parent, name, unix.AT_REMOVEDIR)
	}); err != nil {
		return err
	}
	return unix.Rmdir(dir)
}

// walk is walkFrom for the path of a group.
func walk(dir string, visit func(parent int, name string) error) error {
	top, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer unix.Close(top)
	return walkFrom(top, visit)
}

// walkFrom calls visit(parent descriptor, name) for all groups below top,
// children before parents, and at last for top itself under the name ".".
func walkFrom(top int, visit func(parent int, name string) error) error {
	at, err := unix.Openat(top, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { unix.Close(at) }()

	// One entry for each level: the name by which it was entered, and the
	// groups in it that are still to visit.
	type level struct {
		name string
		todo []string
	}
	names, err := subgroups(at)
	if err != nil {
		return err
	}
	levels := []level{{name: ".", todo: names}}
	for {
		here := &levels[len(levels)-1]
		if n := len(here.todo); n > 0 {
			name := here.todo[n-1]
			here.todo = here.todo[:n-1]
			next, err := unix.Openat(at, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
			if errors.Is(err, unix.ENOENT) {
				continue
			}
			if err != nil {
				return err
			}
			unix.Close(at)
			at = next
			names, err := subgroups(at)
			if err != nil {
				return err
			}
			levels = append(levels, level{name, names})
			continue
		}
		if len(levels) == 1 {
			return visit(at, ".")
		}
		up, err := unix.Openat(at, "..", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		unix.Close(at)
		at = up
		if err := visit(at, here.name); err != nil && !errors.Is(err, unix.ENOENT) {
			return err
		}
		levels = levels[:len(levels)-1]
	}
}

// subgroups lists the directories in an open one.
func subgroups(dir int) ([]string, error) {
	fd, err := unix.Openat(dir, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "cgroup")
	defer f.Close()
	entries, err := f.ReadDir(-1)
	if err != nil {
		return nil, fmt.Errorf("list: %w", err)
	}
	var names []string
	for _, e := range entries {
		if e.IsDir() {
			names = append(names, e.Name())
		}
	}
	return names, nil
}
