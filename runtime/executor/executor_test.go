package executor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"cri-mini/internal/leakcheck"
	"cri-mini/internal/testtool"
	"cri-mini/runtime/capability"
	"cri-mini/runtime/cgroup"
	"cri-mini/runtime/spawn"
	"cri-mini/runtime/spec"
)

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "executor-test-")
	if err != nil {
		panic(err)
	}
	ownProgram = filepath.Join(dir, "init")
	build := exec.Command("go", "build", "-o", ownProgram, "./testdata/init")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build the init: %v\n%s", err, out)
		os.Exit(1)
	}
	// The first group loads the device filter, which stays.
	if root, err := cgroup.Find(); err == nil {
		if group, err := root.Create(testGroup, cgroup.Resources{}); err == nil {
			group.Remove(context.Background())
		}
	}
	code := leakcheck.Run(m)
	os.RemoveAll(dir)
	os.Exit(code)
}

// node is an executor with its monitor in folders of their own, and one
// sandbox.
type node struct {
	*Executor
	t    testing.TB
	root string
}

func newNode(t testing.TB, sandbox spec.Sandbox) *node {
	t.Helper()
	root := t.TempDir()
	e, err := Open(t.Context(), Options{State: root})
	if err != nil {
		t.Fatal(err)
	}
	n := &node{e, t, root}
	t.Cleanup(func() {
		ctx := context.Background()
		if err := n.RemoveSandbox(ctx, "pod"); err != nil {
			t.Error(err)
		}
		if err := n.removeGroup(ctx, testGroup); err != nil {
			t.Error(err)
		}
		if err := n.Shutdown(ctx); err != nil {
			t.Errorf("shutdown: %v", err)
			unix.Kill(n.MonitorPID(), unix.SIGKILL) // it has what the test left; nobody else ends it
			n.Close()
		}
	})
	sandbox.ID = "pod"
	if sandbox.SharedPID {
		sandbox.Cgroup = testGroup + "/init"
	}
	if _, err := e.CreateSandbox(t.Context(), sandbox); err != nil {
		t.Fatal(err)
	}
	return n
}

// nextDaemon opens the state of one that was closed. What a test that fails here
// left is still ended by way of the old one.
func (n *node) nextDaemon() {
	n.t.Helper()
	again, err := Open(n.t.Context(), Options{State: n.root})
	if err != nil {
		unix.Kill(n.MonitorPID(), unix.SIGKILL)
		n.t.Fatal(err)
	}
	n.Executor = again
}

// testGroup is of this process alone: two runs of the tests must not kill each other.
var testGroup = "/cri-mini-test-" + strconv.Itoa(os.Getpid())

// busybox is a layer with one static program under many names.
func busybox(t testing.TB) spec.Layer {
	t.Helper()
	testtool.Need(t, "busybox", "busybox-static")
	program, err := exec.LookPath("busybox")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, name := range []string{"bin", "etc", "tmp"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	data, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "bin/busybox"), data, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"sh", "cat", "ls", "id", "sleep", "hostname", "mount", "touch", "true", "ps", "stty", "tty", "readlink", "echo", "mknod", "head", "wc", "grep", "kill", "stat"} {
		if err := os.Symlink("busybox", filepath.Join(dir, "bin", name)); err != nil {
			t.Fatal(err)
		}
	}
	return spec.Layer{Path: dir, Form: spec.DirectoryLayer}
}

// container is a spec that runs args, changed by a function.
func (n *node) container(id string, change func(*spec.Container), args ...string) spec.Container {
	caps, err := capability.Resolve(nil, nil, nil, false)
	if err != nil {
		n.t.Fatal(err)
	}
	s := spec.Container{
		ID: id, Sandbox: "pod", PID: spec.PIDContainer,
		Rootfs:  spec.Rootfs{Layers: []spec.Layer{busybox(n.t)}, Writable: filepath.Join(n.root, "containers", id)},
		Cgroup:  testGroup + "/" + id,
		LogPath: filepath.Join(n.root, "logs", id+".log"),
		Process: spec.Process{Args: args, Env: []string{"PATH=/bin"}, Cwd: "/", Capabilities: spec.Capabilities(caps)},
	}
	if change != nil {
		change(&s)
	}
	n.t.Cleanup(func() {
		if err := n.Remove(context.Background(), s); err != nil {
			n.t.Errorf("remove %s: %v", id, err)
		}
	})
	return s
}

