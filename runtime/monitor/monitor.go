// Package monitor is the one small process that stays: parent of every
// container of the node.
//
// A Task is a process it started, with its pidfd and the ends of its pipes. A
// stream carries a task's output into its log and to whoever is attached. A
// pin is a set of namespaces that live as long as a pod. One thread runs a
// loop over epoll and owns all of that; the spawners are threads of their own
// that wait in the mount namespace from which containers are cloned.
//
// The daemon may come and go; the monitor needs nothing of it. It must stay
// small: no package with a big init, no files but the descriptors it is given.
package monitor

import (
	"errors"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"cri-mini/runtime/wire"
)

// Monitor is the state of the loop. Only the loop's goroutine touches it.
type Monitor struct {
	epoll    int
	sources  map[int]watched // by descriptor
	serial   int32           // of the source watched last
	tasks    map[string]*task
	pins     map[string]*pin
	watchers map[*conn]bool
	spawners *spawners
	acceptor acceptor
	hostProc int // the host's /proc, for the programs
	quit     bool
	reaped   time.Time // when orphans were last looked for
	buffer   []byte    // for reads; no state between two events
}

// source is something with a descriptor in the epoll set.
type source interface {
	ready(m *Monitor, events uint32)
}

// watched is a source in the set. The kernel may tell of several at once, and
// the number of one that an earlier event closed be a new one's by the time
// its own event comes up: the serial, which comes with the event, tells them apart.
type watched struct {
	source
	serial int32
}

// pin is a set of named descriptors.
type pin struct {
	names []string
	files []int
}

// Run serves the daemon on a listening socket until it is told to quit.
func Run(listener int) error {
	if err := confine(); err != nil {
		return err
	}
	return newMonitor(64 << 10).loop(listener)
}

// confine has containers whose parent ends come to us, and none of them look
// into our memory, which holds the descriptors of all others.
func confine() error {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return err
	}
	return unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
}

func newMonitor(read int) *Monitor {
	return &Monitor{
		sources: map[int]watched{}, tasks: map[string]*task{}, pins: map[string]*pin{},
		watchers: map[*conn]bool{}, buffer: make([]byte, read),
	}
}

// loop serves until Quit, and closes what it opened.
func (m *Monitor) loop(listener int) error {
	defer m.closeAll()
	if err := m.open(listener); err != nil {
		return err
	}
	return m.serve()
}

func (m *Monitor) open(listener int) error {
	m.acceptor.fd = listener
	if err := m.prepare(); err != nil {
		return err
	}
	return m.watch(listener, &m.acceptor, unix.EPOLLIN)
}

func (m *Monitor) serve() error {
	events := make([]unix.EpollEvent, 64)
	for !m.quit {
		n, err := unix.EpollWait(m.epoll, events, m.nextCheck())
		if err != nil && err != unix.EINTR {
			return err
		}
		m.dispatch(events[:max(n, 0)])
		m.check(time.Now())
	}
	return nil
}

// openProc opens the /proc in which programs confine themselves. A write into
// anything else would succeed and do nothing.
func openProc() (int, error) {
	fd, err := unix.Open("/proc", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	var st unix.Statfs_t
	if err := unix.Fstatfs(fd, &st); err != nil || st.Type != unix.PROC_SUPER_MAGIC {
		unix.Close(fd)
		return -1, errors.New("/proc is not the kernel's")
	}
	return fd, nil
}

func (m *Monitor) dispatch(events []unix.EpollEvent) {
	for _, e := range events {
		if w := m.sources[int(e.Fd)]; w.source != nil && w.serial == e.Pad {
			w.ready(m, e.Events)
		}
	}
}

func (m *Monitor) prepare() (err error) {
	if m.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return err
	}
	if m.hostProc, err = openProc(); err != nil {
		return err
	}
	m.spawners, err = newSpawners()
	if err != nil {
		return err
	}
	return m.watch(m.spawners.done.fd, m.spawners, unix.EPOLLIN)
}

