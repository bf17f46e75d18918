package monitor

import (
	"time"

	"golang.org/x/sys/unix"

	"cri-mini/runtime/spawn"
	"cri-mini/runtime/wire"
)

// task is a process that we started or adopted.
type task struct {
	wire.Task
	spec wire.TaskSpec

	pidfd    int
	cgroup   int // folder
	record   int // folder
	log      *log
	stdin    int // write end
	streams  []*stream
	socket   int // on which the terminal will arrive
	terminal int
	rootfs   int

	boundTo    *conn
	adopted    bool      // not our child
	endedSince time.Time // adopted: when it was seen to have ended
	unrecorded bool      // the exit record could not be written yet
}

// newTask takes over the descriptors of a request that are not the image's.
func newTask(r *wire.Request, files []int) (*task, error) {
	t := &task{Task: wire.Task{ID: r.ID}, spec: r.Task, pidfd: -1, cgroup: -1, record: -1, stdin: -1, socket: -1, terminal: -1, rootfs: -1}
	rest := files[min(int(r.Task.Files), len(files)):]
	take := func(wanted bool) int {
		if !wanted || len(rest) == 0 {
			return -1
		}
		fd := rest[0]
		rest = rest[1:]
		return fd
	}
	count := 0
	for _, wanted := range []bool{r.Task.Cgroup, r.Task.Record, r.Task.Log, r.Task.Stdin, r.Task.Stdout, r.Task.Stderr, r.Task.Terminal, r.Task.Rootfs} {
		if wanted {
			count++
		}
	}
	if (r.Image == nil) != (r.Verb == wire.Adopt) || len(files) != int(r.Task.Files)+count {
		return nil, unix.EBADMSG
	}
	t.cgroup, t.record = take(r.Task.Cgroup), take(r.Task.Record)
	t.log = newLog(take(r.Task.Log))
	t.stdin = take(r.Task.Stdin)
	for _, output := range []struct {
		name   string
		wanted bool
	}{{"stdout", r.Task.Stdout}, {"stderr", r.Task.Stderr}} {
		if fd := take(output.wanted); fd >= 0 {
			t.streams = append(t.streams, newStream(t, output.name, fd))
		}
	}
	t.socket, t.rootfs = take(r.Task.Terminal), take(r.Task.Rootfs)
	return t, nil
}

// begin watches a process that has just been started.
func (t *task) begin(m *Monitor, result spawn.Result) (err error) {
	t.PID, t.Started = int32(result.PID), result.At
	// No race: the process is our child and nobody else reaps it.
	if t.pidfd, err = unix.PidfdOpen(result.PID, 0); err != nil {
		return err
	}
	if t.socket >= 0 {
		if t.terminal, err = receiveTerminal(t.socket); err != nil {
			return err
		}
		unix.Close(t.socket)
		t.socket = -1
		if t.spec.Log || !t.spec.Bound {
			t.streams = append(t.streams, newStream(t, "stdout", dup(t.terminal)))
		}
	}
	return t.listen(m)
}

// listen puts the task's descriptors into the loop.
func (t *task) listen(m *Monitor) error {
	for _, s := range t.streams {
		unix.SetNonblock(s.fd, true)
		if err := m.watch(s.fd, s, unix.EPOLLIN); err != nil {
			return err
		}
	}
	return m.watch(t.pidfd, t, unix.EPOLLIN)
}

func receiveTerminal(socket int) (int, error) {
	control := make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := unix.Recvmsg(socket, make([]byte, 1), control, unix.MSG_CMSG_CLOEXEC|unix.MSG_DONTWAIT)
	if err != nil {
		return -1, err
	}
	messages, err := unix.ParseSocketControlMessage(control[:n])
	if err != nil || len(messages) != 1 {
		return -1, unix.EBADMSG
	}
	files, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(files) != 1 {
		return -1, unix.EBADMSG
	}
	return files[0], nil
}

func dup(fd int) int {
	copied, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return -1
	}
	return copied
}

// adopt watches a process that a monitor before us started. It is not our
// child; its exit code comes from its pidfd.
func (m *Monitor) adopt(r *wire.Request, files []int) error {
	if m.tasks[r.ID] != nil {
		wire.CloseAll(files)
		return unix.EEXIST
	}
	if r.Task.Files != 1 || len(files) < 1 {
		wire.CloseAll(files)
		return unix.EBADMSG
	}
	terminal := r.Task.Terminal
	t, err := newTask(r, files)
	if err != nil {
		wire.CloseAll(files)
		return err
	}
	t.PID, t.Started, t.pidfd, t.adopted = r.PID, r.At, files[0], true
	t.log.mend()
	if terminal {
		t.terminal, t.socket = t.socket, -1
		t.streams = append(t.streams, newStream(t, "stdout", dup(t.terminal)))
	}
	m.tasks[r.ID] = t
	return t.listen(m)
}

// files are the descriptors a daemon wants to have twice.
func (t *task) files() (names []string, files []int) {
	add := func(name string, fd int) {
		if fd >= 0 {
			names, files = append(names, name), append(files, fd)
		}
	}
	add("pidfd", t.pidfd)
	add("stdin", t.stdin)
	add("terminal", t.terminal)
	add("rootfs", t.rootfs)
	if t.terminal < 0 {
		for _, s := range t.streams {
			add(s.name, s.fd)
		}
	}
	return names, files
}

// kill ends everything in the task's cgroup, or at least the process.
func (t *task) kill() {
	if t.cgroup >= 0 && writeFile(t.cgroup, "cgroup.kill", "1") == nil {
		return
	}
	if t.pidfd >= 0 {
		unix.PidfdSendSignal(t.pidfd, unix.SIGKILL, nil, 0)
	}
}

func (t *task) closeStdin() {
	if t.stdin >= 0 {
		unix.Close(t.stdin)
		t.stdin = -1
	}
}

// close lets all descriptors go.
func (t *task) close(m *Monitor) {
	for _, s := range t.streams {
		s.close(m)
	}
	t.closeStdin()
	m.unwatch(t.pidfd)
	for _, fd := range []int{t.cgroup, t.record, t.socket, t.terminal, t.rootfs} {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
	t.pidfd, t.cgroup, t.record, t.socket, t.terminal, t.rootfs = -1, -1, -1, -1, -1, -1
	t.log.close()
}

func (t *task) needsCheck() bool {
	if t.unrecorded || !t.endedSince.IsZero() && !t.Ended {
		return true
	}
	for _, s := range t.streams {
		if s.waitsSince != (time.Time{}) {
			return true
		}
	}
	return false
}

func (t *task) check(m *Monitor, now time.Time) {
	if t.unrecorded {
		t.writeRecord()
	}
	if !t.endedSince.IsZero() && !t.Ended && now.Sub(t.endedSince) >= tellLimit {
		t.ready(m, 0)
	}
	for _, s := range t.streams {
		s.check(m, now)
	}
}
