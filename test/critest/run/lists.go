package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"cri-mini/test/critest/internal/enclosure"
)

// features tells how this machine shows that it has what a spec needs.
var features = map[string]func() bool{
	"apparmor": func() bool {
		text, _ := os.ReadFile("/sys/module/apparmor/parameters/enabled")
		return strings.TrimSpace(string(text)) == "Y"
	},
	"cgroup2-memory": func() bool {
		text, _ := os.ReadFile(filepath.Join(enclosure.CgroupRoot, "cgroup.controllers"))
		return slices.Contains(strings.Fields(string(text)), "memory")
	},
}

// absence is a kernel feature that this machine lacks and a spec that needs it.
type absence struct {
	feature string
	pattern *regexp.Regexp
}

// readSkips reads lines of a feature and an expression, and keeps those whose
// feature is missing: on a machine that has it the spec must run.
func readSkips(path string) ([]absence, error) {
	lines, err := readLines(path)
	if err != nil {
		return nil, err
	}
	var absent []absence
	for _, line := range lines {
		feature, expression, _ := strings.Cut(line, " ")
		present, known := features[feature]
		if !known {
			return nil, fmt.Errorf("%s: %q is not a feature this program can look for", path, feature)
		}
		pattern, err := regexp.Compile(strings.TrimSpace(expression))
		if err != nil || pattern.String() == "" {
			return nil, fmt.Errorf("%s: feature %s: bad expression %q: %v", path, feature, expression, err)
		}
		if !present() {
			absent = append(absent, absence{feature, pattern})
		}
	}
	return absent, nil
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

const passingHeader = "# Specs that pass. A run fails when one of them does not; `hack/critest -update` rewrites the list.\n"

func writePassing(path string, names []string) error {
	slices.Sort(names)
	text := passingHeader + strings.Join(names, "\n") + "\n"
	if err := os.WriteFile(path+".new", []byte(text), 0o644); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}
