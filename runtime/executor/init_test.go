package executor

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"cri-mini/runtime/spec"
)

func TestEndOfTheInitIsTold(t *testing.T) {
	for name, meanwhile := range map[string]func(*testing.T, *node){
		"by the monitor that started it": func(*testing.T, *node) {},
		"by a monitor that took its place": func(t *testing.T, n *node) {
			old := n.MonitorPID()
			if err := unix.Kill(old, unix.SIGKILL); err != nil {
				t.Fatal(err)
			}
			for n.MonitorPID() == old {
				time.Sleep(5 * time.Millisecond)
			}
			time.Sleep(100 * time.Millisecond)
		},
		"to the next daemon": func(t *testing.T, n *node) {
			n.Close()
			n.nextDaemon()
		},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t, spec.Sandbox{})
			init, err := n.CreateSandbox(t.Context(), spec.Sandbox{ID: "shared", SharedPID: true, Cgroup: testGroup + "/shared"})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := n.RemoveSandbox(context.Background(), "shared"); err != nil {
					t.Error(err)
				}
			})
			if link, err := os.Readlink("/proc/" + strconv.Itoa(init.PID) + "/ns/pid"); err != nil || link == ownPIDNamespace(t) {
				t.Errorf("the init %d is in %s, %v; want a namespace of its own", init.PID, link, err)
			}
			meanwhile(t, n)
			tasks, err := n.Tasks(t.Context())
			if err != nil || tasks["shared"].PID != init.PID || tasks["shared"].Exit != nil {
				t.Errorf("tasks %+v, %v; want the init %d", tasks, err, init.PID)
			}
			s := n.container("a", func(s *spec.Container) { s.Sandbox, s.PID = "shared", spec.PIDPod }, "sleep", "1000")
			n.start(s)
			if err := unix.Kill(init.PID, unix.SIGKILL); err != nil {
				t.Fatal(err)
			}
			for ended := map[string]bool{}; len(ended) < 2; {
				select {
				case x := <-n.Exits():
					if ended[x.ID] = true; x.Exit.Code != 137 && !x.Exit.Unknown {
						t.Errorf("exit of %s: %+v, want that of SIGKILL", x.ID, x.Exit)
					}
				case <-time.After(20 * time.Second):
					t.Fatalf("told were only the ends of %v", ended)
				}
			}
		})
	}
}

func ownPIDNamespace(t *testing.T) string {
	t.Helper()
	link, err := os.Readlink("/proc/self/ns/pid")
	if err != nil {
		t.Fatal(err)
	}
	return link
}

