// Package cgroup makes, limits, measures and removes control groups, version 2
// only.
//
// A Root is a mounted cgroup2 file system. A Group is one directory below it.
// Resources are limits as a pod or container asks for them; each becomes a few
// settings, a setting being one value of one file. What a group used is a
// spec.Stats.
//
// The package knows no pods and no containers and starts no process: a program
// is born inside a group by way of the descriptor that Open gives.
package cgroup

import (
	"errors"
	"fmt"
	"path"
	"strings"

	"github.com/containerd/cgroups/v3/cgroup2"
	"golang.org/x/sys/unix"
)

// Group is one control group. Its methods may be called at any time, also when
// the group is long gone; they are safe for concurrent use.
type Group struct {
	Path string // absolute below the root, as in /proc/PID/cgroup
	dir  string // in the file system
}

// ErrUnsupported says which feature of the kernel is missing.
type ErrUnsupported struct {
	Feature string
	Cause   error
}

func (e *ErrUnsupported) Error() string {
	if e.Cause == nil {
		return "not supported by this kernel or machine: " + e.Feature
	}
	return fmt.Sprintf("not supported by this kernel or machine: %s: %v", e.Feature, e.Cause)
}

func (e *ErrUnsupported) Unwrap() error { return e.Cause }

// ErrControllerMissing says that a limit was asked for which the machine's
// cgroup2 cannot give.
type ErrControllerMissing struct {
	Controller, Field, Value string
	Cause                    error // why the kernel would not enable a controller that it has
}

func (e *ErrControllerMissing) Error() string {
	s := fmt.Sprintf("%s %s: cgroup controller %s is missing", e.Field, e.Value, e.Controller)
	if e.Cause != nil {
		s += ": " + e.Cause.Error()
	}
	return s
}

func (e *ErrControllerMissing) Unwrap() error { return e.Cause }

// ErrLimit is a limit that makes no sense, or that the kernel did not take.
type ErrLimit struct {
	Field, Value string
	Cause        error
}

func (e *ErrLimit) Error() string { return e.Field + " " + e.Value + ": " + e.Cause.Error() }
func (e *ErrLimit) Unwrap() error { return e.Cause }

func badLimit(field, value, reason string, args ...any) error {
	return &ErrLimit{field, value, fmt.Errorf(reason, args...)}
}

// Refused tells whether the one who asked for the limit can mend it: it is we
// who refused it, or the kernel for what it says and not for the state that
// the machine is in.
func (e *ErrLimit) Refused() bool {
	var errno unix.Errno
	if !errors.As(e.Cause, &errno) {
		return true
	}
	switch errno {
	case unix.ENOENT, unix.EINVAL, unix.ERANGE, unix.ENODEV, unix.EOPNOTSUPP, unix.E2BIG:
		return true
	}
	return false
}

// checkPath refuses everything but a plain absolute path. The path becomes
// part of a file name, and the names of control files must stay the kernel's.
func checkPath(p string) error {
	bad := fmt.Errorf("cgroup path %q: want an absolute path without . and .. below the root", p)
	if p == "/" || len(p) > unix.PathMax/2 || cgroup2.VerifyGroupPath(p) != nil {
		return bad
	}
	for name := range strings.SplitSeq(p[1:], "/") {
		if len(name) > unix.NAME_MAX || strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			return bad
		}
	}
	return nil
}

// readFile and writeFile are single system calls on purpose: a cgroup file
// takes one write as one request, and these are on the path of every start.

func readFile(name string) (string, error) {
	fd, err := unix.Open(name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", &fileError{name, err}
	}
	defer unix.Close(fd)
	var all []byte
	var buf [8192]byte
	for {
		n, err := unix.Read(fd, buf[:])
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return "", &fileError{name, err}
		case n == 0:
			return string(all), nil
		default:
			all = append(all, buf[:n]...)
		}
	}
}

func writeFile(name, value string) error {
	fd, err := unix.Open(name, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &fileError{name, err}
	}
	defer unix.Close(fd)
	for {
		_, err := unix.Write(fd, []byte(value))
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return &fileError{name, err}
		}
		return nil
	}
}

// fileError names only the file, for the group is named by who calls.
type fileError struct {
	name  string
	cause error
}

func (e *fileError) Error() string { return path.Base(e.name) + ": " + e.cause.Error() }
func (e *fileError) Unwrap() error { return e.cause }

// gone is true for the errors of a group that was removed: its directory, or
// the kernel's object behind a file that is still open.
func gone(err error) bool { return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV) }
