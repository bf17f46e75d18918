package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"cri-mini/test/critest/internal/enclosure"
)

// A feature is something of the machine that specs need.
type feature struct {
	present func() bool
	// unlisted features are those without which the suite does not even have
	// the specs.
	unlisted bool
}

// features tells how this machine shows that it has what a spec needs.
var features = map[string]feature{
	"apparmor": {present: func() bool {
		text, _ := os.ReadFile("/sys/module/apparmor/parameters/enabled")
		return strings.TrimSpace(string(text)) == "Y"
	}},
	"cgroup2-memory": {present: func() bool {
		text, _ := os.ReadFile(filepath.Join(enclosure.CgroupRoot, "cgroup.controllers"))
		return slices.Contains(strings.Fields(string(text)), "memory")
	}},
	"selinux": {unlisted: true, present: func() bool {
		_, err := os.Stat("/sys/fs/selinux/enforce")
		return err == nil
	}},
}

// excuse is why specs may be skipped.
type excuse struct {
	feature string
	count   int // of the specs that need it
	pattern *regexp.Regexp
	missing bool // on this machine; else it excuses nothing
}

// readSkips reads lines of a feature, a number of specs and an expression.
func readSkips(path string) ([]excuse, error) {
	lines, err := readLines(path)
	if err != nil {
		return nil, err
	}
	var list []excuse
	for _, line := range lines {
		e, err := readSkip(line)
		if err != nil {
			return nil, fmt.Errorf("%s: line %q: %w", path, line, err)
		}
		list = append(list, e)
	}
	return list, nil
}

func readSkip(line string) (e excuse, err error) {
	name, rest, _ := strings.Cut(line, " ")
	number, expression, _ := strings.Cut(strings.TrimSpace(rest), " ")
	known, ok := features[name]
	if !ok {
		return e, fmt.Errorf("%q is not a feature that this program can look for", name)
	}
	if e.count, err = strconv.Atoi(number); err != nil || e.count < 1 {
		return e, fmt.Errorf("%q is not a number of specs", number)
	}
	expression = strings.TrimSpace(expression)
	if expression == "" {
		return e, errors.New("it has no expression")
	}
	if e.pattern, err = regexp.Compile(expression); err != nil {
		return e, err
	}
	e.feature, e.missing = name, !known.present()
	return e, nil
}

// readLines returns the lines of a list without comments and blanks.
func readLines(path string) ([]string, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var lines []string
	for line := range strings.Lines(string(text)) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			lines = append(lines, line)
		}
	}
	return lines, nil
}

const passingHeader = "# Specs that every machine can run. Those that need more are in skips.txt. `hack/critest -update` rewrites this list.\n"

func writePassing(path string, names []string) error {
	slices.Sort(names)
	text := passingHeader + strings.Join(names, "\n") + "\n"
	if err := os.WriteFile(path+".new", []byte(text), 0o644); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}
