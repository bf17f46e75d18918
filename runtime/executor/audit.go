package executor

import (
	"context"
	"errors"
	"os"
	"path"
	"path/filepath"
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
	kindGroup = "control group"
	kindNote  = "note of a task"
	kindExit  = "exit record"
)

// Things lists what was made for pods and containers: tasks of the monitor, groups,
// notes and exit records. Parent is where groups are that nobody gave another
// place.
func (e *Executor) Things(ctx context.Context, parent string) ([]audit.Thing, error) {
	tasks, err := e.taskThings(ctx)
	if err != nil {
		return nil, err
	}
	rest, err := Things(e.state, e.cgroups, parent)
	for i, t := range rest {
		switch t.Kind {
		case kindGroup:
			rest[i].Remove = func(ctx context.Context) error { return e.removeGroup(ctx, t.Name) }
		default:
			rest[i].Remove = func(context.Context) error { return removeFile(t.Name) }
		}
	}
	return append(tasks, rest...), err
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

// Things is the part of Executor.Things that is found without a monitor.
func Things(state string, root cgroup.Root, parent string) ([]audit.Thing, error) {
	groups, err := groupThings(state, root, parent)
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
	list := groups
	for _, t := range append(notes, exits...) {
		if !strings.Contains(t.Name, ".new") { // being written at this moment
			list = append(list, t)
		}
	}
	return list, nil
}

// groupThings are the groups with our mark, wherever they are, and those in the
// place that is ours alone.
func groupThings(state string, root cgroup.Root, parent string) ([]audit.Thing, error) {
	var list []audit.Thing
	err := root.Groups(func(g cgroup.Found) (deeper bool) {
		owner := idOfGroup(g.Path)
		ours := path.Dir(g.Path) == parent
		switch {
		case g.Owner != "" && g.Owner != state:
			return false // of another instance
		case owner == "" && g.Owner == "":
			if ours {
				list = append(list, audit.Thing{Kind: kindGroup, Name: g.Path, Since: g.Made, Foreign: "its name is no id of a pod or container"})
			}
			return !ours
		case ours || g.Owner == state:
			name := g.Path
			if scope := path.Dir(name); systemd.IsScope(scope) {
				name = scope
			}
			list = append(list, audit.Thing{Kind: kindGroup, Name: name, Owner: owner, Since: g.Made})
			return false
		}
		// Another runtime's, or a scope, which has its mark inside.
		return systemd.IsScope(g.Path)
	})
	return list, err
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
