package executor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"cri-mini/runtime/spec"
	"cri-mini/runtime/wire"
)

// attachment is a view on a container's streams: copies that the monitor
// makes of the output, and its own input.
type attachment struct {
	e      *Executor
	id     string
	once   bool
	stdin  *os.File
	stdout *os.File
	stderr *os.File
	tty    *os.File
	closed sync.Once
}

// Attach shows the container's output from now on.
func (e *Executor) Attach(ctx context.Context, id string) (spec.Attachment, error) {
	r, err := e.running(id)
	if err != nil {
		return nil, err
	}
	_, got, err := e.monitor.request(ctx, &wire.Request{Verb: wire.Attach, ID: id}, nil)
	if errors.Is(err, unix.ESRCH) {
		return nil, fmt.Errorf("container %s: %w", id, ErrUnknown)
	}
	if err != nil {
		return nil, err
	}
	a := &attachment{e: e, id: id, once: r.once}
	open := func(name string) *os.File {
		if f := got[name]; f != nil {
			return pollable(f)
		}
		return nil
	}
	a.stdin, a.stdout, a.stderr, a.tty = open("stdin"), open("stdout"), open("stderr"), open("terminal")
	return a, nil
}

// attached makes an attachment of what came with a spawn. The input is copied,
// for both its ends are closed on their own.
func (e *Executor) attached(c *container) (*attachment, error) {
	r := c.running
	a := &attachment{e: e, id: c.id, once: r.once}
	for name, to := range map[string]**os.File{"attached-stdout": &a.stdout, "attached-stderr": &a.stderr} {
		if f := r.files[name]; f != nil {
			delete(r.files, name)
			*to = pollable(f)
		}
	}
	for name, to := range map[string]**os.File{"stdin": &a.stdin, "terminal": &a.tty} {
		if f := r.files[name]; f != nil {
			fd := dupFD(f)
			if fd < 0 {
				a.Close()
				return nil, fmt.Errorf("copy %s: %w", name, unix.EMFILE)
			}
			*to = pollable(os.NewFile(uintptr(fd), name))
		}
	}
	if a.stdout == nil {
		a.Close()
		return nil, errors.New("the monitor did not attach the output")
	}
	return a, nil
}

func (a *attachment) Stdin() io.WriteCloser {
	switch {
	case a.tty != nil:
		return a.tty
	case a.stdin != nil:
		return attachedStdin{a}
	}
	return nil
}

// attachedStdin is the input of a container. Its end is passed on only with
// StdinOnce; else the next client goes on where this one stopped.
type attachedStdin struct{ a *attachment }

func (s attachedStdin) Write(b []byte) (int, error) { return s.a.stdin.Write(b) }

func (s attachedStdin) Close() error {
	err := s.a.stdin.Close()
	if s.a.once {
		err = errors.Join(err, s.a.e.closeStdin(context.Background(), s.a.id))
	}
	return err
}

func (a *attachment) Stdout() io.ReadCloser {
	if a.stdout == nil {
		return nil
	}
	return a.stdout
}

func (a *attachment) Stderr() io.ReadCloser {
	if a.stderr == nil {
		return nil
	}
	return a.stderr
}

func (a *attachment) Resize(width, height uint16) error { return resize(a.tty, width, height) }

func (a *attachment) Close() error {
	var err error
	a.closed.Do(func() {
		for _, f := range []*os.File{a.stdin, a.stdout, a.stderr, a.tty} {
			if f != nil {
				f.Close()
			}
		}
		if a.once {
			err = a.e.closeStdin(context.Background(), a.id)
		}
	})
	return err
}

// closeStdin ends the container's input: the monitor's end and our copy.
func (e *Executor) closeStdin(ctx context.Context, id string) error {
	c := e.container(id)
	c.mu.Lock()
	if c.running != nil {
		if f := c.running.files["stdin"]; f != nil {
			f.Close()
			delete(c.running.files, "stdin")
		}
	}
	c.mu.Unlock()
	_, _, err := e.monitor.request(ctx, &wire.Request{Verb: wire.CloseStdin, ID: id}, nil)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	return err
}
