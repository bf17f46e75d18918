package executor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"cri-mini/runtime/spec"
	"cri-mini/runtime/wire"
)

// watch is told of all tasks of the monitor, of several at the same time, and then
// of every later exit. When the monitor dies a new one takes over what we hold.
func (e *Executor) watch(ctx context.Context, each func(context.Context, wire.Task) error) error {
	conn, answer, _, err := e.monitor.bound(ctx, &wire.Request{Verb: wire.Watch}, nil)
	if err != nil {
		return err
	}
	var told errgroup.Group
	told.SetLimit(keepIdle)
	for _, t := range answer.Tasks {
		told.Go(func() error { return each(ctx, t) })
	}
	if err := told.Wait(); err != nil {
		unix.Close(conn)
		return err
	}
	e.monitor.watching(conn)
	go e.follow(conn)
	return nil
}

// follow reads exits until the connection ends.
func (e *Executor) follow(conn int) {
	for {
		answer, _, err := receive(conn)
		if err != nil {
			break
		}
		for _, t := range answer.Tasks {
			e.exited(t)
		}
	}
	e.monitor.unwatch(conn)
	if !e.isClosed() {
		e.replaceMonitor()
	}
}

func (e *Executor) isClosed() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.closed
}

func (e *Executor) exited(t wire.Task) {
	e.exits <- spec.TaskExit{ID: told(t.ID), Exit: exitOf(t)}
}

func exitOf(t wire.Task) spec.Exit {
	return spec.Exit{Code: int(t.Code), At: t.At, OOMKilled: t.OOMKilled, Unknown: t.Unknown}
}

// learn takes copies of a running task's descriptors.
func (e *Executor) learn(ctx context.Context, t wire.Task) error {
	n, noteErr := e.noteOf(t.ID)
	stray := errors.Is(noteErr, os.ErrNotExist)
	if noteErr != nil && !stray { // the task is ours all the same
		e.log.Warn("what is known of a task is only what the monitor tells", "err", noteErr)
	}
	_, got, err := e.monitor.request(ctx, &wire.Request{Verb: wire.Files, ID: t.ID}, nil)
	if err != nil {
		if errors.Is(err, unix.ESRCH) {
			return nil
		}
		return err
	}
	if stray {
		return e.dropStray(ctx, t.ID, got)
	}
	if f := got["rootfs"]; f != nil { // the monitor's alone, see Start
		f.Close()
		delete(got, "rootfs")
	}
	c := e.container(t.ID)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.running != nil {
		got.close()
		return nil
	}
	c.running = &running{pid: int(t.PID), started: t.Started, files: got, cgroup: n.Cgroup, log: n.Log, logRoot: n.LogRoot, once: n.Once, user: n.User, tracer: n.Tracer}
	return nil
}

// learnPins takes copies of the namespaces that the monitor keeps, which are asked
// for one by one otherwise: on a full node the first answer waits for them. What is
// not learned here is asked for when it is needed.
func (e *Executor) learnPins(ctx context.Context) {
	ids, err := e.pins(ctx)
	var asked errgroup.Group
	asked.SetLimit(keepIdle)
	for _, id := range ids {
		asked.Go(func() error {
			_, err := e.sandbox(ctx, id)
			return err
		})
	}
	if err := errors.Join(err, asked.Wait()); err != nil {
		e.log.Warn("the monitor does not tell of all namespaces", "err", err)
	}
}

// pins are the ids under which the monitor keeps namespaces. One of an earlier
// version cannot tell.
func (e *Executor) pins(ctx context.Context) (ids []string, err error) {
	var answer *wire.Answer
	err = outlive(ctx, func() (err error) {
		answer, _, err = e.monitor.request(ctx, &wire.Request{Verb: wire.Pins}, nil)
		return err
	})
	if errors.Is(err, unix.EBADMSG) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	for _, pin := range answer.Tasks {
		ids = append(ids, pin.ID)
	}
	return ids, nil
}

// dropStray ends a task that the monitor knows and we have no note of. Its
// removal was on the way: the note goes last.
func (e *Executor) dropStray(ctx context.Context, id string, got files) error {
	defer got.close()
	e.log.Warn("ending a task without a note", "task", id)
	return e.forget(ctx, id, func() error {
		if pidfd := got["pidfd"]; pidfd != nil {
			if err := unix.PidfdSendSignal(int(pidfd.Fd()), unix.SIGKILL, nil, 0); err != nil && err != unix.ESRCH {
				return err
			}
		}
		return nil
	})
}

// noteOf reads what we wrote at the start of a task.
func (e *Executor) noteOf(id string) (noted, error) {
	n, err := readNote(filepath.Join(e.state, tasksDir, id))
	if err != nil {
		return n, fmt.Errorf("note of task %s: %w", id, err)
	}
	return n, nil
}

