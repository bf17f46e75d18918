package monitor

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// group is a folder that looks like a cgroup in which the kernel has killed.
// The count of a real one has that of all groups below in it.
func group(t *testing.T, events string) *os.File {
	t.Helper()
	dir := t.TempDir()
	files := map[string]string{"cgroup.kill": "", "below/memory.events": "oom_kill 7\n"}
	if events != "" {
		files["memory.events"] = events
	}
	for name, text := range files {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	f, err := os.OpenFile(dir, os.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func TestKernelsKillsForMemoryAreCounted(t *testing.T) {
	for events, want := range map[string]int{
		"": 0, "low 0\nhigh 0\nmax 12\noom 3\noom_kill 0\noom_group_kill 0\n": 0,
		"low 0\nhigh 0\nmax 12\noom 3\noom_kill 2\noom_group_kill 1\n": 2, "oom_kill": 0, "oom_kill x\n": 0,
	} {
		if got := oomKills(int(group(t, events).Fd())); got != want {
			t.Errorf("%q: %d kills, want %d", events, got, want)
		}
	}
}

// An end is one for lack of memory when the kernel killed in the container's
// group, whoever it was, and the program did not end well.
func TestEndForLackOfMemoryIsTold(t *testing.T) {
	const killed, calm = "oom 1\noom_kill 1\n", "oom 1\noom_kill 0\n"
	for name, c := range map[string]struct {
		events string
		code   int32
		want   bool
	}{
		"the program":                     {killed, 137, true},
		"a child, told by its shell":      {killed, 137, true},
		"a child, told in its own way":    {killed, 3, true},
		"a child that could be spared":    {killed, 0, false},
		"somebody else killed it":         {calm, 137, false},
		"no controller for the memory":    {"", 137, false},
		"the kernel sums up groups below": {calm, 1, false}, // so we do not
	} {
		if got := endedForMemory(c.code, int(group(t, c.events).Fd())); got != c.want {
			t.Errorf("%s: %t, want %t", name, got, c.want)
		}
	}
}
