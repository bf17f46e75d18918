package podsandbox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"cri-mini/podsandbox/plan"
	"cri-mini/runtime/spec"
)

const (
	// outputLimit is how much of each output ExecSync keeps: both fit into the
	// message of 16 MiB that the kubelet takes. The rest is read and dropped,
	// so that the program does not stop.
	outputLimit = 8<<20 - 4<<10
	// drainTime is how long ExecSync reads on after the program ended: what it
	// left running in the background may hold the pipes for ever.
	drainTime = 100 * time.Millisecond
)

// Exec joins a process to the running container.
func (c *Container) Exec(ctx context.Context, argv []string, tty bool, streams ExecIO) (Execution, error) {
	running, err := c.running("exec")
	if err != nil {
		return nil, err
	}
	process, err := plan.Exec(running.Process, argv, tty)
	if err != nil {
		return nil, err
	}
	execution, err := c.Sandbox.pods.opt.Executor.Exec(ctx, c.ID, process, streams)
	if err == nil {
		return execution, nil
	}
	if _, ended := c.running("exec"); ended != nil && !errors.Is(err, spec.ErrExecute) {
		return nil, fmt.Errorf("%w (%v)", ended, err) // that is why
	}
	return nil, fmt.Errorf("exec in container %s: %w", c.ID, err)
}

// ExecSync runs argv in the container and gives its output and exit code. With
// a timeout the process and all it started is killed when that ends, and the
// error is ErrTimeout.
func (c *Container) ExecSync(ctx context.Context, argv []string, timeout time.Duration) (stdout, stderr []byte, code int32, err error) {
	wait := ctx
	if timeout > 0 {
		var cancel context.CancelFunc
		wait, cancel = context.WithTimeoutCause(ctx, timeout, fmt.Errorf("%w after %s", ErrTimeout, timeout))
		defer cancel()
	}
	execution, err := c.Exec(wait, argv, false, ExecIO{Stdout: true, Stderr: true})
	if err != nil {
		return nil, nil, 0, c.execError(wait, err)
	}
	defer execution.Close()

	var out, errs limited
	var readers sync.WaitGroup
	readers.Go(func() { out.fill(execution.Stdout()) })
	readers.Go(func() { errs.fill(execution.Stderr()) })
	status, err := execution.Wait(wait)
	if err != nil {
		return nil, nil, 0, errors.Join(c.execError(wait, err), execution.Kill())
	}
	drained := make(chan struct{})
	go func() { readers.Wait(); close(drained) }()
	select {
	case <-drained:
	case <-time.After(drainTime):
	}
	return out.take(), errs.take(), int32(status), nil
}

func (c *Container) execError(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); errors.Is(cause, ErrTimeout) {
		return fmt.Errorf("exec in container %s: %w", c.ID, cause)
	}
	return err
}

// limited keeps the beginning of a stream.
type limited struct {
	mu   sync.Mutex
	data []byte
}

func (l *limited) fill(r io.Reader) {
	buffer := make([]byte, 32<<10)
	for {
		n, err := r.Read(buffer)
		l.mu.Lock()
		l.data = append(l.data, buffer[:min(n, outputLimit-len(l.data))]...)
		l.mu.Unlock()
		if err != nil {
			return // the end, or our own Close
		}
	}
}

func (l *limited) take() []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.data
}

// Attach gives a view on the streams of the running container.
func (c *Container) Attach(ctx context.Context) (Attachment, error) {
	if _, err := c.running("attach"); err != nil {
		return nil, err
	}
	attachment, err := c.Sandbox.pods.opt.Executor.Attach(ctx, c.ID)
	if err != nil {
		return nil, fmt.Errorf("attach to container %s: %w", c.ID, err)
	}
	return attachment, nil
}
