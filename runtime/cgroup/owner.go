package cgroup

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// A group can carry the name of who made it, which the kernel forgets with the
// group. Names alone would not do: other programs name groups by ids as well.
const ownerMark = "trusted.cri-mini"

// Mark notes the owner. A kernel without such marks (before 5.7) is no error:
// the group is then known by its place only.
func (g *Group) Mark(owner string) error {
	err := unix.Lsetxattr(g.dir, ownerMark, []byte(owner), 0)
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EPERM) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("mark cgroup %s: %w", g.Path, err)
	}
	return nil
}

// Found is a group of the tree.
type Found struct {
	Path  string
	Owner string // of the mark; empty without
	Made  time.Time
}

// Groups calls visit for each group below the root; those below one for which it
// returns false are left out. A group that goes away meanwhile is no error.
func (r Root) Groups(visit func(Found) (deeper bool)) error {
	return r.groupsBelow("", visit)
}

func (r Root) groupsBelow(parent string, visit func(Found) bool) error {
	entries, err := os.ReadDir(r.Path + parent)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("cgroup %s: %w", parent, err)
	}
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		group := parent + "/" + e.Name()
		if len(group) > unix.PathMax/2 {
			continue // somebody's program plays with the depth; no group of ours is there
		}
		found := Found{Path: group, Owner: ownerOf(r.Path + group)}
		if info, err := e.Info(); err == nil {
			found.Made = info.ModTime()
		}
		if visit(found) {
			if err := r.groupsBelow(group, visit); err != nil {
				return err
			}
		}
	}
	return nil
}

func ownerOf(dir string) string {
	value := make([]byte, unix.PathMax)
	n, err := unix.Lgetxattr(dir, ownerMark, value)
	if err != nil {
		return ""
	}
	return string(value[:n])
}
