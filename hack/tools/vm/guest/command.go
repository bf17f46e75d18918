package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"cri-mini/hack/tools/vm/wire"
)

const path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// run runs the command in the directory of the payload and returns its status.
func (p *port) run(request wire.Request) (int, error) {
	for _, dir := range []string{wire.In, wire.Out} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return 0, err
		}
	}
	out, err := newStream(func(b []byte) error { return p.send(wire.Report{Stdout: b}) })
	if err != nil {
		return 0, err
	}
	errs, err := newStream(func(b []byte) error { return p.send(wire.Report{Stderr: b}) })
	if err != nil {
		return 0, err
	}
	status, err := execute(request, out.write, errs.write)
	return status, errors.Join(err, out.finish(), errs.finish())
}

func execute(request wire.Request, out, errs *os.File) (int, error) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		return 0, err
	}
	defer null.Close()
	os.Setenv("PATH", path) // in which LookPath looks
	if err := os.Chdir(wire.In); err != nil {
		return 0, err
	}
	program, err := exec.LookPath(request.Args[0])
	if err != nil && !errors.Is(err, exec.ErrDot) {
		fmt.Fprintf(errs, "vm: %v\n", err)
		return 127, nil
	}
	process, err := os.StartProcess(program, request.Args, &os.ProcAttr{
		Dir:   wire.In,
		Env:   append([]string{"PATH=" + path, "HOME=/root", "TERM=dumb"}, request.Env...),
		Files: []*os.File{null, out, errs},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		fmt.Fprintf(errs, "vm: %v\n", err)
		return 126, nil
	}
	return reap(process.Pid)
}

// reap takes up every process that loses its parent, until the command ends.
func reap(command int) (int, error) {
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
		case err != nil:
			return 0, fmt.Errorf("wait: %w", err)
		case pid == command && status.Signaled():
			return 128 + int(status.Signal()), nil
		case pid == command && status.Exited():
			return status.ExitStatus(), nil
		}
	}
}

// stream hands on what is written to a pipe.
type stream struct {
	read, write *os.File
	done        chan error
}

func newStream(send func([]byte) error) (*stream, error) {
	s := &stream{done: make(chan error, 1)}
	var err error
	if s.read, s.write, err = os.Pipe(); err != nil {
		return nil, err
	}
	go func() { s.done <- s.copy(send) }()
	return s, nil
}

func (s *stream) copy(send func([]byte) error) error {
	buffer := make([]byte, 16<<10)
	for {
		n, err := s.read.Read(buffer)
		if n > 0 {
			if err := send(buffer[:n]); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) || errors.Is(err, os.ErrDeadlineExceeded) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// finish returns when everything is sent. A process that outlives the command
// may hold the pipe open: what it writes after a second is nobody's.
func (s *stream) finish() error {
	s.write.Close()
	if err := s.read.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
		return err
	}
	return <-s.done
}

// port is the way to the program outside. It is safe for concurrent use.
type port struct {
	mu   sync.Mutex
	file *os.File
}
