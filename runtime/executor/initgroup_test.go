package executor

import (
	"os"
	"path/filepath"
	"testing"

	"cri-mini/runtime/spec"
)

func TestRemovedSandboxLeavesNoGroupOfItsInit(t *testing.T) {
	n := newNode(t, spec.Sandbox{})
	s := spec.Sandbox{ID: "shared", SharedPID: true, Cgroup: testGroup + "/shared"}
	if err := n.CreateSandbox(t.Context(), s); err != nil {
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
