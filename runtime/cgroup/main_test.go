package cgroup

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"cri-mini/internal/leakcheck"
)

// The tests run in a mount namespace of their own with a cgroup2 mount of
// their own, whatever the machine has mounted: real is its root. Programs to
// put into groups are this binary again, told by the environment what to be.
const (
	envMount   = "CGROUP_TEST_MOUNT"
	envProgram = "CGROUP_TEST_PROGRAM"
)

var real Root

func TestMain(m *testing.M) {
	if what := os.Getenv(envProgram); what != "" {
		programs[what]()
		os.Exit(0)
	}
	if slices.Contains(os.Args, "-test.fuzzworker") {
		os.Exit(m.Run()) // a parser needs no kernel, and the pipes would be lost
	}
	dir := os.Getenv(envMount)
	if dir == "" {
		os.Exit(runInNamespace())
	}
	if err := unix.Mount("cgroup2", dir, "cgroup2", 0, ""); err != nil {
		fmt.Fprintln(os.Stderr, "mount cgroup2:", err)
		os.Exit(1)
	}
	real = Root{Path: dir}
	// Loaded once and kept on purpose; it must not count as a leak.
	if _, _, err := deviceProgram(defaultDevices); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	leakcheck.Main(m)
}

func runInNamespace() int {
	dir, err := os.MkdirTemp("", "cgroup2-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.Remove(dir)
	defer disableAgain()()
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), envMount+"="+dir)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// disableAgain turns off the controllers that the tests enabled at the root,
// which is one for all mounts of the machine.
func disableAgain() func() {
	root, err := Find()
	if err != nil {
		return func() {}
	}
	file := root.Path + "/cgroup.subtree_control"
	before := words(file)
	return func() {
		for _, c := range words(file) {
			if !slices.Contains(before, c) {
				_ = writeFile(file, "-"+c) // refused while someone else uses it
			}
		}
	}
}

// ownPlace is a path for the groups of one test. What the test leaves there is
// removed and fails it.
func ownPlace(t testing.TB) string {
	t.Helper()
	place := fmt.Sprintf("/cri-mini-test-%d-%s", os.Getpid(), strings.ReplaceAll(t.Name(), "/", "-"))
	t.Cleanup(func() {
		left, _ := filepath.Glob(real.Path + place + "/*/cgroup.procs")
		if len(left) > 0 {
			t.Errorf("left behind: %q", left)
		}
		remove(t, real.group(place))
	})
	return place
}

func remove(t testing.TB, g *Group) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := g.Remove(ctx); err != nil {
		t.Error(err)
	}
}

func create(t testing.TB, place string, res Resources) *Group {
	t.Helper()
	g, err := real.Create(place, res)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// start runs one of programs inside g. The caller waits for it.
func start(t testing.TB, g *Group, program string) *exec.Cmd {
	t.Helper()
	dir, err := g.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = []string{envProgram + "=" + program, envMount + "=" + real.Path}
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd()), Pdeathsig: syscall.SIGKILL}
	if program == "devices" || program == "huge" {
		cmd.Stdout = new(strings.Builder)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd
}

// programs are what a process in a group can be.
var programs = map[string]func(){
	"sleep":   func() { time.Sleep(time.Minute) },
	"burn":    func() { burn(50 * time.Millisecond) },
	"eat":     func() { fmt.Fprintln(io.Discard, bytes.Repeat([]byte{1}, 100<<20)) },
	"breed":   breed,
	"devices": useDevices,
	"huge":    useHugePages,
}

// burn uses processor time, however long that takes on a busy machine.
func burn(d time.Duration) {
	var used unix.Timespec
	for used.Nano() < d.Nanoseconds() {
		if err := unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &used); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return
		}
	}
}

// breed has children that have children, and groups in its group, so that
// something is always being born.
func breed() {
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return
	}
	_, inside, _ := strings.Cut(string(own), "0::")
	inside, _, _ = strings.Cut(inside, "\n")
	dir := os.Getenv(envMount) + inside
	for range 3 {
		dir += "/below"
		_ = os.Mkdir(dir, 0o755)
		_ = os.WriteFile(dir+"/cgroup.procs", []byte("0"), 0)
		cmd := exec.Command("/bin/sh", "-c", "while :; do /bin/true & /bin/true; done")
		if err := cmd.Start(); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	}
	time.Sleep(time.Minute)
}

func useDevices() {
	for _, try := range []struct {
		name string
		do   func() error
	}{
		{"null", opens("/dev/null", unix.O_RDWR)},
		{"kmsg-r", opens("/dev/kmsg", unix.O_RDONLY)},
		{"kmsg-rw", opens("/dev/kmsg", unix.O_RDWR)},
		{"mknod", mknods},
	} {
		fmt.Printf("%s=%v ", try.name, try.do())
	}
}

func opens(name string, flags int) func() error {
	return func() error {
		fd, err := unix.Open(name, flags, 0)
		if err == nil {
			unix.Close(fd)
		}
		return err
	}
}

func mknods() error {
	dir, err := os.MkdirTemp("", "node")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	return unix.Mknod(dir+"/mem", unix.S_IFCHR|0o600, int(unix.Mkdev(1, 1)))
}
