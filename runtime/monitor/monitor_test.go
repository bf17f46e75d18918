package monitor

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"cri-mini/runtime/spawn"
	"cri-mini/runtime/spec"
	"cri-mini/runtime/wire"
)

// daemon is the other side: it talks to a loop that runs in this process.
type daemon struct {
	t    *testing.T
	conn int
	path string
	done chan error
}

func newDaemon(t *testing.T) *daemon {
	t.Helper()
	d := &daemon{t: t, path: filepath.Join(t.TempDir(), "s"), done: make(chan error, 1)}
	listener, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Bind(listener, &unix.SockaddrUnix{Name: d.path}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(listener, 8); err != nil {
		t.Fatal(err)
	}
	m := newMonitor(4096)
	go func() { d.done <- m.loop(listener) }()
	d.conn = d.dial()
	t.Cleanup(func() {
		a, _ := d.ask(&wire.Request{Verb: wire.Quit}, nil)
		if a.Failed != -1 {
			t.Errorf("quit: %v", a.Errno)
		}
		if err := <-d.done; err != nil {
			t.Error(err)
		}
		unix.Close(d.conn)
	})
	return d
}

func (d *daemon) dial() int {
	d.t.Helper()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		d.t.Fatal(err)
	}
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: d.path}); err != nil {
		d.t.Fatal(err)
	}
	return fd
}

func (d *daemon) ask(r *wire.Request, files []int) (*wire.Answer, []int) {
	d.t.Helper()
	return d.askOn(d.conn, r, files)
}

func (d *daemon) askOn(conn int, r *wire.Request, files []int) (*wire.Answer, []int) {
	d.t.Helper()
	if err := wire.Send(conn, r.Encode(), files); err != nil {
		d.t.Fatal(err)
	}
	return d.hear(conn)
}

func (d *daemon) hear(conn int) (*wire.Answer, []int) {
	d.t.Helper()
	body, got, err := wire.Receive(conn)
	if err != nil {
		d.t.Fatal(err)
	}
	a, err := wire.DecodeAnswer(body)
	if err != nil {
		d.t.Fatal(err)
	}
	return a, got
}

// shell starts a script on the host, with a log and an exit record.
func (d *daemon) shell(conn int, id, script string, change func(*wire.TaskSpec)) (*wire.Answer, []int, string) {
	d.t.Helper()
	dir := d.t.TempDir()
	logPath := filepath.Join(dir, "log")
	open := func(path string, flags int) int {
		fd, err := unix.Open(path, flags|unix.O_CLOEXEC, 0o600)
		if err != nil {
			d.t.Fatal(err)
		}
		return fd
	}
	var in, out [2]int
	unix.Pipe2(in[:], unix.O_CLOEXEC)
	unix.Pipe2(out[:], unix.O_CLOEXEC)
	program := spawn.Exec(spec.Process{Args: []string{"/bin/sh", "-c", script}, Cwd: "/", Capabilities: spec.Capabilities{Bounding: ^uint64(0)}}, spawn.Surroundings{LastCap: -1})
	// Not ourselves: our first thread may be a spawner's, in the seed.
	self, err := unix.PidfdOpen(unix.Getppid(), 0)
	if err != nil {
		d.t.Fatal(err)
	}
	im, err := program.Link()
	if err != nil {
		d.t.Fatal(err)
	}
	task := wire.TaskSpec{Files: 4, Record: true, Log: true, Stdin: true, Stdout: true}
	if change != nil {
		change(&task)
	}
	files := []int{self, in[0], out[1], out[1], open(dir, unix.O_PATH|unix.O_DIRECTORY), open(logPath, unix.O_WRONLY|unix.O_CREAT|unix.O_APPEND), in[1], out[0]}
	a, got := d.askOn(conn, &wire.Request{Verb: wire.Spawn, ID: id, Image: im, Task: task}, files)
	for _, fd := range append(files[:3:3], files[4:]...) {
		unix.Close(fd)
	}
	return a, got, dir
}

