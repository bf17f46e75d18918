// Package instance runs daemons with directories of their own: the one under
// test, and others to compare with.
//
// A Daemon is one process of the program with its root, its state, its socket
// and its registries; a Containerd is the same of that program. The package uses
// command lines and the Version call, as any user would, and knows nothing of
// how a daemon works.
package instance

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"cri-mini/test/critest/internal/place"
)

// Daemon is one instance. The exported fields are set before Start.
type Daemon struct {
	Program string
	Work    string // parent of all its directories
	Log     string // file for its standard output and error
	Level   string // of its log

	CgroupDriver string

	Place *place.Place // where it runs; nil is here

	process
}

// Root is the directory for what survives a reboot.
func (d *Daemon) Root() string { return filepath.Join(d.Work, "root") }

// State is the directory for what does not. In a place it is in memory, as that
// of a node is.
func (d *Daemon) State() string {
	if d.Place != nil {
		return "/run/cri-mini"
	}
	return filepath.Join(d.Work, "state")
}

// Registries is the directory of hosts.toml files.
func (d *Daemon) Registries() string { return filepath.Join(d.Work, "certs.d") }

// Endpoint is where it listens.
func (d *Daemon) Endpoint() string { return "unix://" + filepath.Join(d.Work, "cri.sock") }

// Start returns when the daemon answers.
func (d *Daemon) Start() error {
	if err := os.Remove(d.Log); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return d.Restart()
}

// Restart starts a daemon that was ended, and keeps its log.
func (d *Daemon) Restart() error {
	cmd := d.command("serve",
		"--root="+d.Root(), "--state="+d.State(), "--listen="+d.Endpoint(),
		"--registry-config-dir="+d.Registries(),
		"--cni-conf-dir="+filepath.Join(d.Work, "cni.conf"),
		"--cni-bin-dir="+filepath.Join(d.Work, "cni.bin"),
		"--network=builtin", "--cgroup-driver="+d.CgroupDriver, "--log-level="+d.Level)
	if err := d.start(cmd, d.Log); err != nil {
		return err
	}
	return d.waitReady(d.Endpoint(), 2*time.Minute)
}

func (d *Daemon) command(args ...string) *exec.Cmd {
	if d.Place != nil {
		return d.Place.Command(d.Program, args...)
	}
	return exec.Command(d.Program, args...)
}

// Stop ends the pods, the monitor and the daemon, as a user would.
func (d *Daemon) Stop() error {
	if err := d.alive(); err != nil {
		return err
	}
	var wrong []error
	out, err := d.command("stop", "--pods", "--listen="+d.Endpoint()).CombinedOutput()
	if err != nil {
		wrong = append(wrong, fmt.Errorf("stop --pods: %w: %s", err, out), d.terminate())
	}
	return errors.Join(append(wrong, d.end())...)
}
