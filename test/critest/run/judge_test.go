package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/onsi/ginkgo/v2/types"
)

func TestVerdict(t *testing.T) {
	excuses := func(missing bool) []excuse {
		return []excuse{
			{"apparmor", 1, regexp.MustCompile("AppArmor"), missing},
			{"selinux", 2, regexp.MustCompile("SELinux"), missing},
		}
	}
	in := func(state types.SpecState, name string) spec { return spec{name: name, state: state} }
	pass, fail := types.SpecStatePassed, types.SpecStateFailed
	a := in(pass, "a")
	skipped := spec{name: "a", state: types.SpecStateSkipped, reason: "unsupported"}
	armor := spec{name: "AppArmor x", state: types.SpecStateSkipped}
	for _, test := range []struct {
		name    string
		specs   []spec
		present bool // what the excuses are about
		focus   string
		update  bool
		trouble []string
		wrong   []string // parts of the complaints, in order
		counts  [3]int
		keep    string
	}{
		{name: "all is well", specs: []spec{a, armor}, counts: [3]int{1, 0, 1}, keep: "a"},
		{name: "the machine has everything", specs: []spec{a, in(pass, "AppArmor x"), in(pass, "SELinux y"), in(pass, "SELinux z")}, present: true,
			counts: [3]int{4, 0, 0}, keep: "a"},
		{name: "a spec fails", specs: []spec{in(fail, "a"), armor}, wrong: []string{"failed: a"}, counts: [3]int{0, 1, 1}, keep: "a"},
		{name: "a spec panics", specs: []spec{in(types.SpecStatePanicked, "a"), armor}, wrong: []string{"panicked: a"}, counts: [3]int{0, 1, 1}, keep: "a"},
		{name: "a spec takes too long", specs: []spec{in(types.SpecStateTimedout, "a"), armor}, wrong: []string{"timedout: a"}, counts: [3]int{0, 1, 1}, keep: "a"},
		{name: "a spec is interrupted", specs: []spec{in(types.SpecStateInterrupted, "a"), armor}, wrong: []string{"interrupted: a"}, counts: [3]int{0, 1, 1}, keep: "a"},
		{name: "a spec is pending", specs: []spec{in(types.SpecStatePending, "a"), armor}, wrong: []string{"pending: a"}, counts: [3]int{0, 1, 1}, keep: "a"},
		{name: "a spec skips itself", specs: []spec{a, skipped, armor}, wrong: []string{"no reason for it on this machine: a"}, counts: [3]int{1, 0, 2}, keep: "a a"},
		{name: "a spec is left out", specs: []spec{in(types.SpecStateSkipped, "a"), in(pass, "AppArmor x")},
			wrong: []string{"no reason for it on this machine: a"}, counts: [3]int{1, 0, 1}, keep: "a"},
		{name: "a skip on a machine that has what it is about", specs: []spec{a, armor, in(pass, "SELinux y"), in(pass, "SELinux z")}, present: true,
			wrong: []string{"no reason for it on this machine: AppArmor x"}, counts: [3]int{3, 0, 1}, keep: "a"},
		{name: "an excused spec fails", specs: []spec{a, in(fail, "AppArmor x")}, wrong: []string{"failed: AppArmor x"}, counts: [3]int{1, 1, 0}, keep: "a"},
		{name: "a spec is absent", specs: []spec{in(pass, "b"), armor}, wrong: []string{"skips.txt has this spec, -update adds it: b", "does not have: a"}, counts: [3]int{1, 0, 1}, keep: "b"},
		{name: "a spec is new", specs: []spec{a, in(pass, "b"), armor}, wrong: []string{"-update adds it: b"}, counts: [3]int{2, 0, 1}, keep: "a b"},
		{name: "a spec is new and added", specs: []spec{a, in(pass, "b"), armor}, update: true, counts: [3]int{2, 0, 1}, keep: "a b"},
		{name: "an excused spec is absent", specs: []spec{a}, wrong: []string{"1 specs for apparmor, and 0"}, counts: [3]int{1, 0, 0}, keep: "a"},
		{name: "an expression hides more than it may", specs: []spec{a, armor, {name: "no AppArmor", state: types.SpecStateSkipped}},
			wrong: []string{"1 specs for apparmor, and 2"}, counts: [3]int{1, 0, 2}, keep: "a"},
		{name: "specs that only some machines have are absent on one", specs: []spec{a, in(pass, "AppArmor x"), in(pass, "SELinux y")}, present: true,
			wrong: []string{"2 specs for selinux, and 1"}, counts: [3]int{3, 0, 0}, keep: "a"},
		{name: "the suite is broken", specs: []spec{a, armor, {name: "BeforeSuite", state: fail}}, trouble: []string{"the suite ended with exit status 1"},
			wrong: []string{"exit status 1", "failed: BeforeSuite", "-update adds it: BeforeSuite"}, counts: [3]int{1, 1, 1}, keep: "a"},
		{name: "nothing ran", specs: []spec{in(types.SpecStateSkipped, "a"), armor}, focus: "b", wrong: []string{"no spec has run"}, keep: "a"},
		{name: "one spec was asked for", specs: []spec{a, in(types.SpecStateSkipped, "AppArmor x")}, focus: "a", counts: [3]int{1, 0, 0}, keep: "a"},
		{name: "the spec asked for skips itself", specs: []spec{a, skipped, armor}, focus: "a", wrong: []string{"on this machine: a"}, counts: [3]int{1, 0, 1}, keep: "a a"},
	} {
		t.Run(test.name, func(t *testing.T) {
			o := options{focus: test.focus, update: test.update}
			v := o.verdict(&result{specs: test.specs, excuses: excuses(!test.present), trouble: test.trouble}, []string{"a"})
			if len(v.wrong) != len(test.wrong) {
				t.Fatalf("complaints %q, want %q", v.wrong, test.wrong)
			}
			for i, part := range test.wrong {
				if !strings.Contains(v.wrong[i], part) {
					t.Errorf("complaint %q, want one with %q", v.wrong[i], part)
				}
			}
			if got := [3]int{v.passed, v.failed, v.skipped}; got != test.counts {
				t.Errorf("passed, failed, skipped: %v, want %v", got, test.counts)
			}
			if got := strings.Join(v.keep, " "); got != test.keep {
				t.Errorf("passing.txt would list %q, want %q", got, test.keep)
			}
		})
	}
}

