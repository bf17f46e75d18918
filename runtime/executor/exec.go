package executor

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"cri-mini/internal/crashpoint"
	"cri-mini/internal/undo"
	"cri-mini/runtime/cgroup"
	"cri-mini/runtime/cgroup/systemd"
	"cri-mini/runtime/spawn"
	"cri-mini/runtime/spec"
	"cri-mini/runtime/wire"
)

// execution is a process that joined a container. It lives as long as the
// connection to the monitor, which it has of its own.
type execution struct {
	pid    int
	conn   int
	group  *cgroup.Group
	pidfd  *os.File
	stdin  io.WriteCloser
	stdout io.ReadCloser
	stderr io.ReadCloser
	tty    *os.File

	once   sync.Once
	exited chan struct{} // closed when code and err are set
	code   int
	err    error
}

// execName is unlike any other, of daemons before us as well. A container sees
// it: nothing of the host is in it.
func execName() string { return "exec-" + strings.ToLower(rand.Text()) }

// Exec runs a program in a running container. It gets a group of its own
// below the container's, so that all it starts can be ended with it.
func (e *Executor) Exec(ctx context.Context, id string, p spec.Process, wanted spec.ExecIO) (spec.Execution, error) {
	r, err := e.running(id)
	if err != nil {
		return nil, err
	}
	var back undo.Stack
	defer back.Run()
	group, err := e.cgroups.CreateBelow(systemd.Inside(r.cgroup), execName())
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("container %s is being removed: %w", id, ErrUnknown)
	}
	if err != nil {
		return nil, err
	}
	back.Add(func() error { return group.Remove(context.WithoutCancel(ctx)) })
	crashpoint.Here("exec.group-made")
	dir, err := group.Open()
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	streams, err := makeStreams(p.Terminal, wanted)
	if err != nil {
		return nil, err
	}
	defer streams.theirs.close()
	back.Add(func() error { streams.ours.close(); return nil })

	p.Width, p.Height = wanted.Width, wanted.Height
	program := spawn.Exec(e.limits.apply(p), spawn.Surroundings{User: r.user, Copy: r.tracer, LastCap: e.limits.lastCap})
	parts := streams.theirs.with(files{"target": r.files["pidfd"]})
	task, extra := wire.TaskSpec{Cgroup: true, Bound: true}, []*os.File{dir}
	if p.Terminal {
		task.Terminal = true
		extra = append(extra, streams.socket)
	}
	request, send, err := spawnRequest("", program, parts, task, extra)
	if err != nil {
		return nil, err
	}
	var conn int
	var answer *wire.Answer
	var got files
	if err := untilHeard(ctx, func() (err error) {
		conn, answer, got, err = e.monitor.bound(ctx, request, send)
		return err
	}); err != nil {
		return nil, err
	}
	if _, _, err := checked(program, answer, got); err != nil {
		unix.Close(conn)
		return nil, err
	}
	crashpoint.Here("exec.started")
	back.Keep()
	x := &execution{pid: int(answer.PID), conn: conn, group: group, pidfd: got["pidfd"], exited: make(chan struct{})}
	x.connect(streams, got)
	go x.wait()
	return x, nil
}

// connect keeps our ends of the streams, as files whose reads end with Close.
func (x *execution) connect(s *streams, got files) {
	if f := got["terminal"]; f != nil {
		x.tty = pollable(f)
		x.stdin, x.stdout = x.tty, terminalReader{x.tty}
		return
	}
	if f := s.ours["stdin"]; f != nil {
		x.stdin = pollable(f)
	}
	if f := s.ours["stdout"]; f != nil {
		x.stdout = pollable(f)
	}
	if f := s.ours["stderr"]; f != nil {
		x.stderr = pollable(f)
	}
}

// wait receives the exit.
func (x *execution) wait() {
	defer close(x.exited)
	answer, got, err := receive(x.conn)
	got.close()
	switch {
	case err != nil:
		x.err = fmt.Errorf("the exit of process %d was not told: %w", x.pid, diedOr(err))
	case len(answer.Tasks) != 1:
		x.err = fmt.Errorf("the exit of process %d was not told: %d tasks", x.pid, len(answer.Tasks))
	default:
		x.code = int(answer.Tasks[0].Code)
	}
}

func (x *execution) PID() int              { return x.pid }
func (x *execution) Stdin() io.WriteCloser { return x.stdin }
func (x *execution) Stdout() io.ReadCloser { return x.stdout }
func (x *execution) Stderr() io.ReadCloser { return x.stderr }

func (x *execution) Resize(width, height uint16) error { return resize(x.tty, width, height) }

func (x *execution) Wait(ctx context.Context) (int, error) {
	select {
	case <-x.exited:
		return x.code, x.err
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

func (x *execution) Kill() error { return x.group.Kill() }

// Close ends the process if it still runs and lets everything go.
func (x *execution) Close() error {
	var err error
	x.once.Do(func() {
		err = x.group.Kill()
		<-x.exited
		unix.Close(x.conn)
		x.pidfd.Close()
		for _, c := range []io.Closer{x.stdin, x.stdout, x.stderr} {
			if c != nil && !isNil(c) {
				c.Close()
			}
		}
		crashpoint.Here("exec.ended")
		err = errors.Join(err, x.group.Remove(context.Background()))
		crashpoint.Here("exec.group-gone")
	})
	return err
}

func isNil(c io.Closer) bool { f, ok := c.(*os.File); return ok && f == nil }
