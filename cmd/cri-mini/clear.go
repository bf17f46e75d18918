package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

var stopOnce sync.Once

// stop is a client's wish for the end. The daemon ends after the answer.
func (d *daemon) stop(ctx context.Context, pods bool) error {
	if pods {
		if err := d.clear(ctx); err != nil {
			return err
		}
	}
	stopOnce.Do(func() { close(d.wish) })
	return nil
}

// clear ends everything that this instance made but its images. Called again
// after an error it goes on where it was.
func (d *daemon) clear(ctx context.Context) error {
	d.clearing.Lock()
	defer d.clearing.Unlock()
	d.stopCRI() // else the kubelet starts what we stop
	steps := []struct {
		name string
		do   func(context.Context) error
	}{
		{"pods", d.removePods},
		{"pods", d.pods.Close},
		{"network", func(context.Context) error { return d.network.Destroy() }},
		{"monitor", d.executor.Shutdown},
		{"cgroup", d.removeCgroup},
	}
	for ; d.clearedSteps < len(steps); d.clearedSteps++ {
		step := steps[d.clearedSteps]
		if err := step.do(ctx); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
	}
	d.cleared = true
	return nil
}

// clearAtLast is clear for a daemon that nobody will ask again. What is in its
// way may go by itself: the session of the client that died removes its pod
// at the same time.
func (d *daemon) clearAtLast() (err error) {
	for range 10 {
		if err = d.clear(context.Background()); err == nil {
			return nil
		}
		d.log.Warn("cannot clear up, trying again", "err", err)
		time.Sleep(500 * time.Millisecond)
	}
	return err
}

func (d *daemon) removePods(ctx context.Context) error {
	var pods errgroup.Group
	pods.SetLimit(16)
	for _, sandbox := range d.pods.Sandboxes() {
		pods.Go(func() error {
			if err := d.pods.Stop(ctx, sandbox.ID); err != nil {
				return fmt.Errorf("stop pod %s: %w", sandbox.ID, err)
			}
			return d.pods.Remove(ctx, sandbox.ID)
		})
	}
	return pods.Wait()
}
