// Package enclosure keeps a daemon under test away from the machine.
//
// An Enclosure is a set of namespaces with mounts, addresses, process numbers and
// a cgroup tree of their own. The program that wants one re-executes itself
// twice: the Outside process makes the namespaces, Init is PID 1 in them and
// reaps, and Inside does the work. When Inside ends the kernel ends everything
// else, and Outside removes the cgroups. The package knows nothing of what runs
// inside.
package enclosure

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// CgroupRoot is where the enclosure's cgroup tree is mounted, seen from inside.
const CgroupRoot = "/sys/fs/cgroup"

// stageVariable tells a re-executed process which of the three it is.
const stageVariable = "ENCLOSURE_STAGE"

// workVariable tells the inner processes the directory that Outside removes.
const workVariable = "ENCLOSURE_WORK"

// Main runs a program's three processes and returns the exit status. Prepare
// runs outside, before there is anything to clean up. Inside does the work, in a
// directory that is removed however it ends.
func Main(prepare func() error, inside func(work string) (int, error)) (int, error) {
	switch stage := os.Getenv(stageVariable); stage {
	case "":
		if err := prepare(); err != nil {
			return 1, err
		}
		return outside()
	case "init":
		return initial()
	case "inside":
		return inside(os.Getenv(workVariable))
	default:
		return 1, fmt.Errorf("%s: unknown stage %q", stageVariable, stage)
	}
}

// outside makes the namespaces and waits for what happens in them.
func outside() (int, error) {
	if os.Geteuid() != 0 {
		return 1, errors.New("containers need root")
	}
	work, err := os.MkdirTemp("", "enclosure-")
	if err != nil {
		return 1, err
	}
	defer os.RemoveAll(work)
	cgroup, err := newCgroup()
	if err != nil {
		return 1, err
	}
	defer cgroup.remove()

	// An interrupt ends PID 1 and so everything inside; this process stays to
	// clean up.
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	// The kernel sends Pdeathsig when the starting thread ends, not the process.
	runtime.LockOSThread()
	cmd := command(ctx, "init")
	cmd.Env = append(cmd.Env, workVariable+"="+work)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS,
		// A cgroup namespace takes its root from the process that makes it: the
		// child must do that itself, once it is in its cgroup.
		Unshareflags: unix.CLONE_NEWCGROUP,
		UseCgroupFD:  true,
		CgroupFD:     int(cgroup.Fd()),
		Pdeathsig:    syscall.SIGKILL,
	}
	return exitStatus(cmd.Run())
}

// command re-executes this program as another stage with the same arguments.
func command(ctx context.Context, stage string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "/proc/self/exe", os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, stageVariable+"=") })
	cmd.Env = append(cmd.Env, stageVariable+"="+stage)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	return cmd
}

func exitStatus(err error) (int, error) {
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) && exit.Exited() {
		return exit.ExitCode(), nil
	}
	if err != nil {
		return 1, err
	}
	return 0, nil
}
