package podsandbox

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"

	"golang.org/x/sync/errgroup"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"cri-mini/runtime/spec"
)

// ContainerStats is what a running container uses.
type ContainerStats struct {
	Status ContainerStatus
	Usage  spec.Stats
	// NanoCores is the processor time used per second lately, in nanoseconds;
	// nil while it is not known.
	NanoCores *uint64
	// Writable is the latest figure of the writable layer; nil before the
	// first.
	Writable *spec.DiskUsage
}

// Stats tells what the container uses. One that ended has used what it has
// used, until it is removed or the node reboots.
func (c *Container) Stats() (ContainerStats, error) {
	status := c.Status()
	usage, err := c.usage(status)
	if errors.Is(err, spec.ErrUnknown) {
		return ContainerStats{}, fmt.Errorf("stats of container %s: %w: it is %s and has no control group",
			c.ID, ErrFailedPrecondition, stateText(status.State))
	}
	if err != nil {
		return ContainerStats{}, fmt.Errorf("stats of container %s: %w", c.ID, err)
	}
	return ContainerStats{Status: status, Usage: usage, NanoCores: c.meter.see(usage), Writable: c.meter.layer()}, nil
}

func (c *Container) usage(status ContainerStatus) (spec.Stats, error) {
	return c.Sandbox.pods.opt.Executor.Stats(status.Spec.Cgroup, status.Resources.GetCpuShares())
}

// ContainerStats tells what all running containers use that match. One that
// cannot be measured is left out: it must not hide the others.
func (p *Pods) ContainerStats(ctx context.Context, match func(ContainerStatus) bool) ([]ContainerStats, error) {
	return measured(ctx, p.Containers(), func(c *Container) (ContainerStats, bool) {
		status := c.Status()
		if status.State != criapi.ContainerState_CONTAINER_RUNNING || !match(status) {
			return ContainerStats{}, false
		}
		return p.orMissing(c)
	})
}

func (p *Pods) orMissing(c *Container) (ContainerStats, bool) {
	stats, err := c.Stats()
	if err == nil {
		return stats, true
	}
	if c.state() == criapi.ContainerState_CONTAINER_RUNNING { // else it ended while we looked
		p.log.Warn("cannot measure a container", "container", c.ID, "err", err)
	}
	return stats, false
}

// measured asks for many things at the same time, a few at once, and keeps
// their order.
func measured[T, S any](ctx context.Context, things []T, measure func(T) (S, bool)) ([]S, error) {
	stats, there := make([]S, len(things)), make([]bool, len(things))
	var all errgroup.Group
	all.SetLimit(runtime.GOMAXPROCS(0))
	for i, thing := range things {
		all.Go(func() error {
			if ctx.Err() == nil {
				stats[i], there[i] = measure(thing)
			}
			return ctx.Err()
		})
	}
	if err := all.Wait(); err != nil {
		return nil, err
	}
	i := -1
	return slices.DeleteFunc(stats, func(S) bool { i++; return !there[i] }), nil
}