func TestRemovedSandboxLeavesNoGroupOfItsInit(t *testing.T) {
	n := newNode(t, spec.Sandbox{})
	s := spec.Sandbox{ID: "shared", SharedPID: true, Cgroup: testGroup + "/shared"}
	if _, err := n.CreateSandbox(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	group := filepath.Join(n.Cgroups().Path, s.Cgroup)
	if _, err := os.Stat(group); err != nil {
		t.Errorf("the init has no group: %v", err)
	}
	if err := n.RemoveSandbox(t.Context(), s.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(group); !os.IsNotExist(err) {
		t.Errorf("group %s is still there: %v", group, err)
	}
}

// The daemon before us died in the middle of the removal: the monitor knows of
// an init that has ended.
func TestSandboxWhoseInitEndedUnderAnotherDaemonIsRemoved(t *testing.T) {
	n := newNode(t, spec.Sandbox{})
	init, err := n.CreateSandbox(t.Context(), spec.Sandbox{ID: "shared", SharedPID: true, Cgroup: testGroup + "/shared"})
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Kill(init.PID, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-n.Exits()
	n.Close()
	n.nextDaemon()
	if err := n.RemoveSandbox(t.Context(), "shared"); err != nil {
		t.Errorf("remove: %v", err)
	}
}

// A daemon must start whatever the ones before it left.
func TestTaskWithoutANoteIsEndedByTheNextDaemon(t *testing.T) {
	n := newNode(t, spec.Sandbox{})
	init, err := n.CreateSandbox(t.Context(), spec.Sandbox{ID: "shared", SharedPID: true, Cgroup: testGroup + "/shared"})
	if err != nil {
		t.Fatal(err)
	}
	n.Close()
	if err := n.dropNote(initID("shared")); err != nil {
		t.Fatal(err)
	}
	n.nextDaemon()
	if err := unix.Kill(init.PID, 0); err != unix.ESRCH {
		t.Errorf("the init %d still runs: %v", init.PID, err)
	}
	if tasks, err := n.Tasks(t.Context()); err != nil || len(tasks) > 0 {
		t.Errorf("tasks %+v, %v; want none", tasks, err)
	}
	if err := n.RemoveSandbox(t.Context(), "shared"); err != nil {
		t.Error(err)
	}
}

// The id of the second user is that of the init.
func TestNoSignalFromInsideEndsOurInit(t *testing.T) {
	n := newNode(t, spec.Sandbox{SharedPID: true})
	shared := func(s *spec.Container) { s.PID = spec.PIDPod }
	n.start(n.container("a", shared, "sleep", "4321"))
	const all = "i=1; while [ $i -le 64 ]; do kill -$i 1; i=$((i+1)); done; "
	for name, user := range map[string]uint32{"root": 0, "nobody": 65534} {
		got := n.run(name, all+"sh -c 'sleep 0.1 & exit'; sleep 0.5; ls -l /proc/1/fd /proc/1/exe 2>&1; ps", func(s *spec.Container) {
			shared(s)
			s.Process.User = spec.User{UID: user, GID: user}
		})
		if !strings.Contains(got, "cri-mini: init") || !strings.Contains(got, "sleep 4321") || strings.Contains(got, "[sleep]") {
			t.Errorf("as %s, with every signal sent:\n%s", name, got)
		}
		if !strings.Contains(got, "/proc/1/exe: cannot read link: Permission denied") || strings.Contains(got, "memfd") {
			t.Errorf("as %s, the init can be looked into:\n%s", name, got)
		}
	}
	if tasks, err := n.Tasks(t.Context()); err != nil || tasks["pod"].PID == 0 || tasks["pod"].Exit != nil {
		t.Errorf("the init is %+v, %v", tasks["pod"], err)
	}
}

// An init that is slow to come up, as on a busy node, gets no signal too early.
func TestNoContainerStartsBeforeTheInitIsReady(t *testing.T) {
	n := newNode(t, spec.Sandbox{})
	for i := range 10 {
		id := "shared" + strconv.Itoa(i)
		init, err := n.CreateSandbox(t.Context(), spec.Sandbox{ID: id, SharedPID: true, Cgroup: testGroup + "/" + id})
		if err != nil {
			t.Fatal(err)
		}
		unix.Kill(init.PID, unix.SIGSTOP)
		time.AfterFunc(100*time.Millisecond, func() { unix.Kill(init.PID, unix.SIGCONT) })
		n.run("a"+strconv.Itoa(i), "i=1; while [ $i -le 64 ]; do kill -$i 1; i=$((i+1)); done", func(s *spec.Container) { s.Sandbox, s.PID = id, spec.PIDPod })
		if err := unix.Kill(init.PID, 0); err != nil {
			t.Errorf("the init %d: %v", init.PID, err)
		}
		if err := n.RemoveSandbox(t.Context(), id); err != nil {
			t.Error(err)
		}
	}
}

func TestInitThatNeedsALinkerIsRefusedByName(t *testing.T) {
	own := ownProgram
	defer func() { ownProgram = own }()
	ownProgram = filepath.Join(t.TempDir(), "dynamic")
	build := exec.Command("go", "build", "-buildmode=pie", // which names a linker, as a program with cgo does
		"-o", ownProgram, "./testdata/init")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	if f, err := sealedCopy(); err == nil || !strings.Contains(err.Error(), "dynamically linked; build it with CGO_ENABLED=0") {
		t.Errorf("sealed copy: %v, %v", f, err)
	}
}
