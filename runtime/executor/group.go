package executor

import (
	"context"
	"errors"
	"fmt"
	"os"

	"cri-mini/internal/undo"
	"cri-mini/runtime/cgroup"
	"cri-mini/runtime/cgroup/systemd"
)

// A group has one path for all who speak of it. In a scope, which is systemd's,
// our processes and limits are in the group inside.

// makeGroup makes a group, and the scope that it is in.
func (e *Executor) makeGroup(ctx context.Context, path string, resources cgroup.Resources) (*cgroup.Group, error) {
	var back undo.Stack
	defer back.Run()
	if systemd.IsScope(path) && e.systemd != nil {
		values, err := resources.Values(systemd.ShareFiles()...)
		if err != nil {
			return nil, fmt.Errorf("cgroup %s: %w", path, err)
		}
		if err := e.systemd.Make(ctx, path, values); err != nil {
			return nil, fmt.Errorf("cgroup %s: %w", path, err)
		}
		back.Add(func() error { return e.removeGroup(context.WithoutCancel(ctx), path) })
	}
	group, err := e.cgroups.Create(systemd.Inside(path), resources)
	if err != nil {
		return nil, err
	}
	if err := group.Mark(e.mark); err != nil {
		return nil, errors.Join(err, e.removeGroup(context.WithoutCancel(ctx), path))
	}
	back.Keep()
	return group, nil
}

// updateGroup changes limits, all or none.
func (e *Executor) updateGroup(ctx context.Context, path string, resources cgroup.Resources) error {
	group, err := e.loadGroup(path)
	if err != nil {
		return err
	}
	if !systemd.IsScope(path) || e.systemd == nil {
		return group.Update(resources)
	}
	values, err := resources.Values(systemd.ShareFiles()...)
	if err != nil {
		return fmt.Errorf("cgroup %s: %w", path, err)
	}
	before := systemd.Shares{} // the group inside has them too
	for file, value := range group.Files() {
		if _, changes := values[file]; changes {
			before[file] = value
		}
	}
	var back undo.Stack
	defer back.Run()
	if err := e.systemd.Share(ctx, path, values); err != nil {
		return fmt.Errorf("cgroup %s: %w", path, err)
	}
	back.Add(func() error { return e.systemd.Share(context.WithoutCancel(ctx), path, before) })
	if err := group.Update(resources); err != nil {
		return err
	}
	back.Keep()
	return nil
}

func (e *Executor) loadGroup(path string) (*cgroup.Group, error) {
	return e.cgroups.Load(systemd.Inside(path))
}

func (e *Executor) killGroup(path string) error {
	if path == "" {
		return os.ErrNotExist // never the root of all groups
	}
	group, err := e.loadGroup(path)
	if err != nil {
		return err
	}
	return group.Kill()
}

// endGroup is killGroup for a group that may be gone.
func (e *Executor) endGroup(path string) error {
	if err := e.killGroup(path); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// removeGroup ends what is in a group and removes it. One that is gone is fine.
func (e *Executor) removeGroup(ctx context.Context, path string) error {
	if path == "" {
		return nil
	}
	group, err := e.cgroups.Load(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("cgroup %s: %w", path, err)
	}
	if systemd.IsScope(path) && e.systemd != nil {
		// Killed first: systemd would ask politely and wait. Without processes it
		// forgets the scope by itself, also where the caller has left.
		if err := errors.Join(group.Kill(), e.systemd.Forget(ctx, path)); err != nil && ctx.Err() == nil {
			e.log.Warn("a scope is removed without systemd", "cgroup", path, "err", err)
		}
	}
	return group.Remove(ctx)
}
