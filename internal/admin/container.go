package admin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"time"

	"golang.org/x/sys/unix"

	"cri-mini/internal/undo"
	"cri-mini/podsandbox"
	"cri-mini/podsandbox/history"
)

// exec starts a program in a container; it dies with the conversation.
func (s *Server) exec(ctx context.Context, r ExecRequest) (*talk, error) {
	c, err := s.Pods.Container(r.Container)
	if err != nil {
		return nil, err
	}
	run, err := c.Exec(context.WithoutCancel(ctx), r.Args, r.TTY, podsandbox.ExecIO{Stdin: r.Stdin, Stdout: true, Stderr: !r.TTY})
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, &StartError{Code: 127, Words: err.Error()}
	case errors.Is(err, fs.ErrPermission):
		return nil, &StartError{Code: 126, Words: err.Error()}
	case err != nil:
		return nil, err
	}
	setSize(run.Resize, r.TTY, r.Size)
	p := program{resize: run.Resize, wait: run.Wait, stdin: run.Stdin(), stdout: run.Stdout(), stderr: run.Stderr()}
	if r.TTY && p.stdin != nil {
		p.stdin = noEnd{p.stdin}
	}
	// The process was just started, so its number is still its own.
	pidfd, err := unix.PidfdOpen(run.PID(), 0)
	p.signal = func(n int) error {
		if err != nil {
			return err
		}
		return unix.PidfdSendSignal(pidfd, unix.Signal(n), nil, 0)
	}
	return &talk{program: p, end: func() {
		if err == nil {
			unix.Close(pidfd)
		}
		if err := run.Close(); err != nil {
			s.Log.Warn("exec did not end clean", "container", c.ID, "err", err)
		}
	}}, nil
}

// attach joins a container's streams; it goes on when the client leaves.
func (s *Server) attach(ctx context.Context, r AttachRequest) (*talk, error) {
	c, err := s.Pods.Container(r.Container)
	if err != nil {
		return nil, err
	}
	view, err := c.Attach(ctx)
	if err != nil {
		return nil, err
	}
	return &talk{program: s.watch(c, view), end: func() { view.Close() }}, nil
}

// run makes a pod for the length of the conversation.
func (s *Server) run(ctx context.Context, r RunRequest) (*talk, error) {
	if r.Pod == nil || r.Container == nil || r.Container.Image == nil {
		return nil, errors.New("run: pod, container and its image must be given")
	}
	ctx = history.Asked(ctx, "cri-mini run")
	var back undo.Stack
	defer back.Run()
	if r.Rootfs != "" {
		img, err := s.Images.BorrowRootfs(ctx, r.Rootfs, r.Pod.GetMetadata().GetUid())
		if err != nil {
			return nil, fmt.Errorf("--rootfs %q: %w", r.Rootfs, err)
		}
		back.Add(func() error { return s.Images.Remove(img.ID) })
		r.Container.Image.Image = img.ID
	}
	pod, err := s.Pods.Run(ctx, r.Pod, "")
	if err != nil {
		return nil, err
	}
	remove := func() error { return s.removePod(pod) }
	back.Add(remove)
	id, err := s.Pods.Create(ctx, pod, r.Container)
	if err != nil {
		return nil, err
	}
	c, err := s.Pods.Container(id)
	if err != nil {
		return nil, err
	}
	view, err := c.StartAttached(ctx)
	if err != nil {
		return nil, &StartError{Code: int(c.Status().ExitCode), Words: err.Error()}
	}
	setSize(view.Resize, r.Container.Tty, r.Size)
	rest := back
	back.Keep()
	return &talk{program: s.watch(c, view), end: func() {
		view.Close()
		rest.Run()
	}}, nil
}

// setSize comes as early as can be, for a program may look at once. That it
// came too late for one is no failure.
func setSize(resize func(width, height uint16) error, tty bool, s Size) {
	if tty && s != (Size{}) {
		if err := resize(s.Width, s.Height); err != nil {
			slog.Debug("terminal not sized", "err", err)
		}
	}
}

// endPatience is how long a pod that nobody wants any more may take to go.
const endPatience = 30 * time.Second

func (s *Server) removePod(pod string) error {
	ctx, cancel := context.WithTimeout(history.Asked(context.Background(), "the end of cri-mini run"), endPatience)
	defer cancel()
	if err := s.Pods.Stop(ctx, pod); err != nil {
		return fmt.Errorf("stop pod %s: %w", pod, err)
	}
	return s.Pods.Remove(ctx, pod)
}

// watch is a container's first process as a program to talk about.
func (s *Server) watch(c *podsandbox.Container, view podsandbox.Attachment) program {
	p := program{
		resize: view.Resize,
		signal: func(n int) error { return s.Signal(c.ID, n) },
		wait: func(ctx context.Context) (int, error) {
			if err := c.Wait(ctx); err != nil {
				return 0, err
			}
			return int(c.Status().ExitCode), nil
		},
		stdin: view.Stdin(), stdout: view.Stdout(), stderr: view.Stderr(),
	}
	if c.Status().Config.GetTty() && p.stdin != nil {
		p.stdin = noEnd{p.stdin}
	}
	return p
}

// noEnd is the stdin of a terminal, which is one thing for both directions
// and must not be closed with one of them.
type noEnd struct{ io.Writer }

func (noEnd) Close() error { return nil }
