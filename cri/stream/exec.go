package stream

import (
	"context"
	"fmt"
	"io"
	"log/slog"

	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"cri-mini/podsandbox"
)

// exec runs a program for the length of one connection.
func (s *Server) exec(ctx context.Context, q *criapi.ExecRequest, c *remote) error {
	var first size
	if q.Tty {
		first = firstSize(c.sizes)
	}
	run, err := s.pods.Exec(ctx, q.ContainerId, q.Cmd, q.Tty, podsandbox.ExecIO{
		Stdin:  c.in != nil,
		Stdout: c.out != nil || q.Tty,
		Stderr: c.errOut != nil && !q.Tty,
		Width:  first.Width, Height: first.Height,
	})
	if err != nil {
		return err
	}
	defer run.Close()
	// A client that left cannot end the program, so we do; and when we panic.
	kill := func() {
		if err := run.Kill(); err != nil {
			slog.Warn("cannot kill the program of a lost exec", "container", q.ContainerId, "err", err)
		}
	}
	stop := context.AfterFunc(ctx, func() { guarded(ctx, "kill the program", kill) })
	ended := false
	defer func() {
		if stop() && !ended {
			kill()
		}
	}()

	if c.in != nil {
		begin(ctx, "feed the program", func() { feed(run.Stdin(), c.in, q.Tty) })
	}
	if q.Tty {
		begin(ctx, "size the terminal", func() { follow(ctx, c.sizes, run.Resize) })
	}
	output := drain{ctx: ctx}
	output.copy(c.out, run.Stdout())
	output.copy(c.errOut, run.Stderr())

	code, err := run.Wait(ctx)
	if err != nil {
		return fmt.Errorf("wait for the program: %w", err)
	}
	ended = true
	output.settle()
	if code != 0 {
		return &exitError{code}
	}
	return nil
}

// attach shows the streams of a container's first process for the length of
// one connection.
func (s *Server) attach(ctx context.Context, q *criapi.AttachRequest, c *remote) error {
	view, err := s.pods.Attach(ctx, q.ContainerId)
	if err != nil {
		return err
	}
	defer view.Close()
	// Closing the view ends its reads, and with them the copying below.
	stop := context.AfterFunc(ctx, func() { guarded(ctx, "end an attachment", func() { view.Close() }) })
	defer stop()

	if c.in != nil {
		begin(ctx, "feed the container", func() { feed(view.Stdin(), c.in, q.Tty) })
	}
	if q.Tty {
		begin(ctx, "size the terminal", func() { follow(ctx, c.sizes, view.Resize) })
	}
	output := drain{ctx: ctx}
	output.copy(c.out, view.Stdout())
	output.copy(c.errOut, view.Stderr())
	output.wait()
	return nil
}

// feed ends with the client's half of the stream, or when the program takes
// no more. A terminal is one thing for both directions and stays open.
func feed(stdin io.WriteCloser, in io.Reader, tty bool) {
	if stdin != nil {
		io.Copy(stdin, in)
		if !tty {
			stdin.Close()
		}
	}
	io.Copy(io.Discard, in) // what nobody takes must not hold the connection
}

// follow passes on the sizes of the client's terminal.
func follow(ctx context.Context, sizes <-chan size, resize func(width, height uint16) error) {
	for {
		select {
		case <-ctx.Done():
			return
		case next, more := <-sizes: // nil, and silent, without a terminal
			if !more {
				return
			}
			if err := resize(next.Width, next.Height); err != nil {
				slog.Debug("terminal not resized", "err", err)
			}
		}
	}
}
