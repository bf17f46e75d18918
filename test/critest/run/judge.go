package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/onsi/ginkgo/v2/types"
)

// promised is the number of specs that must pass on any machine.
const promised = 95

// promisedStreaming is the number of those about streaming.
const promisedStreaming = 5

// judge prints the outcome and returns the exit status.
func (o *options) judge(r *result, leaks []string) (int, error) {
	listed, err := readLines(filepath.Join(o.lists, "passing.txt"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return 1, err
	}
	v := o.verdict(r, listed)
	for _, line := range v.lines {
		fmt.Println(line)
	}
	for _, leak := range leaks[:min(len(leaks), 30)] {
		v.wrong = append(v.wrong, "left behind: "+leak)
	}
	if len(leaks) > 30 {
		v.wrong = append(v.wrong, fmt.Sprintf("left behind: %d more", len(leaks)-30))
	}
	if o.update && o.focus == "" {
		if err := writePassing(filepath.Join(o.lists, "passing.txt"), v.keep); err != nil {
			return 1, err
		}
		say("passing.txt rewritten: %d specs", len(v.keep))
	} else if v.fresh > 0 {
		say("%d specs pass that passing.txt does not list: -update adds them", v.fresh)
	}
	for _, line := range v.wrong {
		fmt.Println("WRONG: " + line)
	}
	if o.focus == "" {
		say("%d specs are promised, %d passed", promised, v.passed)
	}
	say("%d passed, %d failed, %d skipped", v.passed, v.failed, v.skipped)
	if o.totals != "" {
		line := fmt.Sprintf("%d %d %d\n", v.passed, v.failed, v.skipped)
		if err := os.WriteFile(o.totals, []byte(line), 0o644); err != nil {
			return 1, err
		}
	}
	if len(v.wrong) > 0 {
		return 1, nil
	}
	return 0, nil
}

// verdict is what a run comes to.
type verdict struct {
	passed, failed, skipped int
	fresh                   int      // passed, and not in passing.txt
	keep                    []string // what passing.txt should list
	lines                   []string // one for each spec that failed or was skipped
	wrong                   []string // why the run as a whole fails
}

func (o *options) verdict(r *result, listed []string) *verdict {
	v := new(verdict)
	seen := map[string]bool{}
	for _, s := range r.specs {
		seen[s.name] = true
		v.count(s, r.missing(s.name), slices.Contains(listed, s.name), o.focus != "")
	}
	for _, name := range listed {
		if !seen[name] {
			v.wrong = append(v.wrong, "passing.txt lists a spec that does not exist: "+name)
		}
	}
	if o.focus == "" && v.passed < promised {
		v.wrong = append(v.wrong, fmt.Sprintf("%d specs are promised, %d passed", promised, v.passed))
	}
	if o.websocket && v.passed < promisedStreaming {
		v.wrong = append(v.wrong, fmt.Sprintf("%d streaming specs are promised, %d passed", promisedStreaming, v.passed))
	}
	return v
}

// count adds one spec. Missing is the kernel feature that excuses it, if any.
func (v *verdict) count(s spec, missing string, listed, focused bool) {
	switch {
	case s.state == types.SpecStatePassed:
		v.passed++
		v.keep = append(v.keep, s.name)
		if !listed {
			v.fresh++
		}
	case s.state == types.SpecStateSkipped && s.reason == "" && focused:
		// Not asked for.
	case s.state == types.SpecStateSkipped && missing != "":
		v.skipped++
		if listed {
			v.keep = append(v.keep, s.name) // other machines have the feature
		}
		v.lines = append(v.lines, fmt.Sprintf("SKIP: %s: kernel feature missing: %s", s.name, missing))
	case s.state == types.SpecStateSkipped:
		v.skipped++
		v.lines = append(v.lines, fmt.Sprintf("SKIP: %s: %s", s.name, s.reason))
		v.wrong = append(v.wrong, "skipped, and skips.txt has no reason for it on this machine: "+s.name)
	default:
		v.failed++
		v.lines = append(v.lines, fmt.Sprintf("FAIL: %s: %s: %s", s.name, s.state, s.reason))
		if listed {
			v.wrong = append(v.wrong, "passed before and does not now: "+s.name)
		}
	}
}

// missing names the absent feature that a spec needs, or nothing.
func (r *result) missing(name string) string {
	for _, a := range r.absent {
		if a.pattern.MatchString(name) {
			return a.feature
		}
	}
	return ""
}
