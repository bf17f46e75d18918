package main

import (
	"context"

	"cri-mini/internal/admin"
	"cri-mini/internal/config"
)

type stopCmd struct {
	Pods bool `help:"End all pods, and remove network and monitor as well."`
}

func (c *stopCmd) Run(ctx context.Context, e *config.Endpoint) error {
	return daemonAt(e).Stop(ctx, admin.StopRequest{Pods: c.Pods})
}

func daemonAt(e *config.Endpoint) admin.Client { return admin.Client{Path: e.AdminPath()} }
