package spawn

import (
	"os"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A list whose second process hangs before its execve, as one does that is
// stopped by somebody in the PID namespace it joined.
func hanging(t *testing.T) (im *Image, hold *os.File) {
	t.Helper()
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { read.Close(); write.Close() })
	b := newBuilder()
	b.fork(0)
	b.call("hang", unix.SYS_READ, File("pipe"), Bytes(make([]byte, 8)), Num(1))
	b.Ops = append(b.Ops, restoreSignals, execve("/bin/true"))
	b.Files = []string{"pipe"}
	if im, err = b.Program.Link(); err != nil {
		t.Fatal(err)
	}
	return im, read
}

func killFirst(s *Spawn) { unix.PidfdSendSignal(int(atomic.LoadInt32(&s.pidfd)), unix.SIGKILL, nil, 0) }

// A cgroup is killed all at once: then the first process ends without having
// said what it forked. Nothing may be left unreaped, for a zombie keeps a
// container's PID namespace, and the container, from ending.
func TestBothProcessesOfAKilledSpawnAreKnown(t *testing.T) {
	for name, end := range map[string]func(s *Spawn, second int){
		"both are killed": func(s *Spawn, second int) {
			unix.Kill(second, unix.SIGSTOP)
			killFirst(s)
			unix.Kill(second, unix.SIGKILL)
		},
		"the first is killed":  func(s *Spawn, _ int) { killFirst(s) },
		"the second is killed": func(_ *Spawn, second int) { unix.Kill(second, unix.SIGKILL) },
		"it is abandoned":      func(s *Spawn, second int) { unix.Kill(second, unix.SIGSTOP); s.Abandon() },
	} {
		t.Run(name, func(t *testing.T) {
			im, hold := hanging(t)
			s, err := NewSpawn(im, []int{int(hold.Fd())})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			done := make(chan Result)
			go func() {
				runtime.LockOSThread()
				defer runtime.UnlockOSThread()
				done <- s.Run(im, -1)
			}()
			second := 0
			for range 2000 {
				if second = int(int32(s.header(2))); second != 0 {
					break
				}
				time.Sleep(time.Millisecond)
			}
			if second == 0 {
				t.Fatal("the second process was not noted while it runs")
			}
			end(s, second)
			var result Result
			select {
			case result = <-done:
			case <-time.After(10 * time.Second):
				t.Fatal("Run does not return")
			}
			if result.PID != second || result.Failed != -1 {
				t.Errorf("%+v, want the second process, %d", result, second)
			}
			if Executed(procFolder(t), second) {
				t.Error("it is said to have executed its program")
			}
			if status := reap(second); status.Signal() != unix.SIGKILL {
				t.Errorf("the second process ended with %#x, want SIGKILL", status)
			}
			if _, err := unix.Wait4(-1, nil, unix.WNOHANG, nil); err != unix.ECHILD {
				t.Errorf("a child is left: %v", err)
			}
		})
	}
}

func procFolder(t *testing.T) int {
	t.Helper()
	proc, err := os.Open("/proc")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { proc.Close() })
	return int(proc.Fd())
}

// A program that was killed once it ran has run, however early that was.
func TestProgramThatEndedWasExecuted(t *testing.T) {
	b := newBuilder()
	b.Ops = append(b.Ops, restoreSignals, execve("/bin/true"))
	im, err := b.Program.Link()
	if err != nil {
		t.Fatal(err)
	}
	s, err := NewSpawn(im, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	result := s.Run(im, -1)
	if result.Failed != -1 {
		t.Fatalf("%+v", result)
	}
	proc := procFolder(t)
	if !Executed(proc, result.PID) {
		t.Error("not while it runs")
	}
	if err := unix.Waitid(unix.P_PID, result.PID, nil, unix.WEXITED|unix.WNOWAIT, nil); err != nil {
		t.Fatal(err)
	}
	if !Executed(proc, result.PID) {
		t.Error("not when it has ended")
	}
	reap(result.PID)
}

// A process lets its memory go, by which Run returns, before it can be waited
// for.
func TestProcessThatIsJustEndingHasNotExecuted(t *testing.T) {
	im, hold := hanging(t)
	proc := procFolder(t)
	for range 200 {
		s, err := NewSpawn(im, []int{int(hold.Fd())})
		if err != nil {
			t.Fatal(err)
		}
		said := make(chan bool)
		go func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			result := s.Run(im, -1)
			said <- Executed(proc, result.PID)
			reap(result.PID)
			close(said)
		}()
		second := 0
		for second == 0 {
			second = int(int32(s.header(2)))
			time.Sleep(100 * time.Microsecond)
		}
		unix.Kill(second, unix.SIGKILL)
		if <-said {
			t.Fatal("it is said to have executed its program")
		}
		<-said
		s.Close()
	}
}
