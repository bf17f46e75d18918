package plan

import (
	"strings"
	"testing"
)

func TestSliceIsWhereItsNameSays(t *testing.T) {
	f := Facts{SystemdCgroups: true, CgroupParent: "/cri_mini.slice"}
	const deep = "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod12_34.slice"
	for parent, want := range map[string]string{
		deep:                                deep,
		"kubepods-burstable-pod12_34.slice": deep, // of a caller that leaves the place to systemd
		"/test.slice":                       "/test.slice",
		"":                                  "/cri_mini.slice",
		"-.slice":                           "",
		`/a\x2db.slice`:                     `/a\x2db.slice`,
	} {
		got, err := f.cgroup(parent, "c1")
		if err != nil || got != want+"/cri-mini-c1.scope" {
			t.Errorf("%q: %s, %v; want a scope in %q", parent, got, err, want)
		}
	}
	for _, parent := range []string{
		"/", "/kubepods/pod1", "/.slice", "/a--b.slice", "/-a.slice", "/a-.slice", "/a b.slice", "/a\n.slice",
		"/a.slice/..", "/a.service", "/" + strings.Repeat("a", 250) + ".slice", "/a\x00.slice",
	} {
		got, err := f.cgroup(parent, "c1")
		if err == nil || !strings.Contains(err.Error(), "cgroup_parent") {
			t.Errorf("%q: %s, %v; want an error that names the field", parent, got, err)
		}
	}
}