func readNote(file string) (n noted, err error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return n, err
	}
	return n, json.Unmarshal(text, &n)
}

// Tasks says what is known of every started container: from the monitor, and
// of those it does not know from records and the kernel.
func (e *Executor) Tasks(ctx context.Context) (map[string]spec.Task, error) {
	var conn int
	var answer *wire.Answer
	err := outlive(ctx, func() (err error) {
		conn, answer, _, err = e.monitor.bound(ctx, &wire.Request{Verb: wire.Watch}, nil)
		return err
	})
	if err != nil {
		return nil, err
	}
	unix.Close(conn)
	tasks := map[string]spec.Task{}
	for _, t := range answer.Tasks {
		task := spec.Task{Started: spec.Started{PID: int(t.PID), At: t.Started}}
		if t.Ended {
			exit := exitOf(t)
			task.Exit = &exit
		}
		tasks[told(t.ID)] = task
	}
	return tasks, e.addNoted(ctx, tasks)
}

// addNoted adds the tasks of a monitor that died while we did not run. One
// that still runs is given to the monitor of now.
func (e *Executor) addNoted(ctx context.Context, tasks map[string]spec.Task) error {
	entries, err := os.ReadDir(filepath.Join(e.state, tasksDir))
	if err != nil {
		return err
	}
	for _, entry := range entries {
		id := entry.Name()
		if _, known := tasks[id]; known || strings.Contains(id, ".new") || strings.HasPrefix(id, initPrefix) {
			continue
		}
		n, err := e.noteOf(id)
		if err != nil {
			e.log.Warn("ignoring the note of a task", "err", err)
			continue
		}
		if n.PID == 0 && !e.populated(n.Cgroup) {
			continue // it was about to start, and did not
		}
		task := spec.Task{Started: spec.Started{PID: n.PID, At: n.Started}}
		if exit, ok := e.recordedExit(id); ok {
			task.Exit = &exit
		} else if err := e.adoptOrphan(ctx, id, n); err != nil {
			task.Exit = &spec.Exit{Code: 255, At: time.Now(), Unknown: true, OOMKilled: e.killedForMemory(n.Cgroup)}
		}
		tasks[id] = task
	}
	return nil
}

// killedForMemory asks the group of a container whose exit nobody saw, and which
// is removed later.
func (e *Executor) killedForMemory(path string) bool {
	if path == "" {
		return false
	}
	group, err := e.loadGroup(path)
	if err != nil {
		return false // it is gone, and nobody can tell
	}
	kills, err := group.OOMKills()
	return err == nil && kills > 0
}

// populated tells whether anything lives in a group.
func (e *Executor) populated(path string) bool {
	if path == "" {
		return false // not the root of all groups
	}
	group, err := e.loadGroup(path)
	if err != nil {
		return false
	}
	lives, err := group.Populated()
	return err == nil && lives
}

// recordedExit reads the record that a monitor wrote.
func (e *Executor) recordedExit(id string) (spec.Exit, bool) {
	text, err := os.ReadFile(filepath.Join(e.state, exitsDir, id))
	if err != nil {
		return spec.Exit{}, false
	}
	var record struct {
		Code      int       `json:"code"`
		At        time.Time `json:"at"`
		OOMKilled bool      `json:"oomKilled"`
		Unknown   bool      `json:"unknown"`
	}
	if err := json.Unmarshal(text, &record); err != nil {
		e.log.Warn("ignoring an exit record", "container", id, "err", err)
		return spec.Exit{}, false
	}
	return spec.Exit(record), true
}

// adoptOrphan finds a process by its number, makes sure by the inode of its
// pidfd that it is the one, and lets the monitor watch it. Its pipes died with
// the monitor and the daemon before us.
func (e *Executor) adoptOrphan(ctx context.Context, id string, n noted) error {
	if n.PID == 0 { // started, but who it is died with the two of us
		return errors.Join(ErrUnknown, e.killGroup(n.Cgroup))
	}
	fd, err := unix.PidfdOpen(n.PID, 0)
	if err != nil {
		return err
	}
	pidfd := os.NewFile(uintptr(fd), "pidfd")
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Ino != n.Inode {
		pidfd.Close()
		return ErrUnknown
	}
	c := e.container(id)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.running = &running{pid: n.PID, started: n.Started, files: files{"pidfd": pidfd}, cgroup: n.Cgroup, log: n.Log, logRoot: n.LogRoot, once: n.Once, user: n.User, tracer: n.Tracer}
	return e.adopt(ctx, c)
}
