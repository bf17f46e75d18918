package enclosure

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// cgroup is the root of everything this run makes in the cgroup tree.
type cgroup struct {
	*os.File
	delegated string // the file in which a controller was passed on to it, or none
}

func newCgroup() (*cgroup, error) {
	mountpoint, err := cgroupMountpoint()
	if err != nil {
		return nil, err
	}
	delegated, err := delegate(mountpoint, "memory")
	if err != nil {
		return nil, err
	}
	path := filepath.Join(mountpoint, fmt.Sprintf("enclosure-%d", os.Getpid()))
	if err := os.Mkdir(path, 0o755); err != nil {
		return nil, err
	}
	dir, err := os.Open(path)
	if err != nil {
		return nil, errors.Join(err, os.Remove(path))
	}
	return &cgroup{dir, delegated}, nil
}

// delegate passes a controller on if the machine has it: what a run could have
// and lacks would only look as if the machine lacked it. It gives the file in
// which that is to be undone.
func delegate(mountpoint, controller string) (string, error) {
	there, err := os.ReadFile(filepath.Join(mountpoint, "cgroup.controllers"))
	if err != nil || !slices.Contains(strings.Fields(string(there)), controller) {
		return "", err
	}
	file := filepath.Join(mountpoint, "cgroup.subtree_control")
	passed, err := os.ReadFile(file)
	if err != nil || slices.Contains(strings.Fields(string(passed)), controller) {
		return "", err
	}
	if err := os.WriteFile(file, []byte("+"+controller), 0); err != nil {
		return "", fmt.Errorf("pass on the cgroup controller %s: %w", controller, err)
	}
	return file, nil
}

// cgroupMountpoint finds cgroup v2, wherever this machine keeps it.
func cgroupMountpoint() (string, error) {
	table, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(table)) {
		if fields := strings.Fields(line); fields[2] == "cgroup2" {
			return fields[1], nil
		}
	}
	return "", errors.New("kernel feature missing: cgroup v2 is not mounted")
}

// remove takes the tree away from the leaves up. The processes are gone: they
// ended with PID 1 of their namespace.
func (c *cgroup) remove() {
	var paths []string
	_ = filepath.WalkDir(c.Name(), func(path string, entry os.DirEntry, err error) error {
		if err == nil && entry.IsDir() {
			paths = append(paths, path)
		}
		return nil
	})
	c.Close()
	for _, path := range slices.Backward(paths) {
		if err := os.Remove(path); err != nil {
			fmt.Fprintf(os.Stderr, "enclosure: %v\n", err)
		}
	}
	if c.delegated == "" {
		return
	}
	// Another run may have it in use by now.
	if err := os.WriteFile(c.delegated, []byte("-memory"), 0); err != nil && !errors.Is(err, syscall.EBUSY) {
		fmt.Fprintf(os.Stderr, "enclosure: %v\n", err)
	}
}