func (d *daemon) waitEnd(conn int, id string) wire.Task {
	d.t.Helper()
	for {
		a, _ := d.hear(conn)
		for _, t := range a.Tasks {
			if t.ID == id && t.Ended {
				return t
			}
		}
	}
}

func TestTaskIsLoggedRecordedAndTold(t *testing.T) {
	d := newDaemon(t)
	watch := d.dial()
	defer unix.Close(watch)
	d.askOn(watch, &wire.Request{Verb: wire.Watch}, nil)
	a, got, dir := d.shell(d.conn, "one", "echo hello; read x; echo $x; exit 3", nil)
	defer wire.CloseAll(got)
	if a.Failed != -1 || a.PID == 0 {
		t.Fatalf("spawn: %+v", a)
	}
	if again, _, _ := d.shell(d.conn, "one", "true", nil); again.Errno != unix.EEXIST {
		t.Errorf("same id again: %v, want EEXIST", again.Errno)
	}
	if busy, _ := d.ask(&wire.Request{Verb: wire.Quit}, nil); busy.Errno != unix.EBUSY {
		t.Errorf("quit with a task: %v, want EBUSY", busy.Errno)
	}
	streams, files := d.ask(&wire.Request{Verb: wire.Attach, ID: "one"}, nil)
	if fmt.Sprint(streams.Names) != "[stdin stdout]" {
		t.Fatalf("attach gave %v", streams.Names)
	}
	unix.Write(files[0], []byte("typed\n"))
	end := d.waitEnd(watch, "one")
	if end.Code != 3 {
		t.Errorf("exit code %d, want 3", end.Code)
	}
	attached := os.NewFile(uintptr(files[1]), "attached")
	text, err := io.ReadAll(attached)
	if err != nil || !strings.Contains(string(text), "typed\n") {
		t.Errorf("attached saw %q, %v", text, err)
	}
	attached.Close()
	unix.Close(files[0])
	log, _ := os.ReadFile(filepath.Join(dir, "log"))
	if _, tags, content := parse(t, log); tags != "FF" || content[0] != "hello" || content[1] != "typed" {
		t.Errorf("log %q", log)
	}
	record, _ := os.ReadFile(filepath.Join(dir, "one"))
	if !strings.HasPrefix(string(record), `{"code":3,"at":"20`) {
		t.Errorf("record %q", record)
	}
	if a, _ := d.ask(&wire.Request{Verb: wire.Forget, ID: "one"}, nil); a.Failed != -1 {
		t.Errorf("forget: %v", a.Errno)
	}
}

