package monitor

import (
	"errors"
	"syscall"

	"golang.org/x/sys/unix"

	"cri-mini/internal/crashpoint"
	"cri-mini/runtime/spawn"
	"cri-mini/runtime/wire"
)

// conn is a connection of the daemon.
type conn struct {
	fd    int
	bound *task // lives and dies with the connection
	gone  bool
}

// ready reads one request and does it.
func (c *conn) ready(m *Monitor, _ uint32) {
	body, files, err := wire.Receive(c.fd)
	if err == unix.EMFILE {
		c.refuse(m, unix.EMFILE)
		return
	}
	if err != nil {
		c.close(m)
		return
	}
	if c.left() {
		// A daemon that died while its request was on the way. The next one
		// has made up its mind about what this is about without it.
		wire.CloseAll(files)
		c.close(m)
		return
	}
	r, err := wire.DecodeRequest(body)
	if err != nil {
		wire.CloseAll(files)
		c.refuse(m, unix.EBADMSG)
		return
	}
	crashpoint.Here("monitor.asked")
	c.do(m, r, files)
}

// left tells whether nobody holds the other end any more.
func (c *conn) left() bool {
	end := []unix.PollFd{{Fd: int32(c.fd)}}
	n, err := unix.Poll(end, 0)
	return err == nil && n > 0 && end[0].Revents&unix.POLLHUP != 0
}

// do carries out a request. The descriptors are its own from here on.
func (c *conn) do(m *Monitor, r *wire.Request, files []int) {
	switch r.Verb {
	case wire.Spawn:
		c.spawn(m, r, files)
		return
	case wire.Adopt:
		c.finish(m, m.adopt(r, files))
		return
	case wire.Pin:
		c.finish(m, m.pin(r, files))
		return
	case wire.ReopenLog:
		c.finish(m, m.reopenLog(r.ID, files))
		return
	case wire.Upgrade:
		c.upgrade(m, files)
		return
	}
	wire.CloseAll(files) // no other request has any
	switch r.Verb {
	case wire.Hello:
		c.greet(m)
	case wire.Watch:
		m.spawners.after(m.births(), func() {
			c.answer(m, wire.Answer{Failed: -1, Tasks: m.list()}, nil)
			if !c.gone {
				m.watchers[c] = true
			}
		})
	case wire.Fetch:
		p := m.pins[r.ID]
		if p == nil {
			c.refuse(m, unix.ESRCH)
			return
		}
		c.answer(m, wire.Answer{Failed: -1, Names: p.names}, p.files)
	case wire.Unpin:
		if p := m.pins[r.ID]; p != nil {
			wire.CloseAll(p.files)
			delete(m.pins, r.ID)
		}
		c.finish(m, nil)
	case wire.Pins:
		list := make([]wire.Task, 0, len(m.pins))
		for id := range m.pins {
			list = append(list, wire.Task{ID: id})
		}
		c.answer(m, wire.Answer{Failed: -1, Tasks: list}, nil)
	case wire.Attach, wire.CloseStdin, wire.Files, wire.Forget:
		c.doTask(m, r)
	case wire.Quit:
		if len(m.tasks) > 0 || m.spawners.running() > 0 {
			c.refuse(m, unix.EBUSY)
			return
		}
		m.quit = true
		c.finish(m, nil)
	default:
		c.refuse(m, unix.EBADMSG)
	}
}

func (c *conn) greet(m *Monitor) {
	c.answer(m, wire.Answer{Version: wire.Version, PID: int32(unix.Getpid()), Failed: -1}, nil)
}

// doTask carries out a request that concerns one task.
func (c *conn) doTask(m *Monitor, r *wire.Request) {
	t := m.tasks[r.ID]
	switch {
	case r.Verb == wire.Forget && t == nil:
		c.finish(m, nil)
	case t == nil:
		c.refuse(m, unix.ESRCH)
	case r.Verb == wire.Forget:
		if !t.Ended {
			c.refuse(m, unix.EBUSY)
			return
		}
		t.close(m)
		delete(m.tasks, r.ID)
		c.finish(m, nil)
	case r.Verb == wire.CloseStdin:
		t.closeStdin()
		c.finish(m, nil)
	case r.Verb == wire.Files:
		names, files := t.files()
		c.answer(m, wire.Answer{Failed: -1, PID: t.PID, At: t.Started, Names: names}, files)
	case r.Verb == wire.Attach:
		names, files, err := t.attach(m)
		if err != nil {
			c.finish(m, err)
			return
		}
		c.answer(m, wire.Answer{Failed: -1, Names: names}, files)
		// Our copies of the far ends; the near ones stay with the streams.
		wire.CloseAll(files[len(files)-t.outputs():])
	}
}

