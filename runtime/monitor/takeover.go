package monitor

import (
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"cri-mini/internal/crashpoint"
	"cri-mini/runtime/wire"
)

// RunOrTakeOver is Run, unless another program in this process has left us all
// that it had.
func RunOrTakeOver(listener int) error {
	text, told := syscall.Getenv(handoverVariable)
	if !told {
		return Run(listener)
	}
	memory, err := strconv.Atoi(text)
	if err != nil {
		return err
	}
	crashpoint.Here("monitor.executed")
	if err := confine(); err != nil {
		return err
	}
	return newMonitor(64 << 10).takeOver(memory)
}

// takeOver goes on where the program before us was. If we cannot read what it
// left, all that it had is closed: to the daemon that is the death of a monitor,
// and it gives us what it holds twice. Its children are still ours.
func (m *Monitor) takeOver(memory int) error {
	defer m.closeAll()
	h, err := readHandover(memory)
	unix.Close(memory)
	if h == nil {
		return err
	}
	if err := m.open(h.Listener); err != nil {
		return err
	}
	var asked *conn
	if err == nil {
		asked, err = m.restore(h)
	}
	if err != nil {
		say("cannot take over from the program before: ", err.Error(), "; the daemon has to hand over what it holds twice")
		m.letGo(h)
		return m.serve()
	}
	say("took over ", strconv.Itoa(len(h.Tasks)), " tasks and ", strconv.Itoa(len(h.Pins)), " pins")
	crashpoint.Here("monitor.taken-over")
	if asked != nil {
		asked.greet(m)
	}
	return m.serve()
}

func readHandover(memory int) (*wire.Handover, error) {
	var st unix.Stat_t
	if err := unix.Fstat(memory, &st); err != nil {
		return nil, err
	}
	content := make([]byte, st.Size)
	for done := 0; done < len(content); {
		n, err := unix.Pread(memory, content[done:], int64(done))
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return nil, err
		}
		if n == 0 {
			return nil, unix.EIO
		}
		done += n
	}
	return wire.DecodeHandover(content)
}

// letGo closes all that was handed over. What is bound to a connection ends with
// it; of a handover that cannot be read nobody knows what that is.
func (m *Monitor) letGo(h *wire.Handover) {
	for i := range h.Tasks {
		if h.Tasks[i].Spec.Bound {
			restored(&h.Tasks[i]).kill()
		}
	}
	m.tasks, m.pins, m.watchers = map[string]*task{}, map[string]*pin{}, map[*conn]bool{}
	for _, fd := range h.Files {
		m.unwatch(fd)
	}
}

// restore is the opposite of handover.
func (m *Monitor) restore(h *wire.Handover) (asked *conn, err error) {
	conns := map[int]*conn{}
	for _, held := range h.Conns {
		c := &conn{fd: held.File}
		conns[c.fd] = c
		if err := m.watch(c.fd, c, unix.EPOLLIN); err != nil {
			return nil, err
		}
		if held.Watches {
			m.watchers[c] = true
		}
		if held.Asked {
			asked = c
		}
	}
	for _, p := range h.Pins {
		m.pins[p.ID] = &pin{names: p.Names, files: p.Files}
	}
	for i := range h.Tasks {
		held := &h.Tasks[i]
		t := restored(held)
		if !t.spec.Bound {
			m.tasks[t.ID] = t
		} else if c := conns[held.BoundTo]; c != nil {
			t.boundTo, c.bound = c, t
		}
		if err := t.listenAgain(m); err != nil {
			return nil, err
		}
	}
	return asked, nil
}

func restored(h *wire.HeldTask) *task {
	t := &task{
		Task: h.Task, spec: h.Spec,
		pidfd: h.Pidfd, cgroup: h.Cgroup, record: h.Record, log: newLog(h.Log), stdin: h.Stdin, socket: -1, terminal: h.Terminal, rootfs: h.Rootfs,
		adopted: h.Adopted, unrecorded: h.Unrecorded,
	}
	if h.EndSeen {
		t.endedSince = time.Now()
	}
	if t.log.lost = h.Lost; h.Lost > 0 {
		t.log.lostFor = h.LostFor
	}
	for _, held := range h.Streams {
		s := newStream(t, held.Name, held.File)
		s.line = held.Line
		if held.Held {
			s.waitsSince = time.Now()
		}
		for _, k := range held.Sinks {
			s.sinks = append(s.sinks, &sink{stream: s, fd: k.File, pending: k.Pending})
		}
		t.streams = append(t.streams, s)
	}
	return t
}

// listenAgain puts the descriptors of a task into the loop, each for what it
// was waited for before.
func (t *task) listenAgain(m *Monitor) error {
	for _, s := range t.streams {
		if s.fd >= 0 {
			if err := m.watch(s.fd, s, unless(!s.waitsSince.IsZero(), unix.EPOLLIN)); err != nil {
				return err
			}
		}
		for _, k := range s.sinks {
			if err := m.watch(k.fd, k, unless(len(k.pending) == 0, unix.EPOLLOUT)); err != nil {
				return err
			}
		}
	}
	if t.pidfd < 0 {
		return nil
	}
	return m.watch(t.pidfd, t, unless(!t.endedSince.IsZero(), unix.EPOLLIN))
}

func unless(not bool, events uint32) uint32 {
	if not {
		return 0
	}
	return events
}
