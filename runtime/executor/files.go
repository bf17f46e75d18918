package executor

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

func readInt(path string) (int, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return 0, fmt.Errorf("%s: %w", path, err)
	}
	return n, nil
}

// files is a set of descriptors by name, closed together.
type files map[string]*os.File

func (f files) close() {
	for _, file := range f {
		if file != nil {
			file.Close()
		}
	}
}

// with is these and more, for one use; they are closed as before.
func (f files) with(more files) files {
	all := files{}
	for _, set := range []files{f, more} {
		for name, file := range set {
			all[name] = file
		}
	}
	return all
}

// pick lists the descriptors of these names, in order.
func (f files) pick(names []string) ([]*os.File, error) {
	list := make([]*os.File, 0, len(names))
	for _, name := range names {
		if f[name] == nil {
			return nil, fmt.Errorf("descriptor %q is missing", name)
		}
		list = append(list, f[name])
	}
	return list, nil
}

// pipe makes a pipe whose ends are close-on-exec. Only our end is put into
// the poller, which makes it non-blocking; the program's end stays blocking.
func pipe(name string) (read, write *os.File, err error) {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		return nil, nil, fmt.Errorf("make the pipe for %s: %w", name, err)
	}
	return os.NewFile(uintptr(fds[0]), name), os.NewFile(uintptr(fds[1]), name), nil
}

// pollable turns a pipe or terminal into a file whose reads can be ended by
// Close.
func pollable(f *os.File) *os.File {
	fd := dupFD(f)
	f.Close()
	if fd < 0 {
		return nil
	}
	unix.SetNonblock(fd, true)
	return os.NewFile(uintptr(fd), f.Name())
}

func dupFD(f *os.File) int {
	fd, err := unix.FcntlInt(uintptr(number(f)), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return -1
	}
	return fd
}

// number is the file's descriptor. Fd of os.File would make it blocking, for
// everyone who has a copy: the monitor too.
func number(f *os.File) int {
	n := -1
	if raw, err := f.SyscallConn(); err == nil {
		raw.Control(func(fd uintptr) { n = int(fd) })
	}
	return n
}

// dup copies a descriptor.
func dup(f *os.File) (*os.File, error) {
	fd, err := unix.FcntlInt(uintptr(number(f)), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, fmt.Errorf("copy the descriptor of %s: %w", f.Name(), err)
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}

// onceFile is a file made at the first use.
type onceFile struct {
	mu   sync.Mutex // guards file
	file *os.File
}

func (o *onceFile) get(create func() (*os.File, error)) (*os.File, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.file != nil {
		return o.file, nil
	}
	f, err := create()
	if err == nil {
		o.file = f
	}
	return f, err
}

func (o *onceFile) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.file != nil {
		o.file.Close()
	}
}