func (n *node) start(s spec.Container) {
	n.t.Helper()
	if err := n.Prepare(n.t.Context(), s); err != nil {
		n.t.Fatal(err)
	}
	if _, err := n.Start(n.t.Context(), s.ID); err != nil {
		n.t.Fatal(err)
	}
}

func (n *node) exit(id string) spec.Exit {
	n.t.Helper()
	for {
		select {
		case x := <-n.Exits():
			if x.ID == id {
				return x.Exit
			}
		case <-time.After(10 * time.Second):
			n.t.Fatalf("container %s did not end", id)
		}
	}
}

// ends gives a container its last input, and sees with which code and log it ends.
func (n *node) ends(s spec.Container, input string, code int, log string) {
	n.t.Helper()
	a, err := n.Attach(n.t.Context(), s.ID)
	if err != nil {
		n.t.Fatal(err)
	}
	defer a.Close()
	io.WriteString(a.Stdin(), input)
	if exit := n.exit(s.ID); exit.Code != code || exit.Unknown {
		n.t.Errorf("exit %+v, want %d", exit, code)
	}
	if text := logText(n.t, s.LogPath); text != log {
		n.t.Errorf("log %q, want %q", text, log)
	}
}

// output runs a container to its end and returns what it wrote to its log,
// without the stamps.
func (n *node) output(s spec.Container) (string, spec.Exit) {
	n.t.Helper()
	n.start(s)
	exit := n.exit(s.ID)
	return logText(n.t, s.LogPath), exit
}

func logText(t testing.TB, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	for _, line := range strings.Split(strings.TrimSuffix(string(data), "\n"), "\n") {
		if fields := strings.SplitN(line, " ", 4); len(fields) == 4 {
			text.WriteString(fields[3] + "\n")
		}
	}
	return text.String()
}

func (n *node) run(id, script string, change func(*spec.Container)) string {
	n.t.Helper()
	out, exit := n.output(n.container(id, change, "sh", "-c", script))
	if exit.Code != 0 {
		n.t.Fatalf("%q ended with %+v: %s", script, exit, out)
	}
	return strings.TrimSpace(out)
}

func TestContainerSeesOnlyWhatIsItsOwn(t *testing.T) {
	n := newNode(t, spec.Sandbox{Hostname: "kitten"})
	got := n.run("a", `hostname; echo pid $$; ls /; ls /dev; cat /proc/self/cgroup; ls /proc/self/fd; id; grep -c . /proc/self/mountinfo; stty -a </dev/ptmx >/dev/null || true`, nil)
	for _, want := range []string{"kitten", "pid 1", "0::/\n", "uid=0"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in:\n%s", want, got)
		}
	}
	t.Log(got)
}

func TestExitCodesArrive(t *testing.T) {
	n := newNode(t, spec.Sandbox{})
	for id, want := range map[string]struct {
		script string
		code   int
	}{"seven": {"exit 7", 7}, "killed": {"sleep 100 & kill -9 $!; wait $!; exit $?", 137}} {
		_, exit := n.output(n.container(id, nil, "sh", "-c", want.script))
		if exit.Code != want.code {
			t.Errorf("%s: %+v, want %d", id, exit, want.code)
		}
	}
}

