package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"cri-mini/image"
	"cri-mini/internal/audit"
	"cri-mini/internal/config"
	"cri-mini/podsandbox"
	"cri-mini/podsandbox/network"
	"cri-mini/runtime/cgroup"
	"cri-mini/runtime/cgroup/systemd"
	"cri-mini/runtime/executor"
)

const foreignAdvice = "if nobody needs it, remove it by hand"

// auditAlone compares kernel and disk with the records on the disk, without a
// daemon. Nothing is being made then, so one look is enough. It changes nothing.
func auditAlone(c config.Config) (audit.Report, error) {
	r := audit.Report{At: time.Now()}
	things, err := thingsAlone(c)
	if err != nil {
		return r, err
	}
	r.Count(things)
	known, err := podsandbox.RecordIDs(c.Root)
	if err != nil {
		return r, err
	}
	leftovers, foreign := audit.Compare(things, known)
	for _, t := range leftovers {
		r.Add(t.Finding(audit.Leftover, "belongs to no record", "start the daemon: it removes it"))
	}
	for _, t := range foreign {
		r.Add(t.Finding(audit.Foreign, t.Foreign, foreignAdvice))
	}
	layers, err := layersAlone(c)
	r.Add(layers...)
	r.Sort()
	r.Took = time.Since(r.At)
	return r, err
}

func thingsAlone(c config.Config) ([]audit.Thing, error) {
	list, err := podsandbox.Things(c.Root)
	if err != nil {
		return nil, err
	}
	options, err := networkOptions(c)
	if err != nil {
		return nil, err
	}
	connections, err := network.Things(options)
	if err != nil {
		return nil, err
	}
	list = append(list, connections...)
	if root, err := cgroup.Find(); err == nil { // without it there are no groups, which the node's check says
		parent, err := parentAlone(c, findSystemd)
		if err != nil {
			return nil, err
		}
		rest, err := executor.Things(c.State, root, parent)
		if err != nil {
			return nil, err
		}
		list = append(list, rest...)
	}
	return list, nil
}

// parentAlone is where a daemon would make groups.
func parentAlone(c config.Config, find func(context.Context) (*systemd.Manager, error)) (string, error) {
	manager, _, err := chooseSystemd(context.Background(), c.CgroupDriver, find)
	if err != nil {
		// A named driver decides the place, also while systemd does not answer.
		return cgroupParent(c, true), nil
	}
	if manager == nil {
		return cgroupParent(c, false), nil
	}
	return cgroupParent(c, true), manager.Close()
}

// layersAlone needs the store for itself, which it is while no daemon runs.
func layersAlone(c config.Config) ([]audit.Finding, error) {
	dir := filepath.Join(c.Root, "images")
	if _, err := os.Stat(filepath.Join(dir, "layers")); err != nil {
		return nil, nil // there never was an image
	}
	store, err := image.Open(dir, image.Options{RegistryConfigDir: c.RegistryConfigDir, LayerForm: c.LayerForm})
	if errors.Is(err, image.ErrInUse) {
		return nil, fmt.Errorf("%w: a daemon uses this root: give its --listen", err)
	}
	if err != nil {
		return nil, err
	}
	defer store.Close()
	layers, err := store.StoredLayers()
	if err != nil {
		return nil, err
	}
	found := store.MissingLayers()
	for _, t := range layers {
		switch {
		case t.Foreign != "":
			found = append(found, t.Finding(audit.Foreign, t.Foreign, foreignAdvice))
		case t.Owner == "":
			found = append(found, t.Finding(audit.Leftover, "belongs to no image", "start the daemon: it removes it"))
		}
	}
	return found, nil
}
