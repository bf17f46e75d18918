package monitor

import (
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"cri-mini/runtime/wire"
)

// heldNames are what a handover says but for the order of what has none.
func heldNames(h *wire.Handover) string {
	slices.SortFunc(h.Conns, func(a, b wire.HeldConn) int { return a.File - b.File })
	slices.SortFunc(h.Tasks, func(a, b wire.HeldTask) int { return strings.Compare(a.ID, b.ID) })
	h.Encode()
	return fmt.Sprintf("%+v", h)
}

// everything gives a monitor something of each kind. Far ends of connections
// are closed by the test's end.
func everything(t *testing.T, m *Monitor) (asked *conn) {
	t.Helper()
	any := func() int {
		e, err := newEvent()
		if err != nil {
			t.Fatal(err)
		}
		return e.fd
	}
	connect := func() *conn {
		c, far := connected(t, m)
		t.Cleanup(func() { unix.Close(far) })
		return c
	}
	watcher, holder := connect(), connect()
	m.watchers[watcher] = true
	m.pins["pod"] = &pin{names: []string{"net", "ipc"}, files: []int{any(), any()}}
	begin := func(id string, pid int32) *task {
		return &task{Task: wire.Task{ID: id, PID: pid, Started: time.Unix(1, 2)}, pidfd: any(), cgroup: -1, record: -1, stdin: -1, socket: -1, terminal: -1, rootfs: -1, log: newLog(-1)}
	}
	full := begin("full", 7)
	full.spec = wire.TaskSpec{Files: 2, Log: true, Stdin: true, StdinOnce: true}
	full.cgroup, full.record, full.stdin, full.terminal, full.rootfs = any(), any(), any(), any(), any()
	full.log, full.adopted, full.endedSince = &log{fd: any(), lost: 3, lostFor: unix.ENOSPC}, true, time.Now()
	open, ended := newStream(full, "stdout", any()), newStream(full, "stderr", -1)
	open.line, open.waitsSince = []byte("begin"), time.Now()
	open.sinks = []*sink{{stream: open, fd: any(), pending: []byte("more")}, {stream: open, fd: any()}}
	full.streams = []*stream{open, ended}
	over := begin("over", 8)
	unix.Close(over.pidfd)
	over.pidfd, over.Ended, over.Code, over.At, over.OOMKilled, over.unrecorded = -1, true, 137, time.Unix(3, 4), true, true
	m.tasks["full"], m.tasks["over"] = full, over
	bound, left := begin("bound", 9), begin("left", 10)
	bound.spec.Bound, left.spec.Bound = true, true
	bound.boundTo, holder.bound = holder, bound
	left.boundTo = &conn{gone: true} // killed and not yet ended
	for _, each := range []*task{full, over, bound, left} {
		if err := each.listenAgain(m); err != nil {
			t.Fatal(err)
		}
	}
	return watcher
}

func TestWhatTakesOverHasAllThatWasThere(t *testing.T) {
	before := still(t)
	asked := everything(t, before)
	first := before.handover(asked)
	want := heldNames(first)
	read, err := wire.DecodeHandover(first.Encode())
	if err != nil {
		t.Fatal(err)
	}
	after := newMonitor(4096)
	if err := after.prepare(); err != nil {
		t.Fatal(err)
	}
	defer after.closeAll()
	who, err := after.restore(read)
	if err != nil {
		t.Fatal(err)
	}
	if who == nil || who.fd != asked.fd {
		t.Errorf("the answer would go to %+v, want connection %d", who, asked.fd)
	}
	again := after.handover(who)
	again.Listener = first.Listener
	if got := heldNames(again); got != want {
		t.Errorf("there is\n%s\nwas\n%s", got, want)
	}
	for _, fd := range first.Files { // those in a loop and those not
		if w := after.sources[fd]; (w.source == nil) != (before.sources[fd].source == nil) && fd != before.spawners.done.fd {
			t.Errorf("descriptor %d is waited for by %T, was by %T", fd, w.source, before.sources[fd].source)
		}
	}
	for _, held := range []*task{after.tasks["full"], after.tasks["over"]} {
		held.close(after)
	}
	for _, p := range after.pins {
		wire.CloseAll(p.files)
	}
	for fd := range before.sources { // closed as the other's
		if fd != before.spawners.done.fd {
			delete(before.sources, fd)
		}
	}
	before.pins, after.pins = map[string]*pin{}, map[string]*pin{}
}

