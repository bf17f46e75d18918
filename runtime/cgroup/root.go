package cgroup

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"cri-mini/internal/undo"
)

// Root is a mounted cgroup2 file system.
type Root struct {
	Path string
}

// usual are the places of a machine with only cgroup2 and of one that keeps
// the old hierarchies beside it. They are preferred to any other mount.
var usual = []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"}

// Find looks for the cgroup2 file system of this machine. The error is an
// ErrUnsupported when there is none.
func Find() (Root, error) {
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return Root{}, fmt.Errorf("find cgroup2: %w", err)
	}
	for _, dir := range mountPoints(table) {
		var fs unix.Statfs_t
		// The table also lists mounts that a later one covers.
		if unix.Statfs(dir, &fs) == nil && fs.Type == unix.CGROUP2_SUPER_MAGIC {
			return Root{Path: dir}, nil
		}
	}
	return Root{}, &ErrUnsupported{Feature: "cgroup2 (not mounted)"}
}

// mountPoints lists the cgroup2 mounts of a mountinfo table, usual ones first.
// A line is: id parent major:minor root mountpoint options ... - type source
func mountPoints(table []byte) []string {
	var found []string
	for line := range bytes.Lines(table) {
		before, after, ok := strings.Cut(string(line), " - ")
		f := strings.Fields(before)
		if !ok || len(f) < 5 || !strings.HasPrefix(after, "cgroup2 ") {
			continue
		}
		found = append(found, unescape.Replace(f[4]))
	}
	slices.SortStableFunc(found, func(a, b string) int { return rank(a) - rank(b) })
	return found
}

func rank(dir string) int {
	if i := slices.Index(usual, dir); i >= 0 {
		return i
	}
	return len(usual)
}

var unescape = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)

// Controllers lists what the root can limit; nothing when it cannot be read.
func (r Root) Controllers() []string {
	return words(path.Join(r.Path, "cgroup.controllers"))
}

func words(file string) []string {
	text, err := readFile(file)
	if err != nil {
		return nil
	}
	return strings.Fields(text)
}

// Load finds an existing group.
func (r Root) Load(groupPath string) (*Group, error) {
	if err := checkPath(groupPath); err != nil {
		return nil, err
	}
	g := r.group(groupPath)
	if _, err := os.Stat(g.dir); err != nil {
		return nil, fmt.Errorf("cgroup %s: %w", groupPath, errors.Unwrap(err))
	}
	return g, nil
}

func (r Root) group(groupPath string) *Group {
	return &Group{Path: groupPath, dir: r.Path + groupPath}
}

// Create makes a group and sets its limits. Groups on the way that exist stay
// as they are, except that the controllers needed below are enabled in them;
// this is never taken back, for by then a neighbour may rely on it. On error
// the groups made here are removed again.
func (r Root) Create(groupPath string, res Resources) (*Group, error) {
	if err := checkPath(groupPath); err != nil {
		return nil, err
	}
	settings, err := res.settings()
	if err != nil {
		return nil, fmt.Errorf("cgroup %s: %w", groupPath, err)
	}
	need, err := r.need(settings)
	if err != nil {
		return nil, fmt.Errorf("cgroup %s: %w", groupPath, err)
	}

	var back undo.Stack
	defer back.Run()
	g := r.group(groupPath)
	if err := r.makeAll(groupPath, need, &back); err != nil {
		return nil, fmt.Errorf("cgroup %s: %w", groupPath, err)
	}
	if err := g.apply(settings); err != nil {
		return nil, fmt.Errorf("cgroup %s: %w", groupPath, err)
	}
	if !res.AllowAllDevices {
		if err := g.filterDevices(res.Devices); err != nil {
			return nil, fmt.Errorf("cgroup %s: %w", groupPath, err)
		}
	}
	back.Keep()
	return g, nil
}

// CreateBelow makes a group without limits of its own in one that is there;
// os.ErrNotExist when that is gone. Create would make it again, and whoever
// removed it does not come back.
func (r Root) CreateBelow(parent, name string) (*Group, error) {
	g := r.group(parent + "/" + name)
	if err := checkPath(g.Path); err != nil {
		return nil, err
	}
	if err := unix.Mkdir(g.dir, 0o755); err != nil {
		return nil, fmt.Errorf("make cgroup %s: %w", g.Path, err)
	}
	return g, nil
}

// measuring are enabled wherever the machine has them though nobody asks for a
// limit: without them there is no memory, io or process count to report.
var measuring = []string{"cpu", "io", "memory", "pids"}

// need lists the controllers to enable, and refuses settings without one
// before anything is made.
func (r Root) need(settings []setting) ([]string, error) {
	have := r.Controllers()
	var need []string
	for _, c := range measuring {
		if slices.Contains(have, c) {
			need = append(need, c)
		}
	}
	for _, s := range settings {
		switch {
		case slices.Contains(need, s.controller):
		case slices.Contains(have, s.controller):
			need = append(need, s.controller)
		case !s.neutral:
			return nil, &ErrControllerMissing{Controller: s.controller, Field: s.field, Value: s.asked}
		}
	}
	return need, nil
}

// makeAll makes the missing groups from the root down. A neighbour's failed
// Create may remove a common parent between two of our steps: start again, but
// not for ever.
func (r Root) makeAll(groupPath string, need []string, back *undo.Stack) error {
	for try := 0; ; try++ {
		err := r.makeOnce(groupPath, need, back)
		if err == nil || !errors.Is(err, unix.ENOENT) || try == 100 {
			return err
		}
	}
}

func (r Root) makeOnce(groupPath string, need []string, back *undo.Stack) error {
	dir := r.Path
	for name := range strings.SplitSeq(groupPath[1:], "/") {
		_ = enable(dir, need)
		dir += "/" + name
		switch err := unix.Mkdir(dir, 0o755); {
		case errors.Is(err, unix.EEXIST):
		case err != nil:
			return fmt.Errorf("make %s: %w", strings.TrimPrefix(dir, r.Path), err)
		default:
			made := dir
			back.Add(func() error { return removeMade(made) })
		}
	}
	return nil
}

// removeMade leaves a group alone that someone else began to use.
func removeMade(dir string) error {
	err := unix.Rmdir(dir)
	if errors.Is(err, unix.EBUSY) || errors.Is(err, unix.ENOTEMPTY) || errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}

// enable asks for the controllers in the children of dir. Whether a refusal
// matters shows when a limit that was asked for has no file.
//
// A group with processes of its own cannot share memory out to children
// (EBUSY). It could share cpu and pids, but would become threaded by that, and
// its children would be unable to hold a program: so nothing is enabled there.
func enable(dir string, need []string) error {
	file := dir + "/cgroup.subtree_control"
	enabled := words(file)
	missing := slices.DeleteFunc(slices.Clone(need), func(c string) bool { return slices.Contains(enabled, c) })
	if len(missing) == 0 {
		return nil
	}
	have := words(dir + "/cgroup.controllers")
	missing = slices.DeleteFunc(missing, func(c string) bool { return !slices.Contains(have, c) })
	if len(missing) == 0 {
		return nil
	}
	_, noRoot := os.Stat(dir + "/cgroup.type") // the root may have processes
	if noRoot == nil && len(words(dir+"/cgroup.procs")) > 0 {
		return fmt.Errorf("the group above has processes of its own: %w", unix.EBUSY)
	}
	return writeFile(file, "+"+strings.Join(missing, " +"))
}