func TestBoundProcessDiesWithItsConnection(t *testing.T) {
	d := newDaemon(t)
	own := d.dial()
	a, got, _ := d.shell(own, "", "sleep 1000", func(s *wire.TaskSpec) { s.Bound = true })
	defer wire.CloseAll(got)
	unix.Close(own)
	for range 500 {
		if unix.Kill(int(a.PID), 0) == unix.ESRCH {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("process %d lives on", a.PID)
}

func TestSlowClientHoldsTheOutputAndLosesNothing(t *testing.T) {
	d := newDaemon(t)
	watch := d.dial()
	defer unix.Close(watch)
	d.askOn(watch, &wire.Request{Verb: wire.Watch}, nil)
	a, got, dir := d.shell(d.conn, "one", "read x; i=0; while [ $i -lt 30000 ]; do echo line $i; i=$((i+1)); done", nil)
	defer wire.CloseAll(got)
	if a.Failed != -1 {
		d.t.Fatalf("spawn: %+v", a)
	}
	_, files := d.ask(&wire.Request{Verb: wire.Attach, ID: "one"}, nil)
	unix.Write(files[0], []byte("go\n"))
	time.Sleep(200 * time.Millisecond) // it is stuck by now: the pipes are full
	attached := os.NewFile(uintptr(files[1]), "attached")
	text, err := io.ReadAll(attached)
	if err != nil || strings.Count(string(text), "\n") != 30000 || !strings.HasSuffix(string(text), "line 29999\n") {
		t.Errorf("client saw %d lines, %v", strings.Count(string(text), "\n"), err)
	}
	attached.Close()
	unix.Close(files[0])
	d.waitEnd(watch, "one")
	log, _ := os.ReadFile(filepath.Join(dir, "log"))
	if n := strings.Count(string(log), "\n"); n != 30000 {
		t.Errorf("the log has %d lines, want 30000", n)
	}
	d.ask(&wire.Request{Verb: wire.Forget, ID: "one"}, nil)
}

func TestNonsenseIsRefusedAndLeavesNothing(t *testing.T) {
	d := newDaemon(t)
	for name, r := range map[string]*wire.Request{
		"unknown verb":        {Verb: 99},
		"unknown task":        {Verb: wire.Attach, ID: "x"},
		"unknown pin":         {Verb: wire.Fetch, ID: "x"},
		"spawn without image": {Verb: wire.Spawn, ID: "x"},
		"pin without files":   {Verb: wire.Pin, ID: "x", Names: []string{"net"}},
	} {
		if a, _ := d.ask(r, nil); a.Failed != -3 || a.Errno == 0 {
			t.Errorf("%s: %+v, want a refusal", name, a)
		}
	}
}

// A container in the node's PID namespace leaves us what its processes leave
// behind: pids of the node that nobody else gives back.
func TestOrphansAreCollectedWithoutAnyTaskThatEnds(t *testing.T) {
	m := &Monitor{sources: map[int]watched{}, spawners: &spawners{}}
	const orphans = 100
	var pids []int
	for range orphans {
		p, err := os.StartProcess("/bin/true", []string{"true"}, &os.ProcAttr{})
		if err != nil {
			t.Fatal(err)
		}
		pids = append(pids, p.Pid)
		p.Release()
	}
	for _, pid := range pids {
		if err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil); err != nil {
			t.Fatal(err)
		}
	}
	m.reaped = time.Now()
	m.check(m.reaped.Add(orphanLimit - 1))
	if endedChild() == 0 {
		t.Error("collected before the time was over: the test shows nothing")
	}
	m.check(m.reaped.Add(orphanLimit))
	if pid := endedChild(); pid != 0 {
		t.Errorf("%d is still a zombie", pid)
	}
}

type counter struct{ n int }

func (c *counter) ready(*Monitor, uint32) { c.n++ }

// An event of a descriptor that was closed by the event before it must not
// reach who has its number now.
func TestEventsReachOnlyThoseTheyAreOf(t *testing.T) {
	m := &Monitor{sources: map[int]watched{}}
	var err error
	if m.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(m.epoll)
	var old, young counter
	watch := func(c *counter) (fd, other int) {
		var pair [2]int
		if err := unix.Pipe2(pair[:], unix.O_CLOEXEC); err != nil {
			t.Fatal(err)
		}
		if err := m.watch(pair[1], c, 0); err != nil {
			t.Fatal(err)
		}
		return pair[1], pair[0]
	}
	fd, other := watch(&old)
	unix.Close(other) // its error is an event
	events := make([]unix.EpollEvent, 4)
	n, err := unix.EpollWait(m.epoll, events, 1000)
	if n != 1 || err != nil {
		t.Fatalf("%d events, %v; want one", n, err)
	}
	m.unwatch(fd)
	again, other := watch(&young)
	defer unix.Close(other)
	if again != fd {
		t.Fatalf("the new descriptor is %d, want %d once more", again, fd)
	}
	m.dispatch(events[:n])
	if old.n != 0 || young.n != 0 {
		t.Errorf("events for the old %d, for the new %d; want none", old.n, young.n)
	}
	m.rewatch(again, unix.EPOLLOUT)
	n, err = unix.EpollWait(m.epoll, events, 1000)
	if err != nil {
		t.Fatal(err)
	}
	m.dispatch(events[:n])
	if young.n != 1 {
		t.Errorf("%d events for the new one, want its own", young.n)
	}
	m.unwatch(again)
}
