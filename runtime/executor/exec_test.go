package executor

import (
	"errors"
	"io"
	"os"
	"strings"
	"testing"

	"cri-mini/runtime/spec"
)

func TestGroupOfAnExecNamesNothingOfTheHost(t *testing.T) {
	n := newNode(t, spec.Sandbox{})
	s := n.container("a", nil, "sleep", "100")
	n.start(s)
	p, seen := s.Process, map[string]bool{}
	p.Args = []string{"cat", "/proc/self/cgroup"}
	for range 3 {
		x, err := n.Exec(t.Context(), "a", p, spec.ExecIO{Stdout: true})
		if err != nil {
			t.Fatal(err)
		}
		out, _ := io.ReadAll(x.Stdout())
		if err := x.Close(); err != nil {
			t.Error(err)
		}
		_, name, found := strings.Cut(strings.TrimSpace(string(out)), "/exec-")
		if !found || seen[name] || strings.Contains(name, "-") {
			t.Errorf("the group is %q", out)
		}
		seen[name] = true
	}
}

// An exec and the removal of its container may come at the same time.
func TestExecDoesNotBringTheGroupOfARemovedContainerBack(t *testing.T) {
	n := newNode(t, spec.Sandbox{})
	s := n.container("a", nil, "sleep", "100")
	n.start(s)
	if err := n.removeGroup(t.Context(), s.Cgroup); err != nil {
		t.Fatal(err)
	}
	if _, err := n.Exec(t.Context(), "a", s.Process, spec.ExecIO{}); !errors.Is(err, ErrUnknown) {
		t.Errorf("exec: %v, want %v", err, ErrUnknown)
	}
	if _, err := n.loadGroup(s.Cgroup); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the group is there again: %v", err)
	}
	if err := n.Remove(t.Context(), s); err != nil {
		t.Error(err)
	}
}
