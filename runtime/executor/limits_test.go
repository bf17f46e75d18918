package executor

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"cri-mini/runtime/cgroup"
	"cri-mini/runtime/spec"
)

// A limit that cannot be is told by field and value, at the start and later,
// and changes nothing.
func TestLimitThatTheKernelRefusesIsTheFaultOfTheRequest(t *testing.T) {
	root, err := cgroup.Find()
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(root.Controllers(), "hugetlb") {
		t.Skip("cgroup controller hugetlb is missing")
	}
	n := newNode(t, spec.Sandbox{})
	good := n.container("good", nil, "sleep", "1000")
	n.start(good)
	before := spec.Resources{Hugepages: []spec.HugepageLimit{{PageSize: "2MB", Limit: 4 << 20}}}
	if err := n.Update(t.Context(), good, before); err != nil {
		t.Fatal(err)
	}
	more := []spec.HugepageLimit{{PageSize: "2MB", Limit: 8 << 20}}
	for name, c := range map[string]struct {
		r            spec.Resources
		field, value string
	}{
		"no such file":       {spec.Resources{Hugepages: more, Unified: map[string]string{"hugetlb.none.max": "1"}}, "unified[hugetlb.none.max]", "1"},
		"no such size":       {spec.Resources{Hugepages: append(more, spec.HugepageLimit{PageSize: "3MB", Limit: 7})}, "hugepage_limits[3MB]", "7"},
		"no such controller": {spec.Resources{Hugepages: more, Unified: map[string]string{"nothing.max": "1"}}, "unified[nothing.max]", "1"},
		"senseless value":    {spec.Resources{Hugepages: more, Unified: map[string]string{"hugetlb.2MB.rsvd.max": "much more"}}, "unified[hugetlb.2MB.rsvd.max]", "much more"},
	} {
		bad := n.container("bad", func(s *spec.Container) { s.Resources = c.r }, "true")
		for when, err := range map[string]error{"create": n.Prepare(t.Context(), bad), "update": n.Update(t.Context(), good, c.r)} {
			var wrong *spec.InputError
			if !errors.As(err, &wrong) || wrong.Part != spec.InputResource || wrong.Name != c.field || wrong.Value != c.value {
				t.Errorf("%s, %s: %v; want the fault of %s %q", name, when, err, c.field, c.value)
			}
		}
	}
	x, err := n.Exec(t.Context(), "good", spec.Process{Args: []string{"cat", "/sys/fs/cgroup/hugetlb.2MB.max"}, Env: []string{"PATH=/bin"}, Cwd: "/"}, spec.ExecIO{Stdout: true})
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	text := make([]byte, 100)
	count, _ := x.Stdout().Read(text)
	// The process is in a group of its own below, whose root is the container's.
	if got := strings.TrimSpace(string(text[:count])); got != "4194304" {
		t.Errorf("the limit inside is %q, want that of before", got)
	}
}
