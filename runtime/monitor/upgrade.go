package monitor

import (
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"cri-mini/internal/crashpoint"
	"cri-mini/runtime/wire"
)

// An upgrade, from left to right in one process:
//
//	this program                              the one it is given
//	  a request, between two events
//	  handover into a sealed memfd
//	  descriptors stay open over execve
//	  execve                             ──▶
//	                                            reads the handover
//	                                            goes on; answers the request
//
// Events are done one by one and each to its end: no record of a log is half
// written at a request, and no other thread holds anything unless it is
// starting a process. What the descriptors have for us meanwhile waits in the
// kernel, and so do children that end.

// handoverVariable tells the new program the descriptor of the handover.
const handoverVariable = "_CRI_MINI_HANDOVER"

// upgrade executes the program that was sent along. It returns only if that
// does not work; then we go on as before.
func (c *conn) upgrade(m *Monitor, files []int) {
	defer wire.CloseAll(files)
	switch {
	case len(files) != 1:
		c.refuse(m, unix.EBADMSG)
	case m.spawners.running() > 0:
		c.refuse(m, unix.EBUSY) // its thread would end, and the process be nobody's
	default:
		err := m.become(files[0], c)
		say("another program cannot take over: ", err.Error())
		c.finish(m, err)
	}
}

func (m *Monitor) become(program int, asked *conn) error {
	h := m.handover(asked)
	state := h.Encode()
	memory, err := sealed(state)
	if err != nil {
		return err
	}
	defer unix.Close(memory)
	stay := append(h.Files, h.Listener, memory)
	defer closeOnExec(stay, unix.FD_CLOEXEC)
	closeOnExec(stay, 0)
	crashpoint.Here("monitor.handover-written")
	return execute(program, memory)
}

func closeOnExec(files []int, flag int) {
	for _, fd := range files {
		unix.FcntlInt(uintptr(fd), unix.F_SETFD, flag)
	}
}

// sealed is a file in memory that nobody can change.
func sealed(content []byte) (int, error) {
	fd, err := unix.MemfdCreate("cri-mini-handover", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return -1, err
	}
	for len(content) > 0 && err == nil {
		var n int
		if n, err = unix.Write(fd, content); err == nil {
			content = content[n:]
		}
		if err == unix.EINTR {
			err = nil
		}
	}
	if err == nil {
		_, err = unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_SEAL|unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_WRITE)
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// execute replaces this program. The descriptor is the program: a path could be
// another file's by now. The loop runs on the first thread, which never was in
// the seed, so the new program begins in the mounts of the node.
func execute(program, memory int) error {
	environ := slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, handoverVariable+"=") })
	environ = append(environ, handoverVariable+"="+strconv.Itoa(memory))
	argv, err := syscall.SlicePtrFromStrings(os.Args)
	if err != nil {
		return err
	}
	envv, err := syscall.SlicePtrFromStrings(environ)
	if err != nil {
		return err
	}
	empty := new(byte)
	_, _, errno := syscall.RawSyscall6(unix.SYS_EXECVEAT, uintptr(program), uintptr(unsafe.Pointer(empty)),
		uintptr(unsafe.Pointer(&argv[0])), uintptr(unsafe.Pointer(&envv[0])), unix.AT_EMPTY_PATH, 0)
	return errno
}

// handover writes down what we have.
func (m *Monitor) handover(asked *conn) *wire.Handover {
	h := &wire.Handover{Listener: m.acceptor.fd}
	bound := map[*task]bool{}
	for fd, w := range m.sources {
		switch s := w.source.(type) {
		case *conn:
			h.Conns = append(h.Conns, wire.HeldConn{File: fd, Watches: m.watchers[s], Asked: s == asked})
		case *task:
			if m.tasks[s.ID] != s {
				bound[s] = true
			}
		}
	}
	for _, t := range m.tasks {
		h.Tasks = append(h.Tasks, t.held())
	}
	for t := range bound {
		h.Tasks = append(h.Tasks, t.held())
	}
	for id, p := range m.pins {
		h.Pins = append(h.Pins, wire.HeldPin{ID: id, Names: p.names, Files: p.files})
	}
	return h
}

func (t *task) held() wire.HeldTask {
	h := wire.HeldTask{
		Task: t.Task, Spec: t.spec,
		Pidfd: t.pidfd, Cgroup: t.cgroup, Record: t.record, Log: t.log.fd, Stdin: t.stdin, Terminal: t.terminal, Rootfs: t.rootfs,
		BoundTo: -1, Adopted: t.adopted, EndSeen: !t.endedSince.IsZero(), Unrecorded: t.unrecorded,
		Lost: t.log.lost, LostFor: errnoOf(t.log.lostFor),
	}
	if t.boundTo != nil && !t.boundTo.gone {
		h.BoundTo = t.boundTo.fd
	}
	for _, s := range t.streams {
		stream := wire.HeldStream{Name: s.name, File: s.fd, Line: s.line, Held: !s.waitsSince.IsZero()}
		for _, k := range s.sinks {
			stream.Sinks = append(stream.Sinks, wire.HeldSink{File: k.fd, Pending: k.pending})
		}
		h.Streams = append(h.Streams, stream)
	}
	return h
}
