package cgroup

import (
	"os"
	"strings"
	"unicode/utf8"
)

// What a listing shows of a group at most: the kernel has about a hundred
// files today, and cgroup.procs of a large group is long.
const (
	maxFiles     = 256
	maxFileValue = 4096
)

// Files shows all control files of the group with their values. Those that
// cannot be read (cgroup.kill, or pressure with PSI switched off) are left out.
func (g *Group) Files() map[string]string {
	entries, err := os.ReadDir(g.dir)
	if err != nil {
		return nil
	}
	files := make(map[string]string)
	for _, e := range entries {
		if e.IsDir() || len(files) == maxFiles {
			continue
		}
		value, err := g.read(e.Name())
		if err != nil {
			continue
		}
		if len(value) > maxFileValue {
			value = strings.TrimRightFunc(value[:maxFileValue], func(r rune) bool { return r == utf8.RuneError }) + "…"
		}
		files[e.Name()] = value
	}
	return files
}
