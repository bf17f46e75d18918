package main

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"cri-mini/internal/config"
	"cri-mini/internal/crashpoint"
	"cri-mini/internal/timerslack"
)

type serveCmd struct {
	config.Config `embed:""`

	// Private makes a daemon for one command: when its stdin ends, however the
	// command died, it ends with all its pods and removes this folder.
	Private string `hidden:""`

	// CrashPoints is a folder in which tests arm points; see package crashpoint.
	CrashPoints string `hidden:""`
}

// Run is the daemon, from its first log line to its last.
func (c *serveCmd) Run(ctx context.Context, e *config.Endpoint) error {
	// What whoever started us forgot to close is neither the monitor's nor a
	// plugin's.
	if err := unix.CloseRange(3, ^uint(0)>>32, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return fmt.Errorf("close descriptors on exec: %w", err)
	}
	d := &daemon{Config: c.Config, endpoint: *e, private: c.Private, wish: make(chan struct{})}
	if c.CrashPoints != "" {
		if err := crashpoint.Watch(c.CrashPoints); err != nil {
			return err
		}
	}
	timerslack.Relax() // without, it is slower
	defer d.closeInTime()
	for _, step := range []struct {
		name string
		open func(context.Context) error
	}{
		{"log", d.openLog},
		{"stored descriptors", d.openStore},
		{"streams", d.openStreams},
		{"lock", d.openLocks},
		{"sockets", d.openSockets},
		{"image store", d.openImages},
		{"control groups", d.openCgroups},
		{"executor", d.openExecutor},
		{"network", d.openNetwork},
		{"history", d.openHistory},
		{"pods", d.openPods},
		{"monitor", d.upgradeMonitor},
	} {
		begun := time.Now()
		if err := step.open(ctx); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
		d.log.Debug("opened", "part", step.name, "took", time.Since(begun))
	}
	d.serveAll()
	d.announce()
	return d.waitForEnd(ctx)
}
