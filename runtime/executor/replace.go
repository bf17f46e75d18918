package executor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"cri-mini/internal/broken"
	"cri-mini/internal/crashpoint"
	"cri-mini/runtime/spec"
	"cri-mini/runtime/wire"
)

// replaceMonitor starts a new monitor after the death of one, and gives it
// what we hold twice for this case: namespaces, pidfds and pipes. The
// containers notice nothing; their exit codes come from their pidfds.
func (e *Executor) replaceMonitor() {
	e.log.Error("the monitor has died; starting another", "pid", e.monitor.pid())
	crashpoint.Here("replace.noticed")
	for wait := 10 * time.Millisecond; !e.isClosed(); wait = min(2*wait, 5*time.Second) {
		err := e.tryReplace(context.Background())
		if err == nil {
			e.log.Info("the new monitor has taken over", "pid", e.monitor.pid())
			return
		}
		e.log.Error("cannot replace the monitor, trying again", "err", err)
		time.Sleep(wait)
	}
}

// replaceTime is how long a question waits for the monitor that replaces one.
const replaceTime = 10 * time.Second

// outlive asks again while the monitor is being replaced.
func outlive(ctx context.Context, ask func() error) error {
	for began := time.Now(); ; {
		err := ask()
		if !monitorDied(err) || time.Since(began) > replaceTime {
			return err
		}
		if sleep(ctx) != nil {
			return err
		}
	}
}

// unheard is the error of a request that no monitor has: it can be made again,
// whatever it is.
type unheard struct{ error }

func (e unheard) Unwrap() error { return e.error }

// untilHeard makes a request whose effect nobody may have twice, again as long as
// none of the monitors that die has heard it.
func untilHeard(ctx context.Context, ask func() error) error {
	var heard error
	err := outlive(ctx, func() error {
		err := ask()
		if err == nil || errors.As(err, new(unheard)) {
			return err
		}
		heard = err
		return nil
	})
	if err == nil {
		err = heard
	}
	return err
}

// diedOr says of the error of a connection to nobody what it means.
func diedOr(err error) error {
	if monitorDied(err) {
		return fmt.Errorf("%w: %w", spec.ErrMonitorDied, err)
	}
	return err
}

// monitorDied tells whether an error is that of a connection to nobody.
func monitorDied(err error) bool {
	return errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNRESET) || errors.Is(err, unix.ECONNREFUSED) || errors.Is(err, unix.ENOENT)
}

func (e *Executor) tryReplace(ctx context.Context) error {
	e.monitor.dropIdle()
	if err := e.monitor.ensure(ctx); err != nil {
		return err
	}
	crashpoint.Here("replace.started")
	e.mu.Lock()
	sandboxes, containers := make(map[string]*sandbox, len(e.sandboxes)), make([]*container, 0, len(e.containers))
	for id, s := range e.sandboxes {
		sandboxes[id] = s
	}
	for _, c := range e.containers {
		containers = append(containers, c)
	}
	e.mu.Unlock()
	for id, s := range sandboxes {
		if broken.Pins {
			continue
		}
		if err := e.pin(ctx, id, s.files); err != nil {
			return err
		}
		crashpoint.Here("replace.pinned")
		if !e.has(id) { // removed meanwhile
			if err := e.unpin(ctx, id); err != nil {
				return err
			}
		}
	}
	for _, c := range containers {
		c.mu.Lock()
		err := e.readopt(ctx, c)
		c.mu.Unlock()
		if err != nil {
			return err
		}
		crashpoint.Here("replace.adopted")
	}
	crashpoint.Here("replace.handed-over")
	// What we do not know by now was removed meanwhile, and is not to be
	// learned again.
	return e.watch(ctx, func(_ context.Context, t wire.Task) error {
		if t.Ended { // after it was handed over and before anyone listened
			e.exited(t)
		}
		return nil
	})
}

func (e *Executor) has(sandbox string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.sandboxes[sandbox] != nil
}

// readopt hands a started container over, unless its exit is on record.
func (e *Executor) readopt(ctx context.Context, c *container) error {
	if c.running == nil {
		return nil
	}
	if exit, ended := e.recordedExit(c.id); ended {
		e.exits <- spec.TaskExit{ID: told(c.id), Exit: exit} // it may not have been told
		return nil
	}
	return e.adopt(ctx, c)
}

// adopt lets the monitor watch a running process that another one started.
// The caller holds c.mu.
func (e *Executor) adopt(ctx context.Context, c *container) error {
	r := c.running
	request := &wire.Request{Verb: wire.Adopt, ID: c.id, PID: int32(r.pid), At: r.started, Task: wire.TaskSpec{Files: 1, Record: true, StdinOnce: r.once}}
	send := []*os.File{r.files["pidfd"]}
	opened := files{}
	defer opened.close()
	if group, err := e.loadGroup(r.cgroup); err == nil {
		if dir, err := group.Open(); err == nil {
			opened["cgroup"] = dir
			request.Task.Cgroup = true
			send = append(send, dir)
		}
	}
	record, err := os.OpenFile(filepath.Join(e.state, exitsDir), unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	opened["record"] = record
	send = append(send, record)
	if r.log != "" {
		if log, err := openLogInTime(ctx, r.logRoot, r.log); err == nil {
			opened["log"] = log
			request.Task.Log = true
			send = append(send, log)
		} else {
			e.log.Warn("the log of a container cannot be opened again", "container", c.id, "err", err)
		}
	}
	for _, part := range []struct {
		name string
		flag *bool
	}{{"stdin", &request.Task.Stdin}, {"stdout", &request.Task.Stdout}, {"stderr", &request.Task.Stderr}, {"terminal", &request.Task.Terminal}} {
		if f := r.files[part.name]; f != nil {
			*part.flag = true
			send = append(send, f)
		}
	}
	_, _, err = e.monitor.request(ctx, request, send)
	if errors.Is(err, unix.EEXIST) {
		return nil // it was started there already, or an earlier try came this far
	}
	return err
}
