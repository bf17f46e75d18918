package main

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/onsi/ginkgo/v2/types"
)

func TestVerdict(t *testing.T) {
	lacking := []absence{{feature: "apparmor", pattern: regexp.MustCompile("AppArmor")}}
	passed := func(name string) spec { return spec{name: name, state: types.SpecStatePassed} }
	for _, test := range []struct {
		name   string
		specs  []spec
		listed []string
		wrong  string // part of the complaint, or nothing
		keep   string
	}{
		{"a listed spec passes", []spec{passed("a")}, []string{"a"}, "", "a"},
		{"a new spec passes", []spec{passed("a"), passed("b")}, []string{"a"}, "", "a b"},
		{"a listed spec fails", []spec{{name: "a", state: types.SpecStateFailed}}, []string{"a"}, "passed before", ""},
		{"a listed spec panics", []spec{{name: "a", state: types.SpecStatePanicked}}, []string{"a"}, "passed before", ""},
		{"a spec fails that never passed", []spec{{name: "a", state: types.SpecStateFailed}}, nil, "", ""},
		{"a listed spec vanished", []spec{passed("b")}, []string{"a"}, "does not exist: a", "b"},
		{"the runtime lacks a feature", []spec{{name: "a", state: types.SpecStateSkipped, reason: "unsupported"}}, nil, "no reason for it", ""},
		{"the kernel lacks a feature", []spec{{name: "AppArmor a", state: types.SpecStateSkipped}}, nil, "", ""},
		{"the kernel lacks what a listed spec needs", []spec{{name: "AppArmor a", state: types.SpecStateSkipped}}, []string{"AppArmor a"}, "", "AppArmor a"},
	} {
		t.Run(test.name, func(t *testing.T) {
			v := new(options).verdict(&result{specs: test.specs, absent: lacking}, test.listed)
			// So few specs are always fewer than promised.
			wrong := slices.DeleteFunc(v.wrong, func(s string) bool { return strings.Contains(s, "promised") })
			if got := strings.Join(wrong, "; "); (test.wrong == "") != (got == "") || !strings.Contains(got, test.wrong) {
				t.Errorf("complaint %q, want one with %q", got, test.wrong)
			}
			if got := strings.Join(v.keep, " "); got != test.keep {
				t.Errorf("passing.txt would list %q, want %q", got, test.keep)
			}
		})
	}
}

func TestTooFewPassedSpecsFailAWholeRunOnly(t *testing.T) {
	few := &result{specs: []spec{{name: "a", state: types.SpecStatePassed}}}
	if v := new(options).verdict(few, nil); len(v.wrong) != 1 {
		t.Errorf("whole run: complaints %q, want one about the promise", v.wrong)
	}
	if v := (&options{focus: "a"}).verdict(few, nil); len(v.wrong) != 0 {
		t.Errorf("focused run: complaints %q, want none", v.wrong)
	}
}
