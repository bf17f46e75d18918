package podsandbox

import (
	"context"
	"fmt"
	"time"

	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"cri-mini/runtime/spec"
)

// killTime is how long the kernel may take to end a killed process. One that
// waits for a dead disk or file server takes longer, and nobody can help it.
const killTime = 10 * time.Second

// Stop asks the container to end and kills it after grace. A container that
// never started will not any more. Calls at the same time share one signal, and
// the shortest grace counts.
func (c *Container) Stop(ctx context.Context, grace time.Duration) error {
	running, err := c.runsOrNeverWill(ctx)
	if err != nil || !running {
		return err
	}
	if grace > 0 {
		ended, err := c.ask(ctx, grace)
		if err != nil || ended {
			return err
		}
	}
	return c.kill(ctx)
}

// end kills the container at once.
func (c *Container) end(ctx context.Context) error { return c.Stop(ctx, 0) }

// runsOrNeverWill waits for a start under way and ends a container that did
// not start.
func (c *Container) runsOrNeverWill(ctx context.Context) (running bool, err error) {
	done, err := c.turn.take(ctx)
	if err != nil {
		return false, fmt.Errorf("stop container %s: wait for its start: %w", c.ID, err)
	}
	defer done()
	switch c.state() {
	case criapi.ContainerState_CONTAINER_RUNNING:
		return true, nil
	case criapi.ContainerState_CONTAINER_CREATED:
		c.finish(end{
			Exit:    spec.Exit{Code: 137, At: time.Now()},
			Reason:  "Error",
			Message: "stopped before it was started",
		})
	}
	return false, nil
}

// ask sends the stop signal, unless another call did, and waits.
func (c *Container) ask(ctx context.Context, grace time.Duration) (ended bool, err error) {
	c.mu.Lock()
	first := c.stops == 0
	c.stops++
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.stops--
	}()
	if first {
		if err := c.Sandbox.pods.opt.Executor.Signal(c.ID, int(c.stopSignal)); err != nil {
			return false, fmt.Errorf("stop container %s: signal: %w", c.ID, err)
		}
	}
	return c.wait(ctx, grace, "grace")
}

func (c *Container) kill(ctx context.Context) error {
	if err := c.Sandbox.pods.opt.Executor.Kill(c.ID); err != nil {
		return fmt.Errorf("stop container %s: kill: %w", c.ID, err)
	}
	ended, err := c.wait(ctx, killTime, "its end")
	if err == nil && !ended {
		err = fmt.Errorf("stop container %s: %w: it still runs %s after it was killed", c.ID, ErrTimeout, killTime)
	}
	return err
}

func (c *Container) wait(ctx context.Context, limit time.Duration, what string) (ended bool, err error) {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-c.exited:
		return true, nil
	case <-timer.C:
		return false, nil
	case <-ctx.Done():
		return false, fmt.Errorf("stop container %s: wait for %s: %w", c.ID, what, ctx.Err())
	}
}
