package spawn

import (
	"io"
	"os"
	"runtime"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"cri-mini/internal/leakcheck"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

// run spawns a program on a thread of its own and waits for its end.
func run(t *testing.T, p Program, files ...*os.File) (Result, unix.WaitStatus) {
	t.Helper()
	im, err := p.Link()
	if err != nil {
		t.Fatal(err)
	}
	fds := make([]int, len(files))
	for i, f := range files {
		fds[i] = int(f.Fd())
	}
	s, err := NewSpawn(im, fds)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	result := s.Run(im, -1)
	runtime.KeepAlive(files)
	var status unix.WaitStatus
	if result.PID > 0 {
		if _, err := unix.Wait4(result.PID, &status, 0, nil); err != nil {
			t.Fatal(err)
		}
	}
	return result, status
}

func execve(path string, args ...string) Op {
	return Op{What: "execute " + path, Nr: unix.SYS_EXECVE,
		Args: []Arg{Text(path), Vector(append([]string{path}, args...)), Vector([]string{"PATH=/bin"})}}
}

// restoreSignals comes before every execve, for a spawn blocks them.
var restoreSignals = Op{What: "unblock signals", Nr: unix.SYS_RT_SIGPROCMASK,
	Args: []Arg{Num(unix.SIG_SETMASK), Bytes(make([]byte, 8)), Num(0), Num(8)}}

func TestProgramIsExecutedAndItsExitCodeArrives(t *testing.T) {
	for _, copied := range []bool{false, true} {
		result, status := run(t, Program{Copy: copied, Ops: []Op{restoreSignals, execve("/bin/sh", "-c", "exit 7")}})
		if result.Failed != -1 || status.ExitStatus() != 7 {
			t.Errorf("copy %v: %+v, exit %d; want 7", copied, result, status.ExitStatus())
		}
	}
}

func TestFailingOperationIsReportedWithItsErrno(t *testing.T) {
	for _, copied := range []bool{false, true} {
		p := Program{Copy: copied, Ops: []Op{restoreSignals, execve("/nonexistent"), execve("/bin/true")}}
		result, _ := run(t, p)
		if result.Failed != 1 || result.Errno != syscall.ENOENT || result.PID != 0 {
			t.Errorf("copy %v: %+v; want operation 1, ENOENT", copied, result)
		}
	}
}

func TestToleranceAndSkips(t *testing.T) {
	first := execve("/nonexistent")
	first.Tolerate = []syscall.Errno{unix.EACCES, unix.ENOENT}
	first.SkipTolerated = 1
	never := execve("/bin/sh", "-c", "exit 1")
	ok := restoreSignals
	ok.SkipOK = 1
	result, status := run(t, Program{Ops: []Op{first, never, ok, never, execve("/bin/sh", "-c", "exit 3")}})
	if result.Failed != -1 || status.ExitStatus() != 3 {
		t.Errorf("%+v, exit %d; want 3", result, status.ExitStatus())
	}
}

func TestSavedResultsAndFilesReachLaterCalls(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	p := Program{Files: []string{"out"}, Ops: []Op{
		{What: "open", Nr: unix.SYS_OPENAT, Args: []Arg{Num(unix.AT_FDCWD), Text("/proc/self/comm"), Num(0)}, Save: "comm"},
		{What: "stdin", Nr: unix.SYS_DUP3, Args: []Arg{Saved("comm"), Num(0), Num(0)}},
		{What: "stdout", Nr: unix.SYS_DUP3, Args: []Arg{File("out"), Num(1), Num(0)}},
		restoreSignals, execve("/bin/sh", "-c", "read x; echo got $x"),
	}}
	result, _ := run(t, p, w)
	w.Close()
	out, _ := io.ReadAll(r)
	if result.Failed != -1 || len(out) < 5 || string(out[:4]) != "got " {
		t.Errorf("%+v, output %q", result, out)
	}
}

func TestForkedProcessIsOurChild(t *testing.T) {
	for _, copied := range []bool{false, true} {
		p := Program{Copy: copied, Ops: []Op{
			{What: "fork", Nr: unix.SYS_CLONE, Fork: true,
				Args: []Arg{Num(unix.CLONE_PARENT | unix.CLONE_VM | unix.CLONE_VFORK | unix.CLONE_NEWPID), Num(0), Num(0), Num(0), Num(0)}},
			restoreSignals, execve("/bin/sh", "-c", "exit $$"), // PID 1 of its namespace
		}}
		result, status := run(t, p)
		if result.Failed != -1 || status.ExitStatus() != 1 {
			t.Errorf("copy %v: %+v, exit %d; want its pid, 1", copied, result, status.ExitStatus())
		}
	}
}

func TestDescriptorIsSentFromTheChild(t *testing.T) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "ours"), os.NewFile(uintptr(pair[1]), "theirs")
	defer ours.Close()
	defer theirs.Close()
	result, _ := run(t, Program{Files: []string{"socket"}, Ops: []Op{
		{What: "open", Nr: unix.SYS_OPENAT, Args: []Arg{Num(unix.AT_FDCWD), Text("/proc/self/status"), Num(unix.O_CLOEXEC)}, Save: "fd"},
		{What: "send", Nr: unix.SYS_SENDMSG, Args: []Arg{File("socket"), FDMessage("fd"), Num(0)}},
		restoreSignals, execve("/bin/true"),
	}}, theirs)
	if result.Failed != -1 {
		t.Fatalf("%+v", result)
	}
	control := make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := unix.Recvmsg(pair[0], make([]byte, 1), control, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	messages, err := unix.ParseSocketControlMessage(control[:n])
	if err != nil || len(messages) != 1 {
		t.Fatalf("%d control messages, %v", len(messages), err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		t.Fatalf("rights %v, %v", fds, err)
	}
	unix.Close(fds[0])
}

func TestHangingSpawnCanBeAbandoned(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	im, err := Program{Files: []string{"pipe"}, Ops: []Op{
		{What: "read for ever", Nr: unix.SYS_READ, Args: []Arg{File("pipe"), Bytes(make([]byte, 8)), Num(1)}},
	}}.Link()
	if err != nil {
		t.Fatal(err)
	}
	s, err := NewSpawn(im, []int{int(r.Fd())})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	done := make(chan Result)
	go func() {
		runtime.LockOSThread()
		done <- s.Run(im, -1)
	}()
	for {
		s.Abandon()
		select {
		case result := <-done:
			unix.Wait4(result.PID, nil, 0, nil)
			return
		default:
			runtime.GC() // would hang if the thread held up the scheduler
		}
	}
}

func BenchmarkSpawnTrue(b *testing.B) {
	im, err := Program{Ops: []Op{restoreSignals, execve("/bin/true")}}.Link()
	if err != nil {
		b.Fatal(err)
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for b.Loop() {
		s, err := NewSpawn(im, nil)
		if err != nil {
			b.Fatal(err)
		}
		result := s.Run(im, -1)
		unix.Wait4(result.PID, nil, 0, nil)
		s.Close()
	}
}
