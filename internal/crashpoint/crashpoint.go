// Package crashpoint lets a test kill a process of ours between two effects.
//
// A point is a place in the source, and its name says what has been done by
// then; Points lists them all. At a point nothing happens unless the process
// watches a folder, which only a hidden flag of the daemon makes it do. Then a
// file there with the name of a point arms it: the process that comes there
// takes the file away and ends itself by SIGKILL. So a test arms what runs
// already, knows that the point was reached, and no point fires twice. The
// package knows no step of any call.
package crashpoint

import (
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// variable tells the monitor the folder; nothing else gets it.
const variable = "_CRI_MINI_CRASH_POINTS"

// Trace is a file of the folder that, if it is there, gets the name of each
// point that is passed.
const Trace = "trace"

// folder is a descriptor of the folder: threads of the monitor live where no
// path leads to it. 0: nobody watches.
var folder atomic.Int32

// reaching lets only one thread count and fire.
var reaching sync.Mutex

// path is the folder's, for Environment.
var path string

// Watch has the points of this process look into a folder. It is called before
// there is a second goroutine.
func Watch(dir string) error {
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: dir, Err: err}
	}
	path = dir
	folder.Store(int32(fd))
	return nil
}

// Environment makes a process of ours watch the same folder; most often it is
// empty.
func Environment() []string {
	if path == "" {
		return nil
	}
	return []string{variable + "=" + path}
}

// WatchAsTold is for a process that got Environment.
func WatchAsTold() error {
	dir, told := syscall.Getenv(variable)
	if !told {
		return nil
	}
	return Watch(dir)
}

// Here is a point.
func Here(name string) {
	if fd := folder.Load(); fd != 0 {
		reached(int(fd), name)
	}
}

// reached ends the process if the point is armed. The file holds how many times
// it is still to be passed, this one included; empty is once.
func reached(dir int, name string) {
	reaching.Lock()
	defer reaching.Unlock()
	note(dir, name)
	text, err := readAt(dir, name)
	if err != nil {
		return
	}
	if n, err := strconv.Atoi(strings.TrimSpace(text)); err == nil && n > 1 {
		writeAt(dir, name, unix.O_TRUNC, strconv.Itoa(n-1))
		return
	}
	if unix.Unlinkat(dir, name, 0) != nil {
		return // another process was faster
	}
	unix.Kill(unix.Getpid(), unix.SIGKILL)
	select {} // nothing happens after the point
}

func note(dir int, name string) { writeAt(dir, Trace, unix.O_APPEND, name+"\n") }

func readAt(dir int, name string) (string, error) {
	fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	buffer := make([]byte, 16)
	n, err := unix.Read(fd, buffer)
	return string(buffer[:max(n, 0)]), err
}

// writeAt writes to a file that is there.
func writeAt(dir int, name string, flags int, text string) {
	fd, err := unix.Openat(dir, name, unix.O_WRONLY|unix.O_CLOEXEC|flags, 0)
	if err != nil {
		return
	}
	unix.Write(fd, []byte(text))
	unix.Close(fd)
}
