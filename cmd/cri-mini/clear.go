package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

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
	d.stopCRI() // else the kubelet starts what we stop
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
	if err := pods.Wait(); err != nil {
		return err
	}
	if err := d.pods.Close(ctx); err != nil {
		return err
	}
	if err := d.network.Destroy(); err != nil {
		return fmt.Errorf("network: %w", err)
	}
	if err := d.executor.Shutdown(ctx); err != nil {
		return fmt.Errorf("monitor: %w", err)
	}
	parent := filepath.Join(d.executor.Cgroups().Path, d.cgroupParent())
	if err := os.Remove(parent); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cgroup: %w", err)
	}
	d.cleared = true
	return nil
}
