package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/onsi/ginkgo/v2/types"
)

// promisedStreaming is the number of specs about streaming.
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
	}
	for _, line := range v.wrong {
		fmt.Println("WRONG: " + line)
	}
	say("%d passed, %d failed, %d skipped, of %d specs", v.passed, v.failed, v.skipped, len(r.specs))
	if o.totals != "" {
		text := fmt.Sprintf("%d %d %d\n", v.passed, v.failed, v.skipped)
		for _, line := range slices.Concat(v.lines, v.wrong) {
			text += line + "\n"
		}
		if err := os.WriteFile(o.totals, []byte(text), 0o644); err != nil {
			return 1, err
		}
	}
	if len(v.wrong) > 0 {
		say("the same order again: -seed %d", o.seed)
		return 1, nil
	}
	return 0, nil
}

// verdict is what a run comes to.
type verdict struct {
	passed, failed, skipped int
	keep                    []string // what passing.txt should list
	lines                   []string // one for each spec that failed or was skipped
	wrong                   []string // why the run as a whole fails
}

// verdict compares what ran with what must run: each spec of passing.txt, those
// of skips.txt as many as it says, and no others.
func (o *options) verdict(r *result, listed []string) *verdict {
	v := &verdict{wrong: slices.Clone(r.trouble)}
	seen := map[string]bool{}
	for _, s := range r.specs {
		e := r.excuse(s.name)
		v.count(s, e, o.focus != "")
		seen[s.name] = true
		isListed := slices.Contains(listed, s.name)
		if s.state == types.SpecStatePassed && e == nil || isListed {
			v.keep = append(v.keep, s.name)
		}
		if !isListed && e == nil && !o.update {
			v.wrong = append(v.wrong, "neither passing.txt nor skips.txt has this spec, -update adds it: "+s.name)
		}
	}
	for _, name := range listed {
		if !seen[name] {
			v.wrong = append(v.wrong, "passing.txt lists a spec that the suite does not have: "+name)
		}
	}
	for _, e := range r.excuses {
		v.compare(e, r.specs)
	}
	if v.passed+v.failed == 0 {
		v.wrong = append(v.wrong, "no spec has run")
	}
	if o.websocket && v.passed < promisedStreaming {
		v.wrong = append(v.wrong, fmt.Sprintf("%d streaming specs are promised, %d passed", promisedStreaming, v.passed))
	}
	return v
}

// count adds one spec, and what may excuse it if it is skipped.
func (v *verdict) count(s spec, e *excuse, focused bool) {
	switch {
	case s.state == types.SpecStatePassed:
		v.passed++
	case s.state == types.SpecStateSkipped && s.reason == "" && focused:
		// Not asked for.
	case s.state == types.SpecStateSkipped && e != nil && e.missing:
		v.skipped++
		v.lines = append(v.lines, fmt.Sprintf("SKIP: %s: kernel feature missing: %s", s.name, e.feature))
	case s.state == types.SpecStateSkipped:
		v.skipped++
		v.lines = append(v.lines, fmt.Sprintf("SKIP: %s: %s", s.name, s.reason))
		v.wrong = append(v.wrong, "skipped, and skips.txt has no reason for it on this machine: "+s.name)
	default:
		v.failed++
		v.lines = append(v.lines, fmt.Sprintf("FAIL: %s: %s: %s", s.name, s.state, s.reason))
		v.wrong = append(v.wrong, fmt.Sprintf("%s: %s", s.state, s.name))
	}
}

// compare holds a line of skips.txt to its number: an expression that came to
// fit more specs would hide them, one that fits fewer is out of date.
func (v *verdict) compare(e excuse, specs []spec) {
	found := 0
	for _, s := range specs {
		if e.pattern.MatchString(s.name) {
			found++
		}
	}
	if found == e.count || found == 0 && e.missing && features[e.feature].unlisted {
		return
	}
	v.wrong = append(v.wrong, fmt.Sprintf("skips.txt has %d specs for %s, and %d have a name like %q", e.count, e.feature, found, e.pattern))
}

// excuse is the line of skips.txt for a spec, or nothing.
func (r *result) excuse(name string) *excuse {
	for i, e := range r.excuses {
		if e.pattern.MatchString(name) {
			return &r.excuses[i]
		}
	}
	return nil
}