func TestLinesOfSkipsAreChecked(t *testing.T) {
	for line, want := range map[string]string{
		"apparmor 9 AppArmor":          "",
		"cgroup2-memory  1  OOMKilled": "",
		"weather 1 x":                  `"weather" is not a feature`,
		"apparmor AppArmor":            `"AppArmor" is not a number`,
		"apparmor 0 AppArmor":          `"0" is not a number`,
		"apparmor 9":                   "no expression",
		"apparmor 9 (":                 "missing closing )",
		"apparmor":                     `"" is not a number`,
	} {
		path := filepath.Join(t.TempDir(), "skips.txt")
		if err := os.WriteFile(path, []byte("# a comment\n\n"+line+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		list, err := readSkips(path)
		if want == "" && (err != nil || len(list) != 1) || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v, %v; want %q", line, list, err, want)
		}
	}
}

// The two lists together are the suite.
func TestListsHave117Specs(t *testing.T) {
	passing, err := readLines("../passing.txt")
	if err != nil {
		t.Fatal(err)
	}
	skips, err := readSkips("../skips.txt")
	if err != nil {
		t.Fatal(err)
	}
	total := len(passing)
	for _, e := range skips {
		if !features[e.feature].unlisted {
			total += e.count
		}
		for _, name := range passing {
			if e.pattern.MatchString(name) {
				t.Errorf("%q is in both lists", name)
			}
		}
	}
	if total != 117 {
		t.Errorf("passing.txt and skips.txt have %d specs, the suite has 117", total)
	}
}