// spawn starts a process; the answer is sent when it has executed its
// program.
func (c *conn) spawn(m *Monitor, r *wire.Request, files []int) {
	t, err := newTask(r, files)
	if err != nil {
		wire.CloseAll(files)
		c.finish(m, err)
		return
	}
	if m.tasks[r.ID] != nil {
		t.close(m)
		wire.CloseAll(files[:r.Task.Files])
		c.refuse(m, unix.EEXIST)
		return
	}
	// A program's first file is hostproc, which is ours.
	forImage := append([]int{m.hostProc}, files[:r.Task.Files]...)
	s, err := spawn.NewSpawn(r.Image, forImage)
	if err != nil {
		t.close(m)
		wire.CloseAll(files[:r.Task.Files])
		c.finish(m, err)
		return
	}
	if !r.Task.Bound {
		m.tasks[r.ID] = t
	}
	m.spawners.run(&job{spawn: s, image: r.Image, cgroup: t.cgroup, proc: m.hostProc, asked: c, then: func(result spawn.Result) {
		wire.CloseAll(files[:r.Task.Files])
		c.spawned(m, t, result)
	}})
}

// spawned answers a spawn.
func (c *conn) spawned(m *Monitor, t *task, result spawn.Result) {
	crashpoint.Here("monitor.spawned")
	if result.Failed != -1 {
		if m.tasks[t.ID] == t {
			delete(m.tasks, t.ID)
		}
		t.close(m)
		c.answer(m, wire.Answer{Failed: int32(result.Failed), Errno: result.Errno}, nil)
		return
	}
	if err := t.begin(m, result); err != nil {
		// The process runs, but we could not watch it: no half state.
		unix.Kill(result.PID, unix.SIGKILL)
		unix.Wait4(result.PID, nil, 0, nil)
		delete(m.tasks, t.ID)
		t.close(m)
		c.finish(m, err)
		return
	}
	if t.spec.Bound {
		t.boundTo, c.bound = c, t
		if c.gone { // the daemon died meanwhile
			t.kill()
		}
	}
	names, files := []string{"pidfd"}, []int{t.pidfd}
	if t.terminal >= 0 {
		names, files = append(names, "terminal"), append(files, t.terminal)
	}
	var attached []int
	if t.spec.Attach { // before the loop reads the first byte
		more, ends, err := t.attach(m)
		if err == nil {
			attached = ends[len(ends)-t.outputs():]
			for i, fd := range attached {
				names, files = append(names, "attached-"+more[len(more)-len(attached)+i]), append(files, fd)
			}
		}
	}
	c.answer(m, wire.Answer{PID: t.PID, At: t.Started, Failed: -1, Names: names}, files)
	wire.CloseAll(attached)
}

// finish answers a request that has no more to tell than its error.
func (c *conn) finish(m *Monitor, err error) {
	if err == nil {
		c.answer(m, wire.Answer{Failed: -1}, nil)
		return
	}
	c.refuse(m, errnoOf(err))
}

func errnoOf(err error) (errno syscall.Errno) {
	if err != nil && !errors.As(err, &errno) {
		errno = unix.EIO
	}
	return errno
}

func (c *conn) refuse(m *Monitor, errno syscall.Errno) {
	c.answer(m, wire.Answer{Failed: -3, Errno: errno}, nil)
}

func (c *conn) answer(m *Monitor, a wire.Answer, files []int) {
	if c.gone {
		return
	}
	crashpoint.Here("monitor.done")
	if err := wire.Send(c.fd, a.Encode(), files); err != nil {
		c.close(m)
	}
	crashpoint.Here("monitor.answered")
}

// close ends the connection, and the process bound to it.
func (c *conn) close(m *Monitor) {
	if c.gone {
		return
	}
	c.gone = true
	delete(m.watchers, c)
	m.unwatch(c.fd)
	if c.bound != nil && !c.bound.Ended {
		c.bound.kill()
	}
}

func (m *Monitor) pin(r *wire.Request, files []int) error {
	if len(files) != len(r.Names) {
		wire.CloseAll(files)
		return unix.EBADMSG
	}
	if old := m.pins[r.ID]; old != nil {
		wire.CloseAll(old.files)
	}
	m.pins[r.ID] = &pin{names: r.Names, files: files}
	return nil
}

// births are the spawns of daemons that are gone. Whoever asks for all tasks is
// to see how they end.
func (m *Monitor) births() map[*job]bool {
	found := map[*job]bool{}
	for j := range m.spawners.busy {
		if j.asked.gone || j.asked.left() {
			found[j] = true
		}
	}
	return found
}

func (m *Monitor) list() []wire.Task {
	list := make([]wire.Task, 0, len(m.tasks))
	for _, t := range m.tasks {
		if t.PID != 0 {
			list = append(list, t.Task)
		}
	}
	return list
}
