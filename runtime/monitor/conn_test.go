package monitor

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"cri-mini/runtime/wire"
)

// still is a monitor whose loop the test turns by hand.
func still(t *testing.T) *Monitor {
	t.Helper()
	m := newMonitor(4096)
	if err := m.prepare(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.closeAll)
	return m
}

// connected gives both ends of a connection.
func connected(t *testing.T, m *Monitor) (c *conn, far int) {
	t.Helper()
	ends, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	c = &conn{fd: ends[0]}
	if err := m.watch(c.fd, c, unix.EPOLLIN); err != nil {
		t.Fatal(err)
	}
	return c, ends[1]
}

func readable(t *testing.T, fd int) bool {
	t.Helper()
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
	if err != nil {
		t.Fatal(err)
	}
	return n > 0
}

func TestRequestOfADaemonThatHasDiedIsNotCarriedOut(t *testing.T) {
	m := still(t)
	for _, dies := range []bool{false, true} {
		c, far := connected(t, m)
		file, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := wire.Send(far, (&wire.Request{Verb: wire.Pin, ID: "a", Names: []string{"net"}}).Encode(), []int{file}); err != nil {
			t.Fatal(err)
		}
		unix.Close(file)
		if dies {
			unix.Close(far)
		}
		c.ready(m, 0)
		if pinned := m.pins["a"] != nil; pinned == dies || c.gone != dies {
			t.Errorf("dies %t: pinned %t, connection closed %t", dies, pinned, c.gone)
		}
		if !dies {
			wire.CloseAll(m.pins["a"].files)
			delete(m.pins, "a")
			c.close(m)
			unix.Close(far)
		}
	}
}

func TestListOfTasksWaitsForStartsOfADaemonThatHasDied(t *testing.T) {
	m := still(t)
	old, far := connected(t, m)
	unix.Close(far)
	alive, far := connected(t, m)
	defer unix.Close(far)
	begun, others := &job{asked: old}, &job{asked: alive}
	for name, end := range map[string]func(time.Time){
		"it ends": func(now time.Time) {
			delete(m.spawners.busy, begun)
			m.tasks["a"] = &task{Task: wire.Task{ID: "a", PID: 7}}
			m.spawners.catchUp(now)
		},
		"it hangs": func(now time.Time) { m.spawners.catchUp(now.Add(birthLimit)) },
	} {
		m.tasks = map[string]*task{}
		m.spawners.busy[begun], m.spawners.busy[others] = true, true
		c, far := connected(t, m)
		c.do(m, &wire.Request{Verb: wire.Watch}, nil)
		m.spawners.catchUp(time.Now())
		if readable(t, far) {
			t.Errorf("%s: the answer is there before", name)
		}
		end(time.Now())
		if !readable(t, far) {
			t.Fatalf("%s: no answer", name)
		}
		body, _, err := wire.Receive(far)
		if err != nil {
			t.Fatal(err)
		}
		answer, err := wire.DecodeAnswer(body)
		if err != nil || len(answer.Tasks) != len(m.tasks) {
			t.Errorf("%s: answer %+v, %v; want %d tasks", name, answer, err, len(m.tasks))
		}
		if !m.watchers[c] {
			t.Errorf("%s: later exits are not told", name)
		}
		c.close(m)
		unix.Close(far)
	}
	m.tasks, m.spawners.busy = map[string]*task{}, map[*job]bool{}
}
