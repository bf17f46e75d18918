// Package enclosure runs the tests of a package in namespaces of their own, so
// that what they make is seen by nobody else and a count of what is left sees
// nothing else.
//
// An enclosure has its own PID 1, mounts, network with a loopback, and a part of
// the cgroup v2 tree. When the tests end the kernel ends whatever runs in it.
package enclosure

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// stage tells which of the three processes of a test run this one is: outside
// builds the programs and makes the namespaces, first is PID 1 in them and
// reaps, inside runs the tests. When inside ends, the kernel ends whatever else
// runs there.
const (
	stage  = "ENCLOSURE_STAGE"
	first  = "first"
	inside = "inside"

	// programs is the folder of what outside has built, or was told of.
	programs = "ENCLOSURE_PROGRAMS"
)

// CgroupRoot is where the enclosure's own part of cgroup v2 is mounted.
const CgroupRoot = "/sys/fs/cgroup"

// Main is for TestMain: it builds packages of this module, named from its top,
// makes the enclosure, runs the tests in it and ends the process.
func Main(m *testing.M, packages ...string) { os.Exit(Run(m.Run, packages...)) }

// Run does the same for a program: it executes it again, in the enclosure, and
// returns there what function returns, and outside the exit code of that.
func Run(function func() int, packages ...string) int {
	code, err := 1, error(nil)
	switch os.Getenv(stage) {
	case "":
		code, err = outsideMain(packages)
	case first:
		code, err = firstMain()
	case inside:
		code = function()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "enclosure:", err)
		code = 1
	}
	return code
}

// Entered tells whether this process is in the enclosure already. What needs
// the network of the machine has to be done before.
func Entered() bool { return os.Getenv(stage) != "" }

// Program is the path of a program that Main has built.
func Program(name string) string { return filepath.Join(os.Getenv(programs), name) }

func outsideMain(packages []string) (int, error) {
	if os.Geteuid() != 0 {
		return 1, errors.New("containers need root")
	}
	dir, err := os.MkdirTemp("", "enclosure-")
	if err != nil {
		return 1, err
	}
	defer os.RemoveAll(dir)
	built := os.Getenv(programs) // by someone else, where there is no Go
	if built == "" {
		built = dir
		if err := build(dir, packages); err != nil {
			return 1, err
		}
	}
	group, err := newGroup()
	if err != nil {
		return 1, err
	}
	defer group.remove()

	// Told to end, the tests end and what they used is still taken away.
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	defer stop()
	// The kernel sends Pdeathsig when the starting thread ends.
	runtime.LockOSThread()
	cmd := again(ctx, first)
	cmd.Env = append(cmd.Env, programs+"="+built, "TMPDIR="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS,
		// The root of a cgroup namespace is where its maker is: the child must
		// make it, once it is in its group.
		Unshareflags: unix.CLONE_NEWCGROUP,
		UseCgroupFD:  true,
		CgroupFD:     int(group.Fd()),
		Pdeathsig:    syscall.SIGKILL,
	}
	return exitCode(cmd.Run())
}

// build makes static programs: some run in containers.
func build(dir string, packages []string) error {
	for _, target := range packages {
		cmd := exec.Command("go", "build", "-o", dir, target)
		cmd.Dir = "../.." // of test/NAME, where go test runs the tests
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("build %s: %w\n%s", target, err, out)
		}
	}
	return nil
}

// again executes this program as another stage with the same arguments.
func again(ctx context.Context, as string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "/proc/self/exe", os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, stage+"=") })
	cmd.Env = append(cmd.Env, stage+"="+as)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	return cmd
}

func exitCode(err error) (int, error) {
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) && exit.Exited() {
		return exit.ExitCode(), nil
	}
	if err != nil {
		return 1, err
	}
	return 0, nil
}

// firstMain mounts what belongs to the namespaces, starts the tests and reaps.
func firstMain() (int, error) {
	if err := Settle("tests"); err != nil {
		return 1, err
	}
	cmd := again(context.Background(), inside)
	if err := cmd.Start(); err != nil {
		return 1, err
	}
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return 1, fmt.Errorf("wait: %w", err)
		case pid == cmd.Process.Pid && status.Signaled():
			return 1, fmt.Errorf("the tests ended by %s", status.Signal())
		case pid == cmd.Process.Pid:
			return status.ExitStatus(), nil
		}
	}
}

// Settle is for the first process of new namespaces, whose group is the root of
// its cgroup namespace: it mounts what shows them, moves to a group below that
// root, and raises the loopback.
func Settle(leaf string) error {
	if err := mountOwn(); err != nil {
		return err
	}
	// A group that has processes cannot have controllers for its children.
	dir := filepath.Join(CgroupRoot, leaf)
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte("0"), 0); err != nil {
		return err
	}
	if err := raiseLoopback(); err != nil {
		return fmt.Errorf("raise lo: %w", err)
	}
	return nil
}

// mountOwn replaces what shows namespaces by what shows the new ones. The old
// mounts are taken away, not covered: a covered cgroup v1 tree would still be
// found in the mount table.
func mountOwn() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make / private: %w", err)
	}
	for _, path := range []string{"/sys", "/proc", "/dev/mqueue"} {
		if err := unix.Unmount(path, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("unmount %s: %w", path, err)
		}
	}
	const flags = unix.MS_NOSUID | unix.MS_NODEV
	for _, m := range []struct{ kind, path string }{{"proc", "/proc"}, {"sysfs", "/sys"}, {"cgroup2", CgroupRoot}, {"tmpfs", "/run"}} {
		if err := unix.Mount(m.kind, m.path, m.kind, flags, ""); err != nil {
			return fmt.Errorf("mount %s: %w", m.path, err)
		}
	}
	return nil
}

func raiseLoopback() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	request, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	request.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, request)
}

// group is the root of everything that the tests make in the cgroup tree.
type group struct {
	*os.File
	tree *os.File
	name string
}

// newGroup mounts cgroup v2 for itself: machines keep it in different places.
func newGroup() (*group, error) {
	fs, err := unix.Fsopen("cgroup2", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("kernel feature missing: cgroup v2: %w", err)
	}
	defer unix.Close(fs)
	if err := unix.FsconfigCreate(fs); err != nil {
		return nil, fmt.Errorf("cgroup v2: %w", err)
	}
	fd, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("mount cgroup v2: %w", err)
	}
	tree := os.NewFile(uintptr(fd), "cgroup2")
	name := fmt.Sprintf("enclosure-%d", os.Getpid())
	if err := unix.Mkdirat(fd, name, 0o755); err != nil {
		return nil, errors.Join(err, tree.Close())
	}
	dir, err := unix.Openat(fd, name, unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, errors.Join(err, tree.Close())
	}
	return &group{os.NewFile(uintptr(dir), name), tree, name}, nil
}

// remove takes the tree away from the leaves up. All processes are gone, they
// ended with PID 1 of their namespace.
func (g *group) remove() {
	top := fmt.Sprintf("/proc/self/fd/%d/%s", g.tree.Fd(), g.name)
	var paths []string
	_ = filepath.WalkDir(top, func(path string, entry os.DirEntry, err error) error {
		if err == nil && entry.IsDir() {
			paths = append(paths, path)
		}
		return nil
	})
	g.Close()
	for _, path := range slices.Backward(paths) {
		if err := os.Remove(path); err != nil {
			fmt.Fprintln(os.Stderr, "enclosure:", err)
		}
	}
	g.tree.Close()
}
