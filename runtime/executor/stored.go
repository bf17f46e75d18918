package executor

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"

	"cri-mini/internal/fdstore"
)

// What we hold twice, for a monitor that dies, the service manager holds a third
// time if it can: for the case that we die as well.

const (
	storedTask = "task/"
	storedPod  = "pod/"
)

// storeTask leaves out a stdin that is to be closed with the first client: a
// program would wait for its end as long as anybody holds it.
func (e *Executor) storeTask(c *container) {
	if e.store == nil {
		return
	}
	b := fdstore.Bundle(maps.Clone(c.running.files))
	if c.running.once {
		delete(b, "stdin")
	}
	e.store.Keep(storedTask+c.id, b)
}

// restore hands the monitor what was stored and it does not have: it and the
// daemon before us died together.
func (e *Executor) restore(ctx context.Context, kept map[string]fdstore.Bundle) error {
	if len(kept) == 0 && e.store == nil {
		return nil
	}
	ids, err := e.pins(ctx) // none of a monitor that is too old to tell; what it has is pinned again
	if err != nil {
		return err
	}
	pinned := map[string]bool{}
	for _, id := range ids {
		pinned[id] = true
	}
	pods, tasks := 0, 0
	for name, b := range kept {
		var used bool
		var err error
		if id, pod := strings.CutPrefix(name, storedPod); pod && !pinned[id] {
			used, err = true, e.restorePod(ctx, id, b)
			pods++
		} else if id, task := strings.CutPrefix(name, storedTask); task {
			used, err = e.restoreTask(ctx, id, b)
			if used {
				tasks++
			}
		}
		if err != nil {
			return fmt.Errorf("stored %s: %w", name, err)
		}
		if !used {
			b.Close()
		}
	}
	if pods+tasks > 0 {
		e.log.Warn("daemon and monitor had died together; the service manager gave back what they held", "pods", pods, "tasks", tasks)
	}
	return e.storeRest(ctx, pinned, kept)
}

// storeRest stores what a daemon before us did not come to, or not have to.
func (e *Executor) storeRest(ctx context.Context, pinned map[string]bool, kept map[string]fdstore.Bundle) error {
	if e.store == nil {
		return nil
	}
	for id := range pinned {
		if kept[storedPod+id] != nil {
			continue
		}
		s, err := e.sandbox(ctx, id)
		if errors.Is(err, ErrUnknown) {
			continue
		}
		if err != nil {
			return err
		}
		e.store.Keep(storedPod+id, fdstore.Bundle(s.files))
	}
	e.mu.Lock()
	containers := slices.Collect(maps.Values(e.containers))
	e.mu.Unlock()
	for _, c := range containers {
		c.mu.Lock()
		if c.running != nil && c.running.files["pidfd"] != nil && kept[storedTask+c.id] == nil {
			e.storeTask(c)
		}
		c.mu.Unlock()
	}
	return nil
}

func (e *Executor) restorePod(ctx context.Context, id string, b fdstore.Bundle) error {
	return e.pin(ctx, id, e.keep(id, &sandbox{files: files(b)}).files)
}

// restoreTask lets the monitor watch a process, unless it does already, its exit
// is on record, or it was being removed, for the note goes last.
func (e *Executor) restoreTask(ctx context.Context, id string, b fdstore.Bundle) (used bool, err error) {
	c := e.container(id)
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ended := e.recordedExit(id); ended || c.running != nil {
		return false, nil
	}
	n, err := e.noteOf(id)
	if errors.Is(err, os.ErrNotExist) {
		e.store.Drop(storedTask + id)
		return false, nil
	}
	if err != nil { // a daemon that does not start would help nobody
		e.log.Warn("not taking back a stored task", "err", err)
		return false, nil
	}
	if b["pidfd"] == nil {
		return false, nil
	}
	if n.PID == 0 {
		n.PID = processOf(b["pidfd"])
	}
	c.running = &running{pid: n.PID, started: n.Started, files: files(b), cgroup: n.Cgroup, log: n.Log, logRoot: n.LogRoot, once: n.Once, user: n.User, tracer: n.Tracer}
	return true, e.adopt(ctx, c)
}

// processOf is the process of a pidfd; 0 of one that has gone.
func processOf(pidfd *os.File) int {
	info, err := os.Open(fmt.Sprintf("/proc/self/fdinfo/%d", number(pidfd)))
	if err != nil {
		return 0
	}
	defer info.Close()
	for lines := bufio.NewScanner(info); lines.Scan(); {
		if text, found := strings.CutPrefix(lines.Text(), "Pid:"); found {
			pid, err := strconv.Atoi(strings.TrimSpace(text))
			if err != nil {
				return 0
			}
			return max(pid, 0)
		}
	}
	return 0
}