// closeAll lets everything go; no task is left by then.
func (m *Monitor) closeAll() {
	for fd := range m.sources {
		unix.Close(fd)
	}
	for _, p := range m.pins {
		wire.CloseAll(p.files)
	}
	if m.spawners != nil {
		close(m.spawners.jobs)
	}
	unix.Close(m.hostProc)
	unix.Close(m.epoll)
}

// watch adds a descriptor to the loop.
func (m *Monitor) watch(fd int, s source, events uint32) error {
	m.serial++
	m.sources[fd] = watched{s, m.serial}
	return unix.EpollCtl(m.epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: events, Fd: int32(fd), Pad: m.serial})
}

// unwatch takes a descriptor out of the loop and closes it.
func (m *Monitor) unwatch(fd int) {
	if fd < 0 {
		return
	}
	delete(m.sources, fd)
	unix.EpollCtl(m.epoll, unix.EPOLL_CTL_DEL, fd, nil)
	unix.Close(fd)
}

// rewatch changes what a descriptor waits for.
func (m *Monitor) rewatch(fd int, events uint32) {
	unix.EpollCtl(m.epoll, unix.EPOLL_CTL_MOD, fd, &unix.EpollEvent{Events: events, Fd: int32(fd), Pad: m.sources[fd].serial})
}

// nextCheck is the wait in ms until check has something to do; -1 for ever.
func (m *Monitor) nextCheck() int {
	if m.spawners.running() > 0 || !m.acceptor.paused.IsZero() {
		return 1000
	}
	for _, t := range m.tasks {
		if t.needsCheck() {
			return 1000
		}
	}
	return int(orphanLimit / time.Millisecond)
}

// orphanLimit is how long an ended process that came to us may stay a zombie
// when no task ends, which would collect it at once.
const orphanLimit = time.Minute

// check does what waits for a time rather than for a descriptor.
func (m *Monitor) check(now time.Time) {
	m.spawners.abandonOld(now)
	m.spawners.catchUp(now)
	m.acceptor.check(m, now)
	if now.Sub(m.reaped) >= orphanLimit {
		m.reapOrphans()
	}
	for _, t := range m.tasks {
		t.check(m, now)
	}
}

// acceptor takes connections from the daemon.
type acceptor struct {
	fd     int
	paused time.Time // zero while it accepts
}

func (a *acceptor) check(m *Monitor, now time.Time) {
	if !a.paused.IsZero() && now.Sub(a.paused) >= time.Second {
		a.paused = time.Time{}
		m.rewatch(a.fd, unix.EPOLLIN)
	}
}

func (a *acceptor) ready(m *Monitor, _ uint32) {
	fd, _, err := unix.Accept4(a.fd, unix.SOCK_CLOEXEC)
	if err != nil {
		// Without descriptors it would fail again and again at once.
		say("accept a connection: ", err.Error(), "; waiting a second")
		m.rewatch(a.fd, 0)
		a.paused = time.Now()
		return
	}
	peer, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil || peer.Uid != 0 {
		unix.Close(fd)
		return
	}
	// The daemon sends whole frames; one that stops half way, or does not
	// read, must not stop the logs of all containers.
	limit := unix.Timeval{Sec: 2}
	unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit)
	unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &limit)
	m.watch(fd, &conn{fd: fd}, unix.EPOLLIN)
}

// tell sends the end of a task to all watchers.
func (m *Monitor) tell(t wire.Task) {
	for c := range m.watchers {
		c.answer(m, wire.Answer{Failed: -1, Tasks: []wire.Task{t}}, nil)
	}
}

// say writes a line to stderr, which the daemon made a file.
func say(parts ...string) {
	line := time.Now().UTC().Format(time.RFC3339) + " monitor[" + strconv.Itoa(unix.Getpid()) + "]: "
	for _, p := range parts {
		line += p
	}
	unix.Write(2, []byte(line+"\n"))
}
