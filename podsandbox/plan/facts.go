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
	// SystemdCgroups names leaf groups as the kubelet expects of systemd.
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
		return "", invalid("linux.cgroup_parent", parent, "must not contain ..")
	}
	if strings.Contains(parent, "\x00") {
		return "", invalid("linux.cgroup_parent", parent, "holds a zero byte")
	}
	leaf := id
	if f.SystemdCgroups {
		leaf = "cri-mini-" + id + ".scope"
	}
	return path.Join("/", parent, leaf), nil
}
