package podsandbox

import (
	"context"
	"os"

	"cri-mini/internal/audit"
	"cri-mini/runtime/spec"
)

// Executor is what this package needs of the program that makes namespaces
// and processes. All its state is found again after a restart of the daemon:
// in the monitor, which outlives us, and in the kernel.
type Executor interface {
	// CreateSandbox makes and pins the namespaces of a pod. The process is the
	// reaping init of a shared PID namespace; without one it is zero.
	CreateSandbox(ctx context.Context, s spec.Sandbox) (Started, error)
	// SandboxNetNS returns a descriptor of the pod's network namespace, which
	// the caller closes, and a path that plugins can open. With HostNetwork
	// both are empty. An unknown id is spec.ErrUnknown.
	SandboxNetNS(ctx context.Context, id string) (*os.File, string, error)
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
	// StartAttached is Start with a view on the streams that misses nothing.
	StartAttached(ctx context.Context, id string) (Started, Attachment, error)
	// Signal sends a signal to the first process. Not running is no error.
	Signal(id string, signal int) error
	// Kill ends every process of the container at once.
	Kill(id string) error
	// Remove kills what runs and removes cgroup, mounts and writable layer.
	// An unknown id is not an error.
	Remove(ctx context.Context, c spec.Container) error

	// Tasks says what the monitor knows: each started container that was not
	// removed, running or ended, and each reaping init by the id of its pod.
	// Used once, after a restart.
	Tasks(ctx context.Context) (map[string]Task, error)
	// Things lists what there is for pods and containers, with groups below
	// parent also when they have no mark.
	Things(ctx context.Context, parent string) ([]audit.Thing, error)
	// Exits delivers each end of a container's first process, and of a reaping
	// init by the id of its pod. An exit that happened while nobody listened
	// is in Tasks.
	Exits() <-chan TaskExit

	Exec(ctx context.Context, id string, p spec.Process, io ExecIO) (Execution, error)
	Attach(ctx context.Context, id string) (Attachment, error)
	// ReopenLog makes the monitor continue in a new file at the same path.
	ReopenLog(ctx context.Context, id, path string) error
	Update(ctx context.Context, c spec.Container, r spec.Resources) error

	// Stats reads what a cgroup and all below it use. Shares are those it was
	// given, 0 when nobody knows. An unknown group is spec.ErrUnknown.
	Stats(group string, shares int64) (spec.Stats, error)
	// CPUTime is a small part of it: nanoseconds of processor time.
	CPUTime(group string) (uint64, error)
	// Inside looks at each process of a running container.
	Inside(id string) (spec.Inside, error)
	// Interfaces tells what went through a pod's network interfaces. With
	// HostNetwork it is nothing.
	Interfaces(ctx context.Context, sandbox string) ([]spec.Interface, error)
	// Writable counts what a writable layer takes on disk, slowly. An error
	// may come with what was counted by then.
	Writable(ctx context.Context, r spec.Rootfs) (spec.DiskUsage, error)
	// FileSystem tells the size of the file system that a path is on.
	FileSystem(path string) (spec.FileSystem, error)
}

// What passes between us and the executor is plain data of package spec.
type (
	Rootfs     = spec.MountedRoot
	Started    = spec.Started
	Task       = spec.Task
	TaskExit   = spec.TaskExit
	ExecIO     = spec.ExecIO
	Execution  = spec.Execution
	Attachment = spec.Attachment
)
