package podsandbox

import (
	"context"
	"fmt"
	"time"

	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"cri-mini/internal/crashpoint"
	"cri-mini/podsandbox/history"
	"cri-mini/runtime/spec"
)

// killTime is how long the kernel may take to end a killed process. One that
// waits for a dead disk or file server takes longer, and nobody can help it.
const killTime = 10 * time.Second

// Stop asks the container to end and kills it after grace. A container that
// never started will not any more. Calls at the same time share one signal, and
// the shortest grace counts.
func (c *Container) Stop(ctx context.Context, grace time.Duration) (err error) {
	s := &stop{c, c.work(ctx, history.StopContainer)}
	defer func() { s.deed.End(err) }()
	defer workOf(ctx).waits(s.work)()
	ended := c.state() == criapi.ContainerState_CONTAINER_EXITED
	running, err := s.runsOrNeverWill(ctx)
	if ended && err == nil {
		s.deed.Forget() // the kubelet repeats the call
	}
	if err != nil || !running {
		return err
	}
	if grace > 0 {
		ended, err := s.ask(ctx, grace)
		if err != nil || ended {
			return err
		}
	}
	return s.kill(ctx)
}

// end kills the container at once.
func (c *Container) end(ctx context.Context) error { return c.Stop(ctx, 0) }

// stop is one call of Stop.
type stop struct {
	*Container
	*work
}

// runsOrNeverWill waits for a start under way and ends a container that did
// not start.
func (s *stop) runsOrNeverWill(ctx context.Context) (running bool, err error) {
	done, err := s.turn.take(ctx, s.work)
	if err != nil {
		return false, fmt.Errorf("%s: %w", s.name, err)
	}
	defer done()
	switch s.state() {
	case criapi.ContainerState_CONTAINER_RUNNING:
		return true, nil
	case criapi.ContainerState_CONTAINER_CREATED:
		s.finish(end{
			Exit:    spec.Exit{Code: 137, At: time.Now()},
			Reason:  "Error",
			Message: "stopped before it was started",
		})
	}
	return false, nil
}

// ask sends the stop signal, unless another call did, and waits.
func (s *stop) ask(ctx context.Context, grace time.Duration) (ended bool, err error) {
	c := s.Container
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
	crashpoint.Here("stop.signalled")
	s.at(fmt.Sprintf("waiting up to %s for its end after the stop signal", grace))
	return s.wait(ctx, grace)
}

func (s *stop) kill(ctx context.Context) error {
	if err := s.Sandbox.pods.opt.Executor.Kill(s.ID); err != nil {
		return fmt.Errorf("stop container %s: kill: %w", s.ID, err)
	}
	crashpoint.Here("stop.killed")
	s.at(history.Killed)
	ended, err := s.wait(ctx, killTime)
	if err == nil && !ended {
		err = fmt.Errorf("stop container %s: %w: it still runs %s after it was killed", s.ID, ErrTimeout, killTime)
	}
	return err
}

func (s *stop) wait(ctx context.Context, limit time.Duration) (ended bool, err error) {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-s.exited:
		return true, nil
	case <-timer.C:
		return false, nil
	case <-ctx.Done():
		return false, fmt.Errorf("%s: %w", s.work, ctx.Err())
	}
}
