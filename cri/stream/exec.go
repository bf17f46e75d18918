package stream

import (
	"context"
	"fmt"
	"io"
	"log/slog"

	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
	utilexec "k8s.io/utils/exec"

	"cri-mini/podsandbox"
)

// Exec runs a program for the length of one connection.
func (r *runtime) Exec(ctx context.Context, container string, args []string, in io.Reader, out, errOut io.WriteCloser, tty bool, resize <-chan remotecommand.TerminalSize) error {
	run, err := r.pods.Exec(ctx, container, args, tty, podsandbox.ExecIO{
		Stdin:  in != nil,
		Stdout: out != nil || tty,
		Stderr: errOut != nil && !tty,
	})
	if err != nil {
		return err
	}
	defer run.Close()
	// A client that left cannot end the program, so we do.
	stop := context.AfterFunc(ctx, func() {
		if err := run.Kill(); err != nil {
			slog.Warn("cannot kill the program of a lost exec", "container", container, "err", err)
		}
	})
	defer stop()

	if in != nil {
		go feed(run.Stdin(), in, tty)
	}
	go follow(ctx, resize, run.Resize)
	var output drain
	output.copy(out, run.Stdout())
	output.copy(errOut, run.Stderr())

	code, err := run.Wait(ctx)
	if err != nil {
		return fmt.Errorf("wait for the program: %w", err)
	}
	output.settle(ctx)
	if code != 0 {
		return utilexec.CodeExitError{Err: fmt.Errorf("exit code %d", code), Code: code}
	}
	return nil
}

// Attach shows the streams of a container's first process for the length of
// one connection.
func (r *runtime) Attach(ctx context.Context, container string, in io.Reader, out, errOut io.WriteCloser, tty bool, resize <-chan remotecommand.TerminalSize) error {
	view, err := r.pods.Attach(ctx, container)
	if err != nil {
		return err
	}
	defer view.Close()
	// Closing the view ends its reads, and with them the copying below.
	stop := context.AfterFunc(ctx, func() { view.Close() })
	defer stop()

	if in != nil && view.Stdin() != nil {
		go feed(view.Stdin(), in, tty)
	}
	if tty {
		go follow(ctx, resize, view.Resize)
	}
	var output drain
	output.copy(out, view.Stdout())
	output.copy(errOut, view.Stderr())
	output.wait()
	return nil
}

// feed ends with the client's half of the stream, or when the program takes
// no more. A terminal is one thing for both directions and stays open.
func feed(stdin io.WriteCloser, in io.Reader, tty bool) {
	io.Copy(stdin, in)
	if !tty {
		stdin.Close()
	}
}

// follow passes on the sizes of the client's terminal.
func follow(ctx context.Context, sizes <-chan remotecommand.TerminalSize, resize func(width, height uint16) error) {
	for {
		select {
		case <-ctx.Done():
			return
		case size, more := <-sizes: // nil, and silent, without a terminal
			if !more {
				return
			}
			if err := resize(size.Width, size.Height); err != nil {
				slog.Debug("terminal not resized", "err", err)
			}
		}
	}
}
