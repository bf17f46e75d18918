package podsandbox

import (
	"context"
	"io"
	"os"
	"time"

	"cri-mini/runtime/spec"
)

// Executor is what this package needs of the program that makes namespaces
// and processes. All its state is found again after a restart of the daemon:
// in the monitor, which outlives us, and in the kernel.
type Executor interface {
	// CreateSandbox makes and pins the namespaces of a pod.
	CreateSandbox(ctx context.Context, s spec.Sandbox) error
	// SandboxNetNS returns a descriptor of the pod's network namespace, which
	// the caller closes, and a path that plugins can open. With HostNetwork
	// both are empty.
	SandboxNetNS(id string) (*os.File, string, error)
	// RemoveSandbox lets the namespaces go and ends the reaping init.
	// An unknown id is not an error.
	RemoveSandbox(ctx context.Context, id string) error

	// MountRootfs makes the container's root file system, detached, to be
	// used by Prepare with the same id. The file gives access to it.
	MountRootfs(ctx context.Context, id string, r spec.Rootfs) (Rootfs, error)
	// Prepare does all that can be done before the start: mounts, devices,
	// cgroup, the list of operations. Bad input shows here.
	Prepare(ctx context.Context, c spec.Container) error
	// Start runs the prepared program; it returns when the program has been
	// executed, or why it could not be.
	Start(ctx context.Context, id string) (Started, error)
	// Signal sends a signal to the first process. Not running is no error.
	Signal(id string, signal int) error
	// Kill ends every process of the container at once.
	Kill(id string) error
	// Remove kills what runs and removes cgroup, mounts and writable layer.
	// An unknown id is not an error.
	Remove(ctx context.Context, c spec.Container) error

	// Tasks says what the monitor knows: each started container that was not
	// removed, running or ended. Used once, after a restart.
	Tasks(ctx context.Context) (map[string]Task, error)
	// Exits delivers each end of a container's first process. An exit that
	// happened while nobody listened is in Tasks.
	Exits() <-chan TaskExit

	Exec(ctx context.Context, id string, p spec.Process, io ExecIO) (Execution, error)
	Attach(ctx context.Context, id string) (Attachment, error)
	// ReopenLog makes the monitor continue in a new file at the same path.
	ReopenLog(ctx context.Context, id, path string) error
	Update(ctx context.Context, c spec.Container, r spec.Resources) error
	Stats(id string) (spec.Stats, error)
}

// Rootfs is a mounted root file system.
type Rootfs interface {
	// ReadFile returns a regular file below the root, never following a link
	// out of it. More than limit bytes is an error.
	ReadFile(name string, limit int64) ([]byte, error)
	Close() error
}

// Started is what is known of a process just started.
type Started struct {
	PID int // in the node's PID namespace
	At  time.Time
}

// Task is a started container as the monitor sees it.
type Task struct {
	Started
	Exit *spec.Exit // nil while it runs
}

// TaskExit is the end of a container's first process.
type TaskExit struct {
	ID   string
	Exit spec.Exit
}

// ExecIO says which streams of an exec'ed process the caller wants. With
// Terminal in the process, Stdout carries both outputs and Stderr is unused.
type ExecIO struct {
	Stdin, Stdout, Stderr bool
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
