package podsandbox

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"time"

	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"cri-mini/internal/crashpoint"
	"cri-mini/podsandbox/history"
	"cri-mini/runtime/spec"
)

// Start runs a created container; it returns when the program was executed, or
// why it could not be. A container that could not start has ended.
func (c *Container) Start(ctx context.Context) error {
	_, err := c.Sandbox.pods.ops.do(ctx, c.order(history.StartContainer),
		func(ctx context.Context, op *operation) (string, error) {
			return c.ID, c.startNow(ctx, op, c.Sandbox.pods.opt.Executor.Start)
		})
	return err
}

// StartAttached is Start with a view on the streams that misses nothing.
func (c *Container) StartAttached(ctx context.Context) (Attachment, error) {
	var handed handover
	want := c.order(history.StartContainer)
	want.key = "start and attach to container " + c.ID
	_, err := c.Sandbox.pods.ops.do(ctx, want,
		func(ctx context.Context, op *operation) (string, error) {
			return c.ID, c.startNow(ctx, op, func(ctx context.Context, id string) (Started, error) {
				started, view, err := c.Sandbox.pods.opt.Executor.StartAttached(ctx, id)
				handed.give(view)
				return started, err
			})
		})
	view := handed.take()
	if err != nil {
		if view != nil {
			view.Close()
		}
		return nil, err
	}
	if view == nil { // a second call that joined the first
		return nil, fmt.Errorf("attach to container %s: %w: another call starts it", c.ID, ErrFailedPrecondition)
	}
	return view, nil
}

// handover passes a view to a caller who may have left.
type handover struct {
	mu    sync.Mutex
	view  Attachment
	taken bool
}

func (h *handover) give(view Attachment) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.taken && view != nil {
		view.Close()
		return
	}
	h.view = view
}

func (h *handover) take() Attachment {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.taken = true
	return h.view
}

func (c *Container) startNow(ctx context.Context, op *operation, start func(context.Context, string) (Started, error)) error {
	done, err := c.turn.take(ctx, op.work)
	if err != nil {
		return err
	}
	defer done()
	if err := c.startable(); err != nil {
		return err
	}
	if !c.prepared {
		op.at("preparing it again")
		if err := c.prepare(ctx); err != nil {
			if ctx.Err() == nil {
				c.finish(couldNotStart(err))
			}
			return err
		}
		c.prepared = true
		crashpoint.Here("start.prepared-again")
	}
	op.at("starting the program")
	// Once asked for, a start cannot be taken back: a caller who leaves must
	// not leave it in doubt.
	c.mu.Lock()
	c.starting = true
	c.mu.Unlock()
	started, err := start(context.WithoutCancel(ctx), c.ID)
	crashpoint.Here("start.returned")
	c.mu.Lock()
	c.starting = false
	if err == nil {
		c.started = started
	}
	c.mu.Unlock()
	if err != nil {
		err = asInput(err, c.config, "")
		// The answer may have been lost on the way, and the program run.
		c.finish(couldNotStart(err))
		c.tell() // an end that was known before
		return errors.Join(err, c.Sandbox.pods.opt.Executor.Kill(c.ID))
	}
	c.keep("start.json", started)
	crashpoint.Here("start.recorded")
	c.tell()
	c.Sandbox.pods.measure(c, started.At)
	return nil
}

// startable is checked while holding the turn, so that a pod that begins to
// stop finds either no start or a running container.
func (c *Container) startable() error {
	if state := c.state(); state != criapi.ContainerState_CONTAINER_CREATED {
		return fmt.Errorf("%w: it is %s", ErrFailedPrecondition, stateText(state))
	}
	c.mu.Lock()
	gone := c.gone
	c.mu.Unlock()
	if gone {
		return fmt.Errorf("%w: it is being removed", ErrFailedPrecondition)
	}
	if !c.Sandbox.ready() {
		return errPodStops
	}
	return nil
}

// prepare does again what the daemon before us did when the container was
// created.
func (c *Container) prepare(ctx context.Context) error {
	c.mu.Lock()
	planned := c.spec
	c.mu.Unlock()
	executor := c.Sandbox.pods.opt.Executor
	root, err := executor.MountRootfs(ctx, c.ID, planned.Rootfs)
	if err != nil {
		return fmt.Errorf("root file system: %w", err)
	}
	if err := root.Close(); err != nil {
		return err
	}
	return executor.Prepare(ctx, planned)
}

// couldNotStart gives the exit codes that a shell gives.
func couldNotStart(err error) end {
	e := end{Exit: spec.Exit{Code: 128, At: time.Now()}, Reason: "StartError", Message: err.Error()}
	switch {
	case !errors.Is(err, spec.ErrExecute):
	case errors.Is(err, fs.ErrNotExist):
		e.Code, e.Reason = 127, "ContainerCannotRun"
	case errors.Is(err, fs.ErrPermission):
		e.Code, e.Reason = 126, "ContainerCannotRun"
	}
	return e
}
