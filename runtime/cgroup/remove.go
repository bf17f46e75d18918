package cgroup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Open gives a descriptor of the group for CLONE_INTO_CGROUP: the program is
// born inside, so no moment exists in which it is outside its limits.
func (g *Group) Open() (*os.File, error) {
	fd, err := unix.Open(g.dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open cgroup %s: %w", g.Path, err)
	}
	return os.NewFile(uintptr(fd), g.dir), nil
}

// Kill sends SIGKILL to every process of the group and of the groups below, in
// one step that no fork escapes. A group that is gone has no processes.
func (g *Group) Kill() error {
	err := writeFile(g.file("cgroup.kill"), "1")
	switch {
	case err == nil || !g.exists():
		return nil
	case errors.Is(err, unix.ENOENT):
		err = &ErrUnsupported{Feature: "cgroup.kill", Cause: err}
	}
	return fmt.Errorf("kill cgroup %s: %w", g.Path, err)
}

// Populated tells whether a process lives in the group or below it.
func (g *Group) Populated() (bool, error) {
	text, err := readFile(g.file("cgroup.events"))
	if gone(err) {
		return false, nil
	}
	return strings.Contains(text, "populated 1"), err
}

// Procs lists the processes of the group and of all groups below it.
func (g *Group) Procs() ([]int, error) {
	dir, err := unix.Open(g.dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if gone(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer unix.Close(dir)
	return procsBelow(dir)
}

func procsBelow(group int) ([]int, error) {
	var pids []int
	err := walkFrom(group, func(dir int, name string) error {
		return appendProcs(&pids, dir, name)
	})
	if gone(err) {
		return pids, nil
	}
	return pids, err
}

func appendProcs(pids *[]int, dir int, name string) error {
	fd, err := unix.Openat(dir, name+"/cgroup.procs", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), "cgroup.procs")
	defer f.Close()
	text, err := io.ReadAll(f)
	if errors.Is(err, unix.EOPNOTSUPP) {
		return nil // a threaded group: its processes are listed further up
	}
	for _, word := range strings.Fields(string(text)) {
		pid, convErr := strconv.Atoi(word)
		if convErr != nil {
			return convErr
		}
		*pids = append(*pids, pid)
	}
	return err
}

// Remove kills what is in the group and removes it with all groups below.
// A group that is gone is success. A process in uninterruptible sleep delays
// it until ctx ends.
func (g *Group) Remove(ctx context.Context) error {
	pause := time.Millisecond
	for {
		err := removeTree(g.dir)
		if err == nil || gone(err) {
			return nil
		}
		if !errors.Is(err, unix.EBUSY) {
			return fmt.Errorf("remove cgroup %s: %w", g.Path, err)
		}
		// Again in each round: a program may have made groups and forked into
		// them while the tree was taken down.
		if err := g.Kill(); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return fmt.Errorf("remove cgroup %s: still has processes: %w", g.Path, context.Cause(ctx))
		}
		g.waitChange(pause)
		pause = min(2*pause, 50*time.Millisecond)
	}
}

// waitChange returns when "populated" changes or after the pause: the kernel
// reports a change at most every 10 ms, so the first rounds are faster alone.
func (g *Group) waitChange(pause time.Duration) {
	fd, err := unix.Open(g.file("cgroup.events"), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	var buf [256]byte
	n, err := unix.Read(fd, buf[:]) // arms the poll
	if err != nil || !strings.Contains(string(buf[:n]), "populated 1") {
		return
	}
	_, _ = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLPRI}}, int(pause.Milliseconds()))
}
