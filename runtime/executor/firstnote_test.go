package executor

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"cri-mini/runtime/spec"
)

func TestDaemonThatDiedRightAfterAStartFindsIt(t *testing.T) {
	n := newNode(t, spec.Sandbox{})
	s := n.container("a", nil, "sleep", "100")
	n.start(s)
	n.Close()
	// What was on disk when the answer of the monitor arrived, and a start
	// that never reached the monitor.
	for id, group := range map[string]string{"a": s.Cgroup, "never": testGroup + "/never"} {
		if err := n.writeNote(id, noted{Cgroup: group, Log: s.LogPath}); err != nil {
			t.Fatal(err)
		}
	}
	again, err := Open(t.Context(), Options{State: n.root})
	if err != nil {
		t.Fatal(err)
	}
	n.Executor = again
	tasks, err := again.Tasks(t.Context())
	if err != nil || len(tasks) != 1 || tasks["a"].Exit != nil || tasks["a"].PID == 0 {
		t.Fatalf("tasks %+v, %v; want a running", tasks, err)
	}
	if err := again.Kill("a"); err != nil {
		t.Fatal(err)
	}
	if exit := n.exit("a"); exit.Code != 137 {
		t.Errorf("exit %+v, want 137", exit)
	}
	for _, id := range []string{"a", "never"} {
		if err := again.Remove(t.Context(), spec.Container{ID: id, Cgroup: s.Cgroup}); err != nil {
			t.Error(err)
		}
	}
	if left, _ := os.ReadDir(filepath.Join(n.root, tasksDir)); len(left) > 0 {
		t.Errorf("notes left: %v", left)
	}
}

// A daemon that heard nothing of a start does not know what to kill.
func TestContainerWhoseStartNobodyHeardOfIsRemoved(t *testing.T) {
	n := newNode(t, spec.Sandbox{})
	s := n.container("a", nil, "sleep", "100")
	n.start(s)
	n.Executor.container("a").close()
	soon, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := n.Remove(soon, s); err != nil {
		t.Fatal(err)
	}
}
