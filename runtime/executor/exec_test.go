package executor

import (
	"io"
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