func TestProgramThatIsNotThereIsSaidAtStart(t *testing.T) {
	n := newNode(t, spec.Sandbox{})
	s := n.container("a", nil, "no-such-program")
	if err := n.Prepare(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	_, err := n.Start(t.Context(), "a")
	var failed *spawn.Error
	if !errors.As(err, &failed) || !failed.Execute || failed.Errno != unix.ENOENT || !strings.Contains(err.Error(), "no-such-program") {
		t.Fatalf("start: %v", err)
	}
}

func TestMissingHostPathIsSaidAtPrepareAndLeavesNothing(t *testing.T) {
	n := newNode(t, spec.Sandbox{})
	s := n.container("a", func(s *spec.Container) {
		s.Mounts = []spec.Mount{{Kind: spec.BindMount, Source: "/no/such/path", Target: "/x"}}
	}, "true")
	err := n.Prepare(t.Context(), s)
	if err == nil || !strings.Contains(err.Error(), "/no/such/path") {
		t.Fatalf("prepare: %v", err)
	}
	if _, err := os.Stat("/sys/fs/cgroup/unified" + s.Cgroup); err == nil {
		t.Error("the cgroup is still there")
	}
}

func TestImageVolumeIsReadOnlyAndCanBeAPart(t *testing.T) {
	n := newNode(t, spec.Sandbox{})
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "deep/er"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "deep/er/file"), []byte("in the image\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/etc", filepath.Join(dir, "out")); err != nil {
		t.Fatal(err)
	}
	layers := []spec.Layer{{Path: dir, Form: spec.DirectoryLayer}}
	got := n.run("a", "cat /whole/deep/er/file /part/file; touch /part/x 2>&1; echo end", func(s *spec.Container) {
		s.Mounts = []spec.Mount{{Kind: spec.ImageMount, Layers: layers, Target: "/whole"}, {Kind: spec.ImageMount, Layers: layers, Target: "/part", SubPath: "deep/er"}}
	})
	if !strings.HasPrefix(got, "in the image\nin the image\n") || !strings.Contains(got, "Read-only file system") {
		t.Errorf("inside:\n%s", got)
	}
	for _, sub := range []string{"no/such", "out/passwd", "../../etc"} {
		s := n.container("bad", func(s *spec.Container) {
			s.Mounts = []spec.Mount{{Kind: spec.ImageMount, Layers: layers, Target: "/v", SubPath: sub}}
		}, "true")
		if err := n.Prepare(t.Context(), s); err == nil || !strings.Contains(err.Error(), sub) {
			t.Errorf("sub path %s: %v", sub, err)
		}
	}
}

func TestDevicesAreThereAndOthersDenied(t *testing.T) {
	n := newNode(t, spec.Sandbox{})
	got := n.run("a", "ls -l /dev/mine/full /elsewhere; cat /dev/mine/full | head -c 3 | wc -c; mknod /tmp/mem c 1 1 && cat /tmp/mem 2>&1; echo end", func(s *spec.Container) {
		s.Devices = []spec.Device{{HostPath: "/dev/full", ContainerPath: "/dev/mine/full", Permissions: "rwm"}, {HostPath: "/dev/zero", ContainerPath: "/elsewhere", Permissions: "r"}}
	})
	for _, want := range []string{"1,   7", "1,   5", "\n3\n", "Operation not permitted"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in:\n%s", want, got)
		}
	}
}

func TestExecJoinsTheContainer(t *testing.T) {
	n := newNode(t, spec.Sandbox{Hostname: "kitten"})
	s := n.container("a", nil, "sleep", "100")
	n.start(s)
	p := s.Process
	p.Args = []string{"sh", "-c", "hostname; ps; cat; exit 3"}
	x, err := n.Exec(t.Context(), "a", p, spec.ExecIO{Stdin: true, Stdout: true, Stderr: true})
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	io.WriteString(x.Stdin(), "to be echoed\n")
	x.Stdin().Close()
	out, _ := io.ReadAll(x.Stdout())
	errors, _ := io.ReadAll(x.Stderr())
	code, err := x.Wait(t.Context())
	for _, want := range []string{"kitten", "sleep 100", "to be echoed"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("no %q in %s", want, out)
		}
	}
	if code != 3 || err != nil {
		t.Errorf("exit %d, %v; want 3; stderr %s", code, err, errors)
	}
}

func TestExecOnATerminal(t *testing.T) {
	n := newNode(t, spec.Sandbox{})
	s := n.container("a", nil, "sleep", "100")
	n.start(s)
	p := s.Process
	p.Terminal = true
	p.Args = []string{"sh", "-c", "stty size; tty; read x; stty size"}
	x, err := n.Exec(t.Context(), "a", p, spec.ExecIO{Stdin: true, Stdout: true, Width: 90, Height: 30})
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	first := make([]byte, len("30 90\r\n"))
	if _, err := io.ReadFull(x.Stdout(), first); err != nil || string(first) != "30 90\r\n" {
		t.Errorf("the terminal begins with size %q, %v; want 30 90", first, err)
	}
	if err := x.Resize(77, 33); err != nil {
		t.Fatal(err)
	}
	io.WriteString(x.Stdin(), "\n")
	out, err := io.ReadAll(x.Stdout())
	if err != nil || !strings.Contains(string(out), "/dev/pts/0") || !strings.Contains(string(out), "33 77") {
		t.Errorf("terminal said %q, %v", out, err)
	}
}

