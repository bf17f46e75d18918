package monitor

import (
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"cri-mini/internal/broken"
	"cri-mini/internal/crashpoint"
	"cri-mini/runtime/wire"
)

// ready is called when the pidfd says that the process has ended.
func (t *task) ready(m *Monitor, _ uint32) {
	crashpoint.Here("monitor.exit-seen")
	code, known := t.reap()
	if !known && t.adopted && t.mayBeTold(m) {
		return
	}
	crashpoint.Here("monitor.reaped")
	t.At, t.Code, t.Unknown = time.Now(), code, !known
	if t.cgroup >= 0 {
		// Before anyone can remove the group: the count goes with it.
		t.OOMKilled = endedForMemory(code, t.cgroup)
		// The container is its first process; what it left goes with it.
		// With a PID namespace of its own the kernel did that already.
		writeFile(t.cgroup, "cgroup.kill", "1")
	}
	crashpoint.Here("monitor.group-killed")
	m.unwatch(t.pidfd)
	t.pidfd = -1
	for _, s := range t.streams {
		s.drain(m)
	}
	crashpoint.Here("monitor.drained")
	t.closeStdin()
	t.Ended = true
	t.writeRecord() // before anyone is told
	crashpoint.Here("monitor.exit-recorded")
	if t.spec.Bound {
		if c := t.boundTo; c != nil {
			c.bound = nil
			c.answer(m, wire.Answer{Failed: -1, Tasks: []wire.Task{t.Task}}, nil)
		}
		t.close(m)
	} else {
		if t.rootfs >= 0 { // an unmount, no hurry now
			unix.Close(t.rootfs)
			t.rootfs = -1
		}
		m.tell(t.Task)
	}
	crashpoint.Here("monitor.exit-told")
	m.reapOrphans()
}

// tellLimit is how long the new parent of an adopted process may take to
// collect it; only then does the kernel tell others the exit code.
const tellLimit = 2 * time.Second

// mayBeTold waits for the hang-up of the pidfd, which comes with that.
func (t *task) mayBeTold(m *Monitor) bool {
	if t.endedSince.IsZero() {
		t.endedSince = time.Now()
		m.rewatch(t.pidfd, 0)
	}
	return time.Since(t.endedSince) < tellLimit
}

// reap collects the exit code: 128+n after signal n.
func (t *task) reap() (code int32, known bool) {
	if t.adopted {
		if broken.AdoptedExit {
			return 255, false
		}
		// It is our child if the program before us, in this process, started
		// it and could not tell us so.
		unix.Waitid(unix.P_PIDFD, t.pidfd, nil, unix.WEXITED|unix.WNOHANG, nil)
		return exitOfPidfd(t.pidfd)
	}
	var status unix.WaitStatus
	for {
		_, err := unix.Wait4(int(t.PID), &status, 0, nil)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return 255, false
		}
		return codeOf(status), true
	}
}

func codeOf(status unix.WaitStatus) int32 {
	if status.Signaled() {
		return 128 + int32(status.Signal())
	}
	return int32(status.ExitStatus())
}

// orphansAtOnce bounds how long the loop stays with them.
const orphansAtOnce = 4096

// reapOrphans collects ended processes that came to us because their parent
// ended first. Tasks are left to their pidfds.
func (m *Monitor) reapOrphans() {
	if m.spawners.running() > 0 {
		return // their children are waited for by them
	}
	m.reaped = time.Now()
	known := map[int]bool{}
	for _, s := range m.sources {
		if t, ok := s.source.(*task); ok {
			known[int(t.PID)] = true
		}
	}
	for range orphansAtOnce {
		pid := endedChild()
		if pid <= 0 || known[pid] {
			return
		}
		unix.Wait4(pid, nil, unix.WNOHANG, nil)
	}
}

// writeRecord keeps the exit for a daemon that finds neither us nor the
// process. When the disk is full it is tried again.
func (t *task) writeRecord() {
	t.unrecorded = false
	if t.record < 0 || t.spec.Bound {
		return
	}
	text := `{"code":` + strconv.Itoa(int(t.Code)) + `,"at":"` + t.At.UTC().Format(time.RFC3339Nano) + `"`
	if t.OOMKilled {
		text += `,"oomKilled":true`
	}
	if t.Unknown {
		text += `,"unknown":true`
	}
	if err := replaceFile(t.record, t.ID, text+"}\n"); err != nil {
		t.unrecorded = true
		say("record the exit of ", t.ID, ": ", err.Error())
	}
}

// replaceFile writes to another name and renames.
func replaceFile(dir int, name, text string) error {
	temp := name + ".new"
	fd, err := unix.Openat(dir, temp, unix.O_WRONLY|unix.O_CREAT|unix.O_TRUNC|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	n, err := unix.Write(fd, []byte(text))
	unix.Close(fd)
	if err == nil && n < len(text) {
		err = unix.ENOSPC
	}
	crashpoint.Here("monitor.exit-written")
	if err == nil {
		err = unix.Renameat(dir, temp, dir, name)
	}
	if err != nil {
		unix.Unlinkat(dir, temp, 0)
	}
	return err
}

func writeFile(dir int, name, text string) error {
	fd, err := unix.Openat(dir, name, unix.O_WRONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	_, err = unix.Write(fd, []byte(text))
	unix.Close(fd)
	return err
}

// endedForMemory tells whether a program ended for lack of memory. The kernel may
// have killed a child, here or in a group below, and the program ended for that
// with a code of its own. One that could do without the child and ends well was
// not killed.
func endedForMemory(code int32, cgroup int) bool { return code != 0 && oomKills(cgroup) > 0 }

// oomKills reads the count of processes that the kernel killed in the group
// for lack of memory. Without a memory controller there is none.
func oomKills(cgroup int) int {
	fd, err := unix.Openat(cgroup, "memory.events", unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return 0
	}
	defer unix.Close(fd)
	buffer := make([]byte, 4096)
	n, _ := unix.Read(fd, buffer)
	for _, line := range strings.Split(string(buffer[:max(n, 0)]), "\n") {
		if value, ok := strings.CutPrefix(line, "oom_kill "); ok {
			count, _ := strconv.Atoi(value)
			return count
		}
	}
	return 0
}
