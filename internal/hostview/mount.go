package hostview

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
)

// Mount is one line of /proc/PID/mountinfo.
type Mount struct {
	Target  string
	Type    string
	Source  string
	Root    string // which part of the file system is mounted
	Options string
}

func (v *View) mounts(dir string) error {
	text, err := os.ReadFile(filepath.Join(dir, "mountinfo"))
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(text)) {
		m, err := parseMount(line)
		if err != nil {
			return err
		}
		v.Mounts = append(v.Mounts, m)
	}
	return nil
}

var unescape = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)

// parseMount reads a line like
// "36 35 98:0 /part /target rw,nosuid master:1 - ext3 /dev/root rw".
func parseMount(line string) (Mount, error) {
	before, after, ok := strings.Cut(strings.TrimSpace(line), " - ")
	left, right := strings.Fields(before), strings.Fields(after)
	if !ok || len(left) < 6 || len(right) < 2 {
		return Mount{}, errors.New("mountinfo: unreadable line " + line)
	}
	return Mount{
		Target:  unescape.Replace(left[4]),
		Type:    right[0],
		Source:  unescape.Replace(right[1]),
		Root:    unescape.Replace(left[3]),
		Options: strings.Join(append([]string{left[5]}, left[6:]...), " "),
	}, nil
}

// Cgroup is the process's group in the second hierarchy.
type Cgroup struct {
	Path  string // below the root of the hierarchy
	Dir   string // the same in the file system; empty when it cannot be seen
	Files []File
}

// File is one of a group's files; only those that can be read.
type File struct {
	Name, Value string
}

func (v *View) cgroup(dir string) error {
	text, err := os.ReadFile(filepath.Join(dir, "cgroup"))
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(text)) {
		if path, ok := strings.CutPrefix(strings.TrimSpace(line), "0::"); ok {
			v.Cgroup.Path = path
		}
	}
	for _, root := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		group := filepath.Join(root, v.Cgroup.Path)
		if _, err := os.Stat(filepath.Join(group, "cgroup.procs")); err == nil && isSecond(root) {
			v.Cgroup.Dir = group
			break
		}
	}
	if v.Cgroup.Dir == "" {
		return nil
	}
	entries, err := os.ReadDir(v.Cgroup.Dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		value, err := os.ReadFile(filepath.Join(v.Cgroup.Dir, e.Name()))
		if err != nil || len(value) == 0 {
			continue // folders, and files that are only written
		}
		v.Cgroup.Files = append(v.Cgroup.Files, File{e.Name(), strings.TrimSpace(string(value))})
	}
	return nil
}

func isSecond(root string) bool {
	_, err := os.Stat(filepath.Join(root, "cgroup.controllers"))
	return err == nil
}
