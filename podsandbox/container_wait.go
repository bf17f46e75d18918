package podsandbox

import "context"

// Wait returns when the container has ended.
func (c *Container) Wait(ctx context.Context) error {
	select {
	case <-c.exited:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
