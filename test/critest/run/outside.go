package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"cri-mini/test/critest/internal/testimage"
)

// stageVariable tells a re-executed process which of the three it is.
const stageVariable = "CRITEST_STAGE"

// outside is the first process.
func outside(o options) (int, error) {
	if os.Geteuid() != 0 {
		return 1, errors.New("containers need root")
	}
	if err := o.prepare(); err != nil {
		return 1, err
	}
	cgroup, err := newCgroup()
	if err != nil {
		return 1, err
	}
	defer cgroup.remove()

	// The kernel sends Pdeathsig when the starting thread ends, not the process.
	runtime.LockOSThread()
	cmd := o.command("init")
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

// prepare fills in defaults and builds what is not given.
func (o *options) prepare() error {
	repository, err := testimage.Repository()
	if err != nil {
		return err
	}
	module := filepath.Join(repository, "test/critest")
	if o.suite == "" {
		o.suite = filepath.Join(repository, ".cache/bin/critest")
		say("building the suite")
		build := exec.Command("go", "test", "-c", "-o", o.suite, ".")
		build.Dir, build.Stderr = module, os.Stderr
		if err := build.Run(); err != nil {
			return fmt.Errorf("build the suite: %w", err)
		}
	}
	for option, value := range map[*string]string{
		&o.daemon: filepath.Join(repository, "bin/cri-mini"),
		&o.output: filepath.Join(repository, ".cache/critest"),
		&o.lists:  module,
	} {
		if *option == "" {
			*option = value
		}
		if *option, err = filepath.Abs(*option); err != nil {
			return err
		}
	}
	if _, err := os.Stat(o.daemon); err != nil {
		return fmt.Errorf("daemon: %w (make build makes it)", err)
	}
	say("building the programs of the images")
	if _, err := testimage.BuildPrograms(repository); err != nil {
		return err
	}
	return os.MkdirAll(o.output, 0o755)
}

// command re-executes this program as another stage with the same options.
func (o *options) command(stage string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", "-daemon="+o.daemon, "-suite="+o.suite, "-output="+o.output,
		"-lists="+o.lists, "-focus="+o.focus, "-totals="+o.totals, fmt.Sprintf("-update=%t", o.update))
	cmd.Args[0] = "critest-" + stage
	cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, stageVariable+"=") })
	cmd.Env = append(cmd.Env, stageVariable+"="+stage)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
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

// cgroup is the root of everything this run makes in the cgroup tree.
type cgroup struct{ *os.File }

func newCgroup() (*cgroup, error) {
	mountpoint, err := cgroupMountpoint()
	if err != nil {
		return nil, err
	}
	path := filepath.Join(mountpoint, fmt.Sprintf("critest-%d", os.Getpid()))
	if err := os.Mkdir(path, 0o755); err != nil {
		return nil, err
	}
	dir, err := os.Open(path)
	if err != nil {
		return nil, errors.Join(err, os.Remove(path))
	}
	return &cgroup{dir}, nil
}

// cgroupMountpoint finds cgroup v2, wherever this machine keeps it.
func cgroupMountpoint() (string, error) {
	table, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(table)) {
		if fields := strings.Fields(line); fields[2] == "cgroup2" {
			return fields[1], nil
		}
	}
	return "", errors.New("kernel feature missing: cgroup v2 is not mounted")
}

// remove takes the tree away from the leaves up. The processes are gone: they
// ended with PID 1 of their namespace.
func (c *cgroup) remove() {
	var paths []string
	_ = filepath.WalkDir(c.Name(), func(path string, entry os.DirEntry, err error) error {
		if err == nil && entry.IsDir() {
			paths = append(paths, path)
		}
		return nil
	})
	c.Close()
	for _, path := range slices.Backward(paths) {
		if err := os.Remove(path); err != nil {
			fmt.Fprintf(os.Stderr, "critest: %v\n", err)
		}
	}
}
