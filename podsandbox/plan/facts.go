package plan

import (
	"path"
	"slices"
	"strings"
)

// Facts is what the node and the configuration are like.
type Facts struct {
	Hostname     string // of the node
	CgroupParent string // of pods that name none
	// SystemdCgroups names groups as systemd does: slices, and in them scopes.
	SystemdCgroups bool
	OpenFiles      uint64 // RLIMIT_NOFILE; 0 leaves the monitor's own

	// What this program can hand on, and what is there to have in a new user
	// namespace. See package capability.
	OwnCapabilities, AllCapabilities uint64

	// Hidden and Readonly are the paths to mask and to make read-only for a
	// container that says nothing of its security.
	Hidden, Readonly []string
}

// cgroup is the path of the group of one container or one reaping init.
func (f Facts) cgroup(parent, id string) (string, error) {
	if parent == "" {
		parent = f.CgroupParent
	}
	if slices.Contains(strings.Split(parent, "/"), "..") {
		return "", invalid("config.linux.cgroup_parent", parent, "must not contain ..")
	}
	if strings.Contains(parent, "\x00") {
		return "", invalid("config.linux.cgroup_parent", parent, "holds a zero byte")
	}
	if !f.SystemdCgroups {
		return path.Join("/", parent, id), nil
	}
	slice, ok := slicePath(path.Base(parent))
	if !ok {
		return "", invalid("config.linux.cgroup_parent", parent, "must be a slice, such as /kubepods.slice, for the cgroup driver is systemd")
	}
	return path.Join(slice, "cri-mini-"+id+".scope"), nil
}

// slicePath is the place of a slice, which its name alone says: that of a-b.slice
// is /a.slice/a-b.slice. See systemd.slice(5).
func slicePath(name string) (string, bool) {
	stem, ok := strings.CutSuffix(name, ".slice")
	if !ok || len(name) > 255 {
		return "", false
	}
	if stem == "-" {
		return "/", true
	}
	place, above := "", ""
	for part := range strings.SplitSeq(stem, "-") {
		if part == "" || strings.Trim(part, sliceLetters) != "" {
			return "", false
		}
		above += part
		place += "/" + above + ".slice"
		above += "-"
	}
	return place, true
}

// sliceLetters may stand in the name of a slice. The minus divides it.
const sliceLetters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789:_.\\@"
