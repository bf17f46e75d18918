package spec

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"
)

// ErrUnknown is a sandbox or container that the executor does not have.
var ErrUnknown = errors.New("unknown to the executor")

// ErrMonitorDied is a question to a monitor that was gone before it answered. What
// was asked may have been done; another one takes its place at once.
var ErrMonitorDied = errors.New("the monitor has died and another takes its place")

// MountedRoot is a mounted root file system.
type MountedRoot interface {
	// ReadFile returns a regular file below the root, never following a link
	// out of it. More than limit bytes is an error.
	ReadFile(name string, limit int64) ([]byte, error)
	Close() error
}

// ErrExecute is what the error of a start is when all went well but the
// program itself could not be executed.
var ErrExecute = errors.New("the program could not be executed")

// InputError is a failure that the one who wrote the spec can mend.
type InputError struct {
	Part  InputPart
	Name  string // target of the mount or device, field of the resources, key of the sysctl
	Value string // host path or sub path, limit, value
	Err   error
}

// InputPart is the part of a spec that is wrong.
type InputPart string

const (
	InputMount   InputPart = "mount"
	InputSubPath InputPart = "sub path"
	// InputPropagation is how a mount shall pass mounts on; the value is its
	// source, to which that is not possible.
	InputPropagation InputPart = "propagation"
	InputResource    InputPart = "resource"
	InputSysctl      InputPart = "sysctl"
	InputDevice      InputPart = "device"
)

func (e *InputError) Error() string {
	return fmt.Sprintf("%s %s %q: %v", e.Part, e.Name, e.Value, e.Err)
}

func (e *InputError) Unwrap() error { return e.Err }

// VolumeError is an image that could not be mounted in a container.
type VolumeError struct{ Err error }

func (e *VolumeError) Error() string { return "image volume: " + e.Err.Error() }
func (e *VolumeError) Unwrap() error { return e.Err }

// Started is what is known of a process just started.
type Started struct {
	PID int // in the node's PID namespace
	At  time.Time
}

// Task is a started container as the monitor sees it.
type Task struct {
	Started
	Exit *Exit // nil while it runs
}

// TaskExit is the end of a container's first process.
type TaskExit struct {
	ID   string
	Exit Exit
}

// ExecIO says which streams of an exec'ed process the caller wants. With
// Terminal in the process, Stdout carries both outputs and Stderr is unused.
// Width and Height are what the terminal has when the program starts, if known.
type ExecIO struct {
	Stdin, Stdout, Stderr bool
	Width, Height         uint16
}

// Execution is a process joined to a container.
type Execution interface {
	PID() int
	Stdin() io.WriteCloser // nil when not asked for
	Stdout() io.ReadCloser
	Stderr() io.ReadCloser
	Resize(width, height uint16) error // only with a terminal
	// Wait returns the exit code. It may be called once, at any time.
	Wait(ctx context.Context) (int, error)
	// Kill ends the process and everything it started.
	Kill() error
	Close() error
}

// Attachment is a view on the streams of a container's first process.
type Attachment interface {
	Stdin() io.WriteCloser // nil without Container.Stdin
	Stdout() io.ReadCloser // all that is written from now on; EOF at the end
	Stderr() io.ReadCloser // nil with a terminal
	Resize(width, height uint16) error
	// Close detaches. With Container.StdinOnce it also ends the stdin.
	Close() error
}
