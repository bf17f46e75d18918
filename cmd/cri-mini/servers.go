package main

import (
	"context"
	"errors"
	"net/http"

	"cri-mini/cri"
	"cri-mini/internal/admin"
)

// serveAll begins to answer on the sockets.
func (d *daemon) serveAll() {
	d.failures = make(chan error, 3)
	d.serveStreams()
	d.serveCRI()
	d.serveAdmin()
}

func (d *daemon) serveStreams() {
	d.serve(func() error { return d.sockets.streams.Serve(cri.Streamed{Pods: d.pods}) }, d.sockets.streams.Close)
}

func (d *daemon) serveCRI() {
	server := &cri.Server{Node: d.node(), Pods: d.pods, Images: d.images, Network: d.network, Streams: d.sockets.streams}
	serve, stop := server.Serve(d.sockets.cri, d.log)
	d.stopCRI = stop
	d.serve(serve, func() error { stop(); return nil })
}

func (d *daemon) serveAdmin() {
	server := (&admin.Server{Pods: d.pods, Images: d.images, RegistryConfigDir: d.RegistryConfigDir, Signal: d.executor.Signal, Monitor: d.executor.MonitorPID, Stop: d.stop, Log: d.log}).HTTP()
	d.serve(func() error {
		if err := server.Serve(d.sockets.admin); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	}, func() error {
		ctx, cancel := context.WithTimeout(context.Background(), closePatience)
		defer cancel()
		return server.Shutdown(ctx) // the last answer gets out
	})
}

// serve runs a server; its failure ends the daemon.
func (d *daemon) serve(run, stop func() error) {
	go func() {
		if err := run(); err != nil {
			d.failures <- err
		}
	}()
	d.opened.Add(stop)
}
