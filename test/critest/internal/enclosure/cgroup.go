package enclosure

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// cgroup is the root of everything this run makes in the cgroup tree.
type cgroup struct{ *os.File }

func newCgroup() (*cgroup, error) {
	mountpoint, err := cgroupMountpoint()
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
	return &cgroup{dir}, nil
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
}