func TestRequestToUpgradeIsRefusedWhileAProcessIsBeingStarted(t *testing.T) {
	m := still(t)
	c, far := connected(t, m)
	defer unix.Close(far)
	defer c.close(m)
	for name, ask := range map[string]struct {
		busy  bool
		files int
		want  unix.Errno
	}{
		"busy":       {true, 1, unix.EBUSY},
		"no program": {false, 0, unix.EBADMSG},
		"two":        {false, 2, unix.EBADMSG},
	} {
		begun := &job{asked: c}
		if ask.busy {
			m.spawners.busy[begun] = true
		}
		var files []int
		for range ask.files {
			fd, err := unix.Open("/bin/true", unix.O_PATH|unix.O_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			files = append(files, fd)
		}
		c.do(m, &wire.Request{Verb: wire.Upgrade}, files)
		delete(m.spawners.busy, begun)
		body, _, err := wire.Receive(far)
		if err != nil {
			t.Fatal(err)
		}
		if a, err := wire.DecodeAnswer(body); err != nil || a.Failed != -3 || a.Errno != ask.want {
			t.Errorf("%s: %+v, %v; want %v", name, a, err, ask.want)
		}
	}
}

// What cannot be read is as if we had died, for the daemon; but children stay
// ours.
func TestHandoverThatIsNotUnderstoodLeavesAMonitorWithNothing(t *testing.T) {
	for name, damage := range map[string]func([]byte) []byte{
		"another version": func(b []byte) []byte { b[0]++; return b },
		"a piece":         func(b []byte) []byte { return b[:len(b)-3] },
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "s")
			listener, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(unix.Bind(listener, &unix.SockaddrUnix{Name: path}), unix.Listen(listener, 8)); err != nil {
				t.Fatal(err)
			}
			ends, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer unix.Close(ends[1])
			var pipe [2]int
			if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
				t.Fatal(err)
			}
			defer unix.Close(pipe[0])
			h := &wire.Handover{Listener: listener, Conns: []wire.HeldConn{{File: ends[0], Asked: true}}, Pins: []wire.HeldPin{{ID: "pod", Names: []string{"net"}, Files: pipe[1:]}}}
			memory, err := sealed(damage(h.Encode()))
			if err != nil {
				t.Fatal(err)
			}
			d := &daemon{t: t, path: path, done: make(chan error, 1)}
			go func() { d.done <- newMonitor(4096).takeOver(memory) }()
			d.conn = d.dial()
			defer unix.Close(d.conn)
			if a, _ := d.ask(&wire.Request{Verb: wire.Hello}, nil); a.Version != wire.Version {
				t.Errorf("a new connection gets %+v", a)
			}
			if _, _, err := wire.Receive(ends[1]); err != unix.ECONNRESET {
				t.Errorf("the old connection: %v, want its end", err)
			}
			if n, err := unix.Read(pipe[0], make([]byte, 1)); n != 0 || err != nil {
				t.Errorf("the pin is still held: %d, %v", n, err)
			}
			// The daemon hands over a process that is our child.
			pid, pidfd := childThatEnds(t)
			record, err := unix.Open(t.TempDir(), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			watch := d.dial()
			defer unix.Close(watch)
			d.askOn(watch, &wire.Request{Verb: wire.Watch}, nil)
			if a, _ := d.ask(&wire.Request{Verb: wire.Adopt, ID: "a", PID: int32(pid), Task: wire.TaskSpec{Files: 1, Record: true}}, []int{pidfd, record}); a.Failed != -1 {
				t.Fatalf("adopt: %v", a.Errno)
			}
			wire.CloseAll([]int{pidfd, record})
			if end := d.waitEnd(watch, "a"); end.Code != 7 || end.Unknown {
				t.Errorf("its end is told as %+v, want exit code 7", end)
			}
			for _, r := range []wire.Request{{Verb: wire.Forget, ID: "a"}, {Verb: wire.Quit}} {
				if a, _ := d.ask(&r, nil); a.Failed != -1 {
					t.Errorf("verb %d: %v", r.Verb, a.Errno)
				}
			}
			if err := <-d.done; err != nil {
				t.Error(err)
			}
		})
	}
}

// childThatEnds is a child, with its pidfd, that nobody waits for.
func childThatEnds(t *testing.T) (pid, pidfd int) {
	t.Helper()
	pid, err := syscall.ForkExec("/bin/sh", []string{"sh", "-c", "sleep 0.3; exit 7"}, &syscall.ProcAttr{Sys: &syscall.SysProcAttr{PidFD: &pidfd}})
	if err != nil {
		t.Fatal(err)
	}
	return pid, pidfd
}

// What is bound to a connection must not outlive it because an upgrade failed.
func TestWhatIsBoundEndsWithAHandoverThatIsLetGo(t *testing.T) {
	program := exec.Command("sleep", "1000")
	if err := program.Start(); err != nil {
		t.Fatal(err)
	}
	pidfd, err := unix.PidfdOpen(program.Process.Pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	m := newMonitor(4096)
	if err := m.prepare(); err != nil {
		t.Fatal(err)
	}
	defer m.closeAll()
	none := wire.HeldTask{Cgroup: -1, Record: -1, Log: -1, Stdin: -1, Terminal: -1, Rootfs: -1, Pidfd: pidfd}
	none.Spec.Bound = true
	m.letGo(&wire.Handover{Tasks: []wire.HeldTask{none}, Files: []int{pidfd}})
	if err := program.Wait(); err == nil || err.Error() != "signal: killed" {
		t.Errorf("the program ended with %v, want it killed", err)
	}
}
