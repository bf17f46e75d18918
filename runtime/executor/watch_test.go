package executor

import (
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"cri-mini/runtime/cgroup"
	"cri-mini/runtime/spec"
)

// What ended while neither daemon nor monitor lived has a note, and a group that
// still counts its kills. The groups here are folders: the machine of the tests may
// have no controller of memory.
func TestKillForMemoryThatNobodySawIsToldByTheGroup(t *testing.T) {
	ended := exec.Command("true")
	if err := ended.Run(); err != nil {
		t.Fatal(err)
	}
	e := &Executor{state: t.TempDir(), cgroups: cgroup.Root{Path: t.TempDir()}, log: slog.New(slog.NewTextHandler(io.Discard, nil)), containers: map[string]*container{}}
	if err := os.MkdirAll(filepath.Join(e.state, tasksDir), 0o700); err != nil {
		t.Fatal(err)
	}
	for id, events := range map[string]string{"killed": "oom 1\noom_kill 1\n", "calm": "oom 1\noom_kill 0\n", "gone": "", "none": ""} {
		n := noted{PID: ended.Process.Pid, Inode: 1, Cgroup: "/" + id}
		switch id {
		case "none":
			n.Cgroup = ""
		case "killed", "calm":
			if err := os.MkdirAll(filepath.Join(e.cgroups.Path, id), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(e.cgroups.Path, id, "memory.events"), []byte(events), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := e.writeNote(id, n); err != nil {
			t.Fatal(err)
		}
	}
	tasks := map[string]spec.Task{}
	if err := e.addNoted(t.Context(), tasks); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"killed", "calm", "gone", "none"} {
		exit := tasks[id].Exit
		if exit == nil || !exit.Unknown || exit.OOMKilled != (id == "killed") {
			t.Errorf("%s: %+v", id, exit)
		}
	}
}
