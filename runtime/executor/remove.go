package executor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"cri-mini/internal/audit"
	"cri-mini/internal/crashpoint"
	"cri-mini/runtime/spec"
	"cri-mini/runtime/wire"
)

// running finds a started container, after a restart with the help of the
// monitor.
func (e *Executor) running(id string) (*running, error) {
	c := e.container(id)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.running == nil {
		return nil, fmt.Errorf("container %s is not running: %w", id, ErrUnknown)
	}
	return c.running, nil
}

// Signal sends a signal to the first process. One that has ended is fine.
func (e *Executor) Signal(id string, signal int) error {
	r, err := e.running(id)
	if errors.Is(err, ErrUnknown) {
		return nil
	}
	pidfd := r.files["pidfd"]
	if pidfd == nil {
		return nil
	}
	err = unix.PidfdSendSignal(int(pidfd.Fd()), unix.Signal(signal), nil, 0)
	if err == unix.ESRCH {
		return nil
	}
	return err
}

// Kill ends every process of the container at once.
func (e *Executor) Kill(id string) error {
	r, err := e.running(id)
	if errors.Is(err, ErrUnknown) {
		return nil
	}
	err = e.killGroup(r.cgroup)
	if err == nil {
		return nil
	}
	// Without the group there is still the process.
	failed := e.Signal(id, int(unix.SIGKILL))
	if failed == nil && errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return errors.Join(err, failed)
}

// Remove ends what runs and takes away everything of the container.
func (e *Executor) Remove(ctx context.Context, s spec.Container) error {
	if s.Cgroup == "" { // the caller's record is damaged; there is our note
		if note, err := e.noteOf(s.ID); err == nil {
			s.Cgroup = note.Cgroup
		}
	}
	if err := e.Kill(s.ID); err != nil {
		e.log.Warn("cannot kill a container", "container", s.ID, "err", err)
	}
	crashpoint.Here("remove.killed")
	if r, err := e.running(s.ID); err == nil {
		if err := waitExit(ctx, r.files["pidfd"]); err != nil {
			return err
		}
	}
	// Closed before the monitor forgets it, or its successor gets it.
	e.container(s.ID).close()
	// One that an earlier daemon asked for, and whose answer nobody heard, is
	// killed only here.
	if err := e.forget(ctx, s.ID, func() error { return e.endGroup(s.Cgroup) }); err != nil {
		return err
	}
	e.store.Drop(storedTask + s.ID)
	crashpoint.Here("remove.forgotten")
	e.mu.Lock()
	delete(e.containers, s.ID)
	e.mu.Unlock()
	if err := e.removeGroup(ctx, s.Cgroup); err != nil {
		return err
	}
	crashpoint.Here("remove.group-gone")
	for _, name := range []string{exitsDir, tasksDir} {
		if err := os.Remove(filepath.Join(e.state, name, s.ID)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		crashpoint.Here("remove.noted-file-gone")
	}
	if s.Rootfs.Writable != "" {
		if err := audit.RemoveFolder(s.Rootfs.Writable); err != nil {
			return fmt.Errorf("writable layer: %w", err)
		}
	}
	crashpoint.Here("remove.layer-gone")
	e.layers.sweep()
	return nil
}

// forget makes the monitor let a task go. It may still be busy with the exit, or
// even with the start; kill is called until it has ended.
func (e *Executor) forget(ctx context.Context, id string, kill func() error) error {
	for {
		_, _, err := e.monitor.request(ctx, &wire.Request{Verb: wire.Forget, ID: id}, nil)
		if !errors.Is(err, unix.EBUSY) {
			return err
		}
		if err := kill(); err != nil {
			return err
		}
		if err := sleep(ctx); err != nil {
			return fmt.Errorf("process of %s does not end: %w", id, err)
		}
	}
}

// Update changes the limits of a container's cgroup, all or none.
func (e *Executor) Update(ctx context.Context, s spec.Container, r spec.Resources) error {
	return badLimit(e.updateGroup(ctx, s.Cgroup, cgroupResources(r)))
}
