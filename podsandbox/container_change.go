package podsandbox

import (
	"context"
	"encoding/json"
	"fmt"

	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"cri-mini/internal/crashpoint"
	"cri-mini/podsandbox/history"
	"cri-mini/podsandbox/plan"
)

// ReopenLog makes the log continue in a new file, after the old one was
// renamed.
func (c *Container) ReopenLog(ctx context.Context) error {
	running, err := c.running("reopen the log")
	if err != nil {
		return err
	}
	if running.LogPath == "" {
		return nil
	}
	if err := c.Sandbox.pods.opt.Executor.ReopenLog(ctx, c.ID, running.LogPath); err != nil {
		return fmt.Errorf("reopen the log of container %s: %w", c.ID, err)
	}
	return nil
}

// Update changes the limits that r names and leaves the others. After an error
// nothing has changed.
func (c *Container) Update(ctx context.Context, r *criapi.LinuxContainerResources) (err error) {
	asked, err := plan.Resources(plan.UpdateField, r)
	if err != nil {
		return err
	}
	w := c.work(ctx, history.UpdateContainer)
	defer func() { w.deed.End(err) }()
	done, err := c.turn.take(ctx, w)
	if err != nil {
		return fmt.Errorf("%s: %w", w.name, err)
	}
	defer done()
	c.mu.Lock()
	current, merged := c.spec, plan.MergeResources(c.resources, r)
	state, gone := c.stateLocked(), c.gone
	c.mu.Unlock()
	if gone {
		return fmt.Errorf("update container %s: %w: it is being removed", c.ID, ErrNotFound)
	}
	if state == criapi.ContainerState_CONTAINER_EXITED {
		return fmt.Errorf("update container %s: %w: it is %s", c.ID, ErrFailedPrecondition, stateText(state))
	}
	limits, err := plan.Resources(plan.UpdateField, merged)
	if err != nil {
		return err
	}
	limits.AllDevices = current.Resources.AllDevices
	// The limit on memory and swap together is kept by one on swap alone, which
	// is another one when that on memory changes.
	if asked.MemoryLimit != 0 && asked.MemorySwapLimit == 0 {
		asked.MemorySwapLimit = limits.MemorySwapLimit
	}
	// What runs has its group, whichever daemon prepared it. One that was created
	// by an earlier daemon gets the limits when it is prepared again.
	if c.prepared || state == criapi.ContainerState_CONTAINER_RUNNING {
		if err := c.Sandbox.pods.opt.Executor.Update(ctx, current, asked); err != nil {
			return fmt.Errorf("update container %s: %w", c.ID, asInput(err, c.config, plan.UpdateField))
		}
	}
	crashpoint.Here("update.limits-changed")
	c.mu.Lock()
	c.resources, c.spec.Resources = merged, limits
	c.mu.Unlock()
	// Written last: a status that tells of limits not in force would keep the
	// kubelet from asking again.
	encoded, err := encode(merged)
	if err != nil {
		return err
	}
	if err := c.write("resources.json", encoded); err != nil {
		c.Sandbox.pods.log.Error("cannot write a record", "container", c.ID, "file", "resources.json", "err", err)
	}
	crashpoint.Here("update.recorded")
	return nil
}

// loadResources reads the limits of the last update, if there was one.
func (c *Container) loadResources() error {
	var encoded json.RawMessage
	found, err := readOptional(c.dir.path("resources.json"), &encoded)
	if err != nil || !found {
		return err
	}
	current := new(criapi.LinuxContainerResources)
	if err := decode(encoded, current); err != nil {
		return fmt.Errorf("resources.json: %w", err)
	}
	limits, err := plan.Resources("", current)
	if err != nil {
		return fmt.Errorf("resources.json: %w", err)
	}
	limits.AllDevices = c.spec.Resources.AllDevices
	c.resources, c.spec.Resources = current, limits
	return nil
}
