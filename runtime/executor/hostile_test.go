package executor

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"cri-mini/runtime/internal/mount"
	"cri-mini/runtime/spec"
)

func TestDeviceOfAnImageIsNotOpenedToReadIt(t *testing.T) {
	tree, err := mount.New("tmpfs", 0)
	if err != nil {
		t.Fatal(err)
	}
	defer tree.Close()
	// No driver has this number: had it been opened, the error would say so.
	if err := unix.Mknodat(number(tree.File), "passwd", unix.S_IFCHR|0o644, int(unix.Mkdev(240, 99))); err != nil {
		t.Fatal(err)
	}
	_, err = (&mountedRoot{tree}).ReadFile("/passwd", 100)
	if err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("error %v, want: not a regular file", err)
	}
}

func TestLogThatIsNoFileIsRefused(t *testing.T) {
	dir := t.TempDir()
	fifo := filepath.Join(dir, "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := openLog(dir, fifo); err == nil {
		t.Error("a FIFO without reader was opened")
	}
	reader, err := os.OpenFile(fifo, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	if _, err := openLog(dir, fifo); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("error %v, want: not a regular file", err)
	}
	if err := os.Symlink(filepath.Join(dir, "target"), filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if _, err := openLog(dir, filepath.Join(dir, "link")); err == nil {
		t.Error("a link was followed")
	}
}

// Whoever gets hold of the monitor's program finds a read-only mount, also
// when nobody executes the file any more and it is not busy.
func TestProgramOfTheMonitorCannotBeWritten(t *testing.T) {
	n := newNode(t, spec.Sandbox{})
	name := "/proc/" + strconv.Itoa(n.monitor.pid()) + "/exe"
	f, err := os.OpenFile(name, os.O_WRONLY, 0)
	if err == nil {
		f.Close()
		t.Fatal("opened for writing")
	}
	place, err := os.OpenFile(name, unix.O_PATH, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer place.Close()
	var st unix.Statfs_t
	if err := unix.Fstatfs(number(place), &st); err != nil {
		t.Fatal(err)
	}
	if st.Flags&unix.ST_RDONLY == 0 {
		t.Errorf("mount flags %#x: not read-only", st.Flags)
	}
}

// A debugger that joins a container's PID namespace could otherwise trace what
// an exec brings in, and by it the monitor, whose memory that shares.
func TestDebuggerInThePIDNamespaceIsExpected(t *testing.T) {
	n := newNode(t, spec.Sandbox{})
	target := n.container("a", nil, "sleep", "100")
	n.start(target)
	tracer := func() bool {
		t.Helper()
		r, err := n.running("a")
		if err != nil {
			t.Fatal(err)
		}
		note, err := n.noteOf("a")
		if err != nil || note.Tracer != r.tracer {
			t.Fatalf("note %+v, %v; running says %v", note, err, r.tracer)
		}
		return r.tracer
	}
	join := func(id string, capabilities uint64) {
		s := n.container(id, func(s *spec.Container) {
			s.PID, s.TargetContainer = spec.PIDTarget, "a"
			s.Process.Capabilities.Bounding = capabilities
		}, "true")
		if err := n.Prepare(t.Context(), s); err != nil {
			t.Fatal(err)
		}
		if err := n.Remove(t.Context(), s); err != nil {
			t.Error(err)
		}
	}
	join("harmless", 1<<unix.CAP_KILL)
	if tracer() {
		t.Error("a tracer is expected, yet none may come")
	}
	join("debugger", 1<<unix.CAP_SYS_PTRACE)
	if !tracer() {
		t.Error("no tracer is expected")
	}
	if err := n.Kill("a"); err != nil {
		t.Fatal(err)
	}
	n.exit("a")
	if err := n.Remove(t.Context(), target); err != nil {
		t.Error(err)
	}
}

func TestContainerWhoseRecordIsLostLeavesNoGroup(t *testing.T) {
	n := newNode(t, spec.Sandbox{})
	s := n.container("a", nil, "sleep", "100")
	n.start(s)
	if err := n.Remove(t.Context(), spec.Container{ID: s.ID}); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(n.Cgroups().Path, s.Cgroup)); !os.IsNotExist(err) {
		t.Errorf("group %s is still there: %v", s.Cgroup, err)
	}
}

func TestLogsStayBelowTheirRoot(t *testing.T) {
	root, other := t.TempDir(), t.TempDir()
	if err := os.Symlink(other, filepath.Join(root, "linked")); err != nil {
		t.Fatal(err)
	}
	if f, err := openLog(root, filepath.Join(root, "linked/0.log")); err == nil {
		f.Close()
		t.Error("a link below the root was followed")
	}
	f, err := openLog(filepath.Join(root, "linked"), filepath.Join(root, "linked/deep/er/0.log"))
	if err != nil {
		t.Fatalf("a link above the root: %v", err)
	}
	f.Close()
	if _, err := os.Stat(filepath.Join(other, "deep/er/0.log")); err != nil {
		t.Error(err)
	}
}

func TestReopenedLogStaysBelowItsRootAlsoAfterARestart(t *testing.T) {
	n := newNode(t, spec.Sandbox{})
	root, other := t.TempDir(), t.TempDir()
	s := n.container("a", func(s *spec.Container) { s.LogRoot, s.LogPath = root, filepath.Join(root, "web/0.log") }, "sleep", "1000")
	n.start(s)
	n.Close() // what the death of the daemon closes
	again, err := Open(t.Context(), Options{State: n.root})
	if err != nil {
		t.Fatal(err)
	}
	n.Executor = again
	if err := os.Rename(filepath.Join(root, "web"), filepath.Join(root, "old")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(other, filepath.Join(root, "web")); err != nil {
		t.Fatal(err)
	}
	if err := n.ReopenLog(t.Context(), "a", s.LogPath); err == nil {
		t.Error("the log goes on behind a link")
	}
	if left, err := os.ReadDir(other); err != nil || len(left) > 0 {
		t.Errorf("behind the link: %v, %v", left, err)
	}
}

// An image that has a link where something is to be hidden: what the link leads
// to is hidden, in the image and not on the node, or the container does not
// start.
func TestMasksCannotBeTurnedAway(t *testing.T) {
	n := newNode(t, spec.Sandbox{})
	victim := filepath.Join(t.TempDir(), "victim")
	if err := os.WriteFile(victim, []byte("untouched\n"), 0o666); err != nil {
		t.Fatal(err)
	}
	layer := t.TempDir()
	for name, text := range map[string]string{"data/key": "the key\n", "vault/other": "another key\n"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(layer, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(layer, name), []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	for name, link := range map[string]string{
		"key": "data/key", "up": "../../../../../.." + victim, "folder": "/vault", "away": "/proc/self/root/data/key", "dangling": "nowhere",
	} {
		if err := os.Symlink(link, filepath.Join(layer, name)); err != nil {
			t.Fatal(err)
		}
	}
	layered := func(masks ...string) func(*spec.Container) {
		return func(s *spec.Container) {
			s.Rootfs.Layers = append(s.Rootfs.Layers, spec.Layer{Path: layer, Form: spec.DirectoryLayer})
			s.MaskedPaths = masks
		}
	}
	s := n.container("a", layered("/key", "/up", "/folder", "/dangling"), "sleep", "100")
	n.start(s)
	script := `cat /key /data/key; ls /vault; ls /folder/; echo x >/data/key; cat /data/key; ls -l /up | grep -c victim; echo end`
	process := s.Process
	process.Args = []string{"sh", "-c", script}
	x, err := n.Exec(t.Context(), "a", process, spec.ExecIO{Stdout: true})
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	if got, err := io.ReadAll(x.Stdout()); err != nil || string(got) != "1\nend\n" {
		t.Errorf("seen by an exec: %q, %v", got, err)
	}
	if err := n.Kill("a"); err != nil {
		t.Fatal(err)
	}
	n.exit("a")
	if text, err := os.ReadFile(victim); err != nil || string(text) != "untouched\n" {
		t.Errorf("file of the node: %q, %v", text, err)
	}

	bad := n.container("b", layered("/away"), "true")
	if err := n.Prepare(t.Context(), bad); err != nil {
		t.Fatal(err)
	}
	if _, err := n.Start(t.Context(), "b"); !errors.Is(err, unix.ELOOP) || !strings.Contains(err.Error(), "mask /away") {
		t.Errorf("a mask behind a magic link: %v, want an error about it", err)
	}
}

// The folder is on a tmpfs and ours alone; what happens to it anyway ends nothing.
func TestDamagedNoteKeepsNoDaemonFromStarting(t *testing.T) {
	n := newNode(t, spec.Sandbox{})
	c := n.container("a", func(s *spec.Container) { s.Stdin = true }, "sh", "-c", "read x; exit 3")
	n.start(c)
	n.Close()
	if err := os.WriteFile(filepath.Join(n.root, tasksDir, "a"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	n.nextDaemon()
	n.ends(c, "end\n", 3, "")
}
