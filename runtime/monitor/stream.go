package monitor

import (
	"time"

	"golang.org/x/sys/unix"

	"cri-mini/internal/crashpoint"
)

// sinkLimit is how long an attached client may leave its pipe full before it
// is let go; until then the container waits for it, as on a slow terminal.
const sinkLimit = 10 * time.Second

// stream is one output of a task on its way into the log and to the attached.
type stream struct {
	task *task
	name string
	fd   int
	line []byte // the beginning of a line

	sinks []*sink
	// waitsSince is set while a sink is full and the stream is not read.
	waitsSince time.Time
}

// sink is the near end of an attached client's pipe.
type sink struct {
	stream  *stream
	fd      int
	pending []byte
}

func newStream(t *task, name string, fd int) *stream {
	return &stream{task: t, name: name, fd: fd}
}

// ready reads what there is.
func (s *stream) ready(m *Monitor, _ uint32) {
	if s.waitsSince != (time.Time{}) {
		return
	}
	n, err := unix.Read(s.fd, m.buffer)
	if err == unix.EAGAIN || err == unix.EINTR {
		return
	}
	if n <= 0 { // the end; a terminal says EIO
		s.end(m)
		return
	}
	crashpoint.Here("monitor.output-read")
	s.pass(m, m.buffer[:n])
	s.task.log.flush()
	crashpoint.Here("monitor.output-written")
}

// pass hands bytes to the log and the sinks.
func (s *stream) pass(m *Monitor, b []byte) {
	for _, k := range s.sinks {
		k.write(m, b)
	}
	if s.task.log.fd < 0 {
		return
	}
	if len(s.line) > 0 {
		s.line = append(s.line, b...)
		b = s.line
	}
	rest := s.task.log.records(s.name, b, false)
	s.line = append(s.line[:0:0], rest...)
}

// drain reads what a process that has ended left in the pipe. Others may hold
// the pipe open, therefore not until its end.
func (s *stream) drain(m *Monitor) {
	for range 1024 { // a pipe's worth and more, yet never for ever
		if s.fd < 0 || s.waitsSince != (time.Time{}) {
			return
		}
		n, err := unix.Read(s.fd, m.buffer)
		if err == unix.EINTR {
			continue
		}
		if err == unix.EAGAIN {
			break
		}
		if n <= 0 {
			s.end(m)
			return
		}
		s.pass(m, m.buffer[:n])
		s.task.log.flush()
	}
}

// end closes the stream and whoever listens to it.
func (s *stream) end(m *Monitor) {
	s.task.log.records(s.name, s.line, true)
	s.line = nil
	s.task.log.flush()
	m.unwatch(s.fd)
	s.fd = -1
	for _, k := range append([]*sink(nil), s.sinks...) {
		if len(k.pending) == 0 {
			k.close(m)
		}
	}
}

func (s *stream) close(m *Monitor) {
	if s.fd >= 0 {
		s.end(m)
	}
	for _, k := range append([]*sink(nil), s.sinks...) {
		k.close(m)
	}
}

// check lets go of clients that do not read.
func (s *stream) check(m *Monitor, now time.Time) {
	if s.waitsSince == (time.Time{}) || now.Sub(s.waitsSince) < sinkLimit {
		return
	}
	for _, k := range append([]*sink(nil), s.sinks...) {
		if len(k.pending) > 0 {
			k.close(m)
		}
	}
}

// hold and release stop and continue the reading.
func (s *stream) hold(m *Monitor) {
	if s.waitsSince == (time.Time{}) {
		s.waitsSince = time.Now()
		if s.fd >= 0 {
			m.rewatch(s.fd, 0)
		}
	}
}

func (s *stream) release(m *Monitor) {
	for _, k := range s.sinks {
		if len(k.pending) > 0 {
			return
		}
	}
	s.waitsSince = time.Time{}
	if s.fd < 0 {
		return
	}
	m.rewatch(s.fd, unix.EPOLLIN)
	if s.task.Ended {
		s.drain(m)
	}
}

// attach makes pipes to a new client. The files are the far ends; stdin, or
// the terminal, comes first and is a copy that stays the task's.
func (t *task) attach(m *Monitor) (names []string, files []int, err error) {
	if t.terminal >= 0 {
		names, files = append(names, "terminal"), append(files, t.terminal)
	} else if t.stdin >= 0 {
		names, files = append(names, "stdin"), append(files, t.stdin)
	}
	for _, s := range t.streams {
		var pipe [2]int
		if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
			return nil, nil, err
		}
		names, files = append(names, s.name), append(files, pipe[0])
		k := &sink{stream: s, fd: pipe[1]}
		if s.fd < 0 { // ended already: the client sees an end at once
			unix.Close(k.fd)
			continue
		}
		s.sinks = append(s.sinks, k)
		// EPOLLERR comes unasked when the client closes its end.
		if err := m.watch(k.fd, k, 0); err != nil {
			k.close(m)
		}
	}
	return names, files, nil
}

// outputs is the number of streams that attach makes pipes for.
func (t *task) outputs() int { return len(t.streams) }

// ready writes on, or learns that the client has gone.
func (k *sink) ready(m *Monitor, events uint32) {
	if events&(unix.EPOLLERR|unix.EPOLLHUP) != 0 {
		k.close(m)
		return
	}
	pending := k.pending
	k.pending = nil
	k.write(m, pending)
	if len(k.pending) > 0 {
		return
	}
	m.rewatch(k.fd, 0)
	if k.stream.fd < 0 {
		k.close(m)
		return
	}
	k.stream.release(m)
}

// write passes bytes to the client, and keeps what does not fit.
func (k *sink) write(m *Monitor, b []byte) {
	for len(b) > 0 {
		n, err := unix.Write(k.fd, b)
		switch {
		case err == unix.EINTR:
		case err == unix.EAGAIN:
			k.pending = append(k.pending, b...)
			m.rewatch(k.fd, unix.EPOLLOUT)
			k.stream.hold(m)
			return
		case err != nil:
			k.close(m)
			return
		default:
			b = b[n:]
		}
	}
}

func (k *sink) close(m *Monitor) {
	s := k.stream
	for i, other := range s.sinks {
		if other == k {
			s.sinks = append(s.sinks[:i:i], s.sinks[i+1:]...)
			m.unwatch(k.fd)
			break
		}
	}
	k.pending = nil
	if s.waitsSince != (time.Time{}) {
		s.release(m)
	}
}
