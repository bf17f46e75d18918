// Package timerslack lets the Go runtime look after our threads less often.
//
// Slack is how much later than asked for a thread's sleep may end. The runtime
// has a thread that watches the others, sysmon; while anything runs, if only a
// system call, it sleeps for 20 microseconds at a time, and on a busy machine
// takes the processor from the thread that does the work each time it wakes.
// With more slack a goroutine that blocks in a system call gives its place to
// others a little later. A thread inherits the slack of the one that made it,
// and so does a process: see Usual.
package timerslack

import (
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

const (
	usual  = 50 * time.Microsecond // what the kernel gives
	sysmon = 500 * time.Microsecond
)

// Relax gives sysmon more slack. An error costs nothing but time.
func Relax() error {
	thread, err := watcher()
	if err != nil {
		return err
	}
	fd, err := unix.Open("/proc/"+thread+"/timerslack_ns", unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	_, err = unix.Write(fd, strconv.AppendInt(nil, sysmon.Nanoseconds(), 10))
	return err
}

// watcher is the id of sysmon: the first thread that the main thread makes, and
// the kernel lists them in that order.
func watcher() (string, error) {
	fd, err := unix.Open("/proc/self/task", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	buffer := make([]byte, 1024)
	n, err := unix.ReadDirent(fd, buffer)
	if err != nil {
		return "", err
	}
	_, _, threads := unix.ParseDirent(buffer[:n], 2, nil)
	if len(threads) < 2 {
		return "", unix.ESRCH
	}
	return threads[1], nil
}

// Usual gives the calling thread the kernel's own slack, before it makes a
// process that is not ours. The caller has locked the thread.
func Usual() error {
	return unix.Prctl(unix.PR_SET_TIMERSLACK, uintptr(usual.Nanoseconds()), 0, 0, 0)
}
