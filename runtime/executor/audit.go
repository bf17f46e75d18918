package executor

import (
	"context"
	"errors"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"cri-mini/internal/audit"
	"cri-mini/runtime/cgroup"
	"cri-mini/runtime/cgroup/systemd"
	"cri-mini/runtime/spec"
	"cri-mini/runtime/wire"
)

// The kinds of things that are ours.
const (
	kindTask  = "task of the monitor"
	kindPin   = "namespaces" // that the monitor keeps
	kindGroup = "control group"
	kindNote  = "note of a task"
	kindExit  = "exit record"
)

// Things lists what was made for pods and containers: tasks of the monitor,
// namespaces, groups, notes and exit records. Parent is where groups are that nobody gave another
// place.
func (e *Executor) Things(ctx context.Context, parent string) ([]audit.Thing, error) {
	tasks, err := e.taskThings(ctx)
	if err != nil {
		return nil, err
	}
	pins, err := e.pinThings(ctx)
	if err != nil {
		return nil, err
	}
	rest, err := things(e.state, e.mark, e.cgroups, parent)
	for i, t := range rest {
		switch t.Kind {
		case kindGroup:
			rest[i].Remove = func(ctx context.Context) error { return e.removeGroup(ctx, t.Name) }
		default:
			rest[i].Remove = func(context.Context) error { return removeFile(t.Name) }
		}
	}
	return slices.Concat(tasks, pins, rest), err
}

func removeFile(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

func (e *Executor) taskThings(ctx context.Context) ([]audit.Thing, error) {
	conn, answer, _, err := e.monitor.bound(ctx, &wire.Request{Verb: wire.Watch}, nil)
	if err != nil {
		return nil, err
	}
	unix.Close(conn)
	var list []audit.Thing
	for _, t := range answer.Tasks {
		owner := told(t.ID)
		if !audit.IsID(owner) {
			continue // a process of exec, which its connection ends
		}
		remove := func(ctx context.Context) error { return e.Remove(ctx, spec.Container{ID: owner}) }
		if owner != t.ID {
			remove = func(ctx context.Context) error { return e.endInit(ctx, owner) }
		}
		list = append(list, audit.Thing{Kind: kindTask, Name: t.ID, Owner: owner, Since: t.Started, Remove: remove})
	}
	return list, nil
}

// pinThings are pods' namespaces, after the tasks that are in them.
func (e *Executor) pinThings(ctx context.Context) ([]audit.Thing, error) {
	ids, err := e.pins(ctx)
	if err != nil {
		return nil, err
	}
	var list []audit.Thing
	for _, id := range ids {
		t := audit.Thing{Kind: kindPin, Name: id, Owner: id, Remove: func(ctx context.Context) error { return e.RemoveSandbox(ctx, id) }}
		if !audit.IsID(id) {
			t.Owner, t.Foreign = "", "its name is no id of a pod"
		}
		list = append(list, t)
	}
	return list, nil
}

// Things is the part of Executor.Things that is found without a monitor.
func Things(state string, root cgroup.Root, parent string) ([]audit.Thing, error) {
	mark, err := readInstance(state)
	if err != nil {
		return nil, err
	}
	return things(state, mark, root, parent)
}

func things(state, mark string, root cgroup.Root, parent string) ([]audit.Thing, error) {
	groups, err := groupThings(state, mark, root, parent)
	if err != nil {
		return nil, err
	}
	notes, err := audit.Folder(filepath.Join(state, tasksDir), kindNote, told)
	if err != nil {
		return nil, err
	}
	exits, err := audit.Folder(filepath.Join(state, exitsDir), kindExit, func(name string) string { return name })
	if err != nil {
		return nil, err
	}
	list := append(groups, unmarked(state, root, notes, groups)...)
	for _, t := range append(notes, exits...) {
		if !strings.Contains(t.Name, ".new") { // being written at this moment
			list = append(list, t)
		}
	}
	return list, nil
}

// groupThings are the groups with our mark, wherever they are, and what else is in
// the place that is ours, which is left alone: an instance in a container may have
// the same place. There may be groups of ours in all but those of other runtimes'
// containers.
func groupThings(state, mark string, root cgroup.Root, parent string) ([]audit.Thing, error) {
	found := map[string]audit.Thing{}
	err := root.Groups(func(g cgroup.Found) (deeper bool) {
		t := audit.Thing{Kind: kindGroup, Name: g.Path, Owner: idOfGroup(g.Path), Since: g.Made}
		inScope := systemd.IsScope(path.Dir(g.Path)) // which has its mark inside
		if inScope {
			t.Name = path.Dir(g.Path)
		}
		inParent := path.Dir(t.Name) == parent
		switch {
		case g.Owner != "" && g.Owner == mark:
			if t.Owner == "" {
				t.Foreign = "its name is no id of a pod or container"
			}
		case g.Owner != "" && (inParent || g.Owner == state):
			t.Foreign = "it has the mark of another instance or of an earlier version"
		case g.Owner != "" || inScope:
			return false
		case inParent:
			t.Foreign = notMarked
		default:
			return systemd.IsScope(g.Path) || !containerGroup.MatchString(g.Path)
		}
		found[t.Name] = t
		return systemd.IsScope(g.Path)
	})
	list := slices.Collect(maps.Values(found))
	slices.SortFunc(list, func(a, b audit.Thing) int { return strings.Compare(a.Name, b.Name) })
	return list, err
}

const notMarked = "it does not have the mark of this instance"

// containerGroup is a group that a runtime has named by the id of a container.
var containerGroup = regexp.MustCompile(`[/:-][0-9a-f]{64}(\.scope)?$`)

// unmarked are groups of started containers that were not found by a mark: an
// earlier version made them, or the kernel knows no marks.
func unmarked(state string, root cgroup.Root, notes, groups []audit.Thing) (list []audit.Thing) {
	for _, note := range notes {
		if note.Owner == "" || slices.ContainsFunc(groups, func(g audit.Thing) bool { return g.Owner == note.Owner }) {
			continue
		}
		n, err := readNote(note.Name)
		if err != nil || n.Cgroup == "" {
			continue // it tells nothing, and is a thing itself
		}
		if _, err := root.Load(systemd.Inside(n.Cgroup)); err == nil {
			list = append(list, audit.Thing{Kind: kindGroup, Name: n.Cgroup, Owner: note.Owner, Foreign: notMarked})
		}
	}
	return list
}

// idOfGroup takes the id out of a group's name; in a scope the group inside is
// that of the container.
func idOfGroup(group string) string {
	name := path.Base(group)
	if systemd.IsScope(path.Dir(group)) {
		name = path.Base(path.Dir(group))
	}
	name = strings.TrimSuffix(strings.TrimPrefix(name, "cri-mini-"), ".scope")
	if !audit.IsID(name) {
		return ""
	}
	return name
}
