package main

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"cri-mini/internal/config"
	"cri-mini/runtime/cgroup"
	"cri-mini/runtime/cgroup/systemd"
)

// openCgroups finds out who makes control groups: systemd where it is the first
// process, answers and owns the tree, else we. A kubelet on such a node has to be
// of the same opinion, so whoever is named is not replaced by the other.
func (d *daemon) openCgroups(ctx context.Context) error {
	manager, because, err := chooseSystemd(ctx, d.CgroupDriver, findSystemd)
	if err != nil {
		return err
	}
	if because != nil {
		d.log.Info("control groups are made without systemd", "because", because)
	}
	if manager != nil {
		d.systemd = manager
		d.opened.Add(manager.Close)
	}
	return nil
}

// chooseSystemd gives systemd, or nil where groups are made without, which for a
// driver named auto has a reason.
func chooseSystemd(ctx context.Context, driver string, find func(context.Context) (*systemd.Manager, error)) (m *systemd.Manager, because, err error) {
	if driver == "cgroupfs" {
		return nil, nil, nil
	}
	m, err = find(ctx)
	switch {
	case err == nil:
		return m, nil, nil
	case driver == "systemd":
		return nil, nil, fmt.Errorf("cgroup-driver systemd: %w", err)
	}
	return nil, err, nil
}

func findSystemd(ctx context.Context) (*systemd.Manager, error) {
	if !systemd.Booted() {
		return nil, errors.New("the first process is not systemd (there is no /run/systemd/system)")
	}
	root, err := cgroup.Find()
	if err != nil {
		return nil, err
	}
	const only = "/sys/fs/cgroup"
	if root.Path != only {
		return nil, fmt.Errorf("cgroup2 is mounted at %s, want %s: systemd keeps limits in the old hierarchies", root.Path, only)
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	return systemd.Open(ctx, systemd.SystemBus, root.Path)
}

// cgroupDriver is what the kubelet is told.
func (d *daemon) cgroupDriver() criapi.CgroupDriver {
	if d.systemd != nil {
		return criapi.CgroupDriver_SYSTEMD
	}
	return criapi.CgroupDriver_CGROUPFS
}

// cgroupParent is where pods without a parent of their own live. Each instance
// has one, so that the last of them can remove it.
func (d *daemon) cgroupParent() string { return cgroupParent(d.Config, d.systemd != nil) }

func cgroupParent(c config.Config, systemd bool) string {
	name := ""
	if c.Root != config.DefaultRoot {
		h := fnv.New32a()
		h.Write([]byte(c.Root))
		name = fmt.Sprintf("-%08x", h.Sum32())
	}
	if !systemd {
		return "/cri-mini" + name
	}
	// A minus would put the slice below another, which nobody would remove.
	return "/cri_mini" + strings.ReplaceAll(name, "-", "_") + ".slice"
}

func (d *daemon) removeCgroup(ctx context.Context) error {
	if d.systemd != nil {
		return d.systemd.ForgetSlice(ctx, d.cgroupParent())
	}
	err := os.Remove(filepath.Join(d.executor.Cgroups().Path, d.cgroupParent()))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