func TestKillingAnExecEndsAllItStarted(t *testing.T) {
	n := newNode(t, spec.Sandbox{})
	s := n.container("a", nil, "sleep", "100")
	n.start(s)
	p := s.Process
	p.Args = []string{"sh", "-c", "sleep 1234 & sleep 1234"}
	x, err := n.Exec(t.Context(), "a", p, spec.ExecIO{Stdout: true})
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(50 * time.Millisecond)
	if err := x.Close(); err != nil {
		t.Fatal(err)
	}
	p.Args = []string{"ps"}
	y, err := n.Exec(t.Context(), "a", p, spec.ExecIO{Stdout: true})
	if err != nil {
		t.Fatal(err)
	}
	defer y.Close()
	if out, _ := io.ReadAll(y.Stdout()); strings.Contains(string(out), "1234") {
		t.Errorf("still there:\n%s", out)
	}
}

func TestAttachSeesOutputAndGivesInput(t *testing.T) {
	n := newNode(t, spec.Sandbox{})
	s := n.container("a", func(s *spec.Container) { s.Stdin, s.StdinOnce = true, true }, "sh", "-c", "while read x; do echo got $x; done; echo over")
	n.start(s)
	a, err := n.Attach(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(a.Stdin(), "one\n")
	b := make([]byte, 100)
	k, err := a.Stdout().Read(b)
	if err != nil || string(b[:k]) != "got one\n" {
		t.Errorf("attached read %q, %v", b[:k], err)
	}
	if err := a.Close(); err != nil {
		t.Error(err)
	}
	if exit := n.exit("a"); exit.Code != 0 {
		t.Errorf("exit %+v", exit)
	}
	if text := logText(t, s.LogPath); text != "got one\nover\n" {
		t.Errorf("log %q", text)
	}
}

func TestSharedPIDNamespaceHasOurInit(t *testing.T) {
	n := newNode(t, spec.Sandbox{SharedPID: true})
	shared := func(s *spec.Container) { s.PID = spec.PIDPod }
	n.start(n.container("a", shared, "sleep", "4321"))
	got := n.run("b", "cat /proc/1/cmdline; ps; kill -TERM 1; kill -9 1; kill -INT 1; sh -c 'sleep 0.1 & exit' ; sleep 0.3; ps", shared)
	if !strings.Contains(got, "cri-mini: init") || strings.Count(got, "sleep 4321") != 2 || strings.Contains(got, "[sleep]") {
		t.Errorf("inside:\n%s", got)
	}
}

func TestFileSystemThatMapsNoIDsIsKnown(t *testing.T) {
	n := newNode(t, spec.Sandbox{})
	if err := n.MapsIDs(t.TempDir()); err != nil {
		t.Error(err)
	}
	if err := n.MapsIDs("/proc"); err == nil || !strings.Contains(err.Error(), "id-mapped mounts on the file system of /proc") {
		t.Errorf("of /proc: %v", err)
	}
}

func TestVolumesInAUserNamespaceShowItsOwners(t *testing.T) {
	ids := &spec.IDMapping{Host: 100000, Length: 65536}
	n := newNode(t, spec.Sandbox{IDs: ids})
	host, image := t.TempDir(), t.TempDir()
	for _, dir := range []string{host, image} {
		if err := os.MkdirAll(filepath.Join(dir, "deep"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "deep/file"), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(filepath.Join(dir, "deep/file"), 7, 8); err != nil {
			t.Fatal(err)
		}
	}
	layers := []spec.Layer{{Path: image, Form: spec.DirectoryLayer}}
	got := n.run("a", "ls -ln /host/deep/file /image/deep/file /part/file; cat /part/file; touch /host/new /image/new", func(s *spec.Container) {
		s.Rootfs.IDs = ids
		s.Mounts = []spec.Mount{
			{Kind: spec.BindMount, Source: host, Target: "/host", IDs: ids},
			{Kind: spec.ImageMount, Layers: layers, Target: "/image", ReadOnly: true, IDs: ids},
			{Kind: spec.ImageMount, Layers: layers, Target: "/part", SubPath: "deep", ReadOnly: true, IDs: ids, NoExec: true},
		}
		s.Process.Args = append(s.Process.Args[:2:2], s.Process.Args[2]+"; true")
	})
	for _, line := range strings.Split(got, "\n")[:3] {
		if fields := strings.Fields(line); len(fields) < 4 || fields[2] != "7" || fields[3] != "8" {
			t.Errorf("%q, want the owners 7 and 8", line)
		}
	}
	if !strings.Contains(got, "/image/new: Read-only") {
		t.Errorf("inside:\n%s", got)
	}
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(host, "new"), &st); err != nil || st.Uid != 0 {
		t.Errorf("what root of the pod made belongs to %d, %v; want root, as the folder does", st.Uid, err)
	}
}

func TestDaemonComesBackAndFindsItsContainers(t *testing.T) {
	n := newNode(t, spec.Sandbox{})
	s := n.container("a", func(s *spec.Container) { s.Stdin = true }, "sh", "-c", "echo one; read x; echo $x; exit 5")
	n.start(s)
	n.Close() // what the death of the daemon closes
	again, err := Open(t.Context(), Options{State: n.root})
	if err != nil {
		t.Fatal(err)
	}
	n.Executor = again
	tasks, err := again.Tasks(t.Context())
	if err != nil || len(tasks) != 1 || tasks["a"].Exit != nil {
		t.Fatalf("tasks %+v, %v", tasks, err)
	}
	n.ends(s, "two\n", 5, "one\ntwo\n")
	got := n.run("b", "ls /dev/shm; echo fine", nil) // the sandbox is found again
	if got != "fine" {
		t.Errorf("second container said %q", got)
	}
}

func TestMonitorIsReplacedAndNothingIsLost(t *testing.T) {
	n := newNode(t, spec.Sandbox{})
	s := n.container("a", func(s *spec.Container) { s.Stdin = true }, "sh", "-c", "echo one; read x; echo $x; exit 5")
	n.start(s)
	old := n.MonitorPID()
	unix.Kill(old, unix.SIGKILL)
	for n.MonitorPID() == old {
		time.Sleep(5 * time.Millisecond)
	}
	time.Sleep(50 * time.Millisecond)
	n.ends(s, "two\n", 5, "one\ntwo\n")
}

func TestMountPointsBehindDanglingLinksAreMade(t *testing.T) {
	n := newNode(t, spec.Sandbox{})
	host := filepath.Join(t.TempDir(), "resolv.conf")
	if err := os.WriteFile(host, []byte("nameserver 192.0.2.1\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	got := n.run("a", "cat /etc/resolv.conf /run/deep/er/stub; ls /srv/data/x; readlink /proc/self/cwd; ls /etc", func(s *spec.Container) {
		dir := s.Rootfs.Layers[0].Path
		for link, target := range map[string]string{
			"etc/resolv.conf": "../run/deep/er/stub", "data": "/srv/data", "proc": "/elsewhere", "work": "./made",
		} {
			if err := os.Symlink(target, filepath.Join(dir, link)); err != nil {
				t.Fatal(err)
			}
		}
		s.Process.Cwd = "/work/here"
		s.MaskedPaths = []string{"/proc/kcore"}
		s.Mounts = []spec.Mount{
			{Kind: spec.BindMount, Source: host, Target: "/etc/resolv.conf"},
			{Kind: spec.BindMount, Source: host, Target: "/data/x"},
		}
	})
	if strings.Count(got, "nameserver 192.0.2.1") != 2 || !strings.Contains(got, "/srv/data/x") || !strings.Contains(got, "/made/here") {
		t.Errorf("inside:\n%s", got)
	}
	s := n.container("loop", func(s *spec.Container) {
		os.Symlink("ring", filepath.Join(s.Rootfs.Layers[0].Path, "ring"))
		s.Mounts = []spec.Mount{{Kind: spec.BindMount, Source: host, Target: "/ring/x"}}
	}, "true")
	if err := n.Prepare(t.Context(), s); err == nil {
		_, err = n.Start(t.Context(), "loop")
		if err == nil || !strings.Contains(err.Error(), "/ring/x") {
			t.Errorf("a ring of links: %v", err)
		}
	}
}
