package systemd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strconv"
	"strings"

	"cri-mini/internal/undo"
)

// keeperGroup is where the keeper is. A group that gives controllers to those
// below has no processes of its own.
const keeperGroup = "keeper"

// Make makes the scope of a group's path in the slice above it, unless it is
// there, with its shares. Killed anywhere in here, the keeper reads the end of its pipe and ends,
// and with it the scope.
func (m *Manager) Make(ctx context.Context, group string, s Shares) error {
	var back undo.Stack
	defer back.Run()
	dir := m.root + group
	if populated(dir) {
		return nil // by an earlier call
	}
	shares, err := s.properties()
	if err != nil {
		return err
	}
	k, err := m.program.start()
	if err != nil {
		return fmt.Errorf("keeper of %s: %w", path.Base(group), err)
	}
	back.Add(k.end)
	if err := m.startScope(ctx, group, k.pid, shares); err != nil {
		return err
	}
	back.Add(func() error { return m.stop(context.WithoutCancel(ctx), path.Base(group)) })
	if err := os.Mkdir(path.Join(dir, keeperGroup), 0o755); err != nil {
		return fmt.Errorf("systemd did not make the scope where its slice is: %w", err)
	}
	if err := os.WriteFile(path.Join(dir, keeperGroup, "cgroup.procs"), []byte(strconv.Itoa(k.pid)), 0); err != nil {
		return err
	}
	if err := k.stay(); err != nil {
		return fmt.Errorf("keeper of %s: %w", path.Base(group), err)
	}
	back.Keep()
	return nil
}

// populated tells whether a process lives in a directory's group or below.
func populated(dir string) bool {
	events, err := os.ReadFile(path.Join(dir, "cgroup.events"))
	return err == nil && strings.Contains(string(events), "populated 1")
}

// Forget ends what is in a scope and removes it. One that is gone is fine.
func (m *Manager) Forget(ctx context.Context, group string) error {
	return m.stop(ctx, path.Base(group))
}

// ForgetSlice stops a slice that scopes have been in, if nothing is in it.
func (m *Manager) ForgetSlice(ctx context.Context, group string) error {
	if populated(m.root + group) {
		return fmt.Errorf("slice %s still has processes", path.Base(group))
	}
	if err := m.stop(ctx, path.Base(group)); err != nil {
		return err
	}
	if err := os.Remove(m.root + group); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
