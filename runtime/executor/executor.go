// Package executor is the daemon's hand: it makes namespaces, root file
// systems and cgroups, turns a spec into a program and lets the monitor run
// it.
//
// An Executor is connected to the one monitor of the node, which outlives it.
// What the executor holds in memory are descriptors and what it has prepared;
// all of it is found again in the monitor or made again from the spec. It
// knows nothing of pods, images or the CRI.
package executor

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"

	"cri-mini/internal/atomicfile"
	"cri-mini/internal/crashpoint"
	"cri-mini/internal/fdstore"
	"cri-mini/runtime/capability"
	"cri-mini/runtime/cgroup"
	"cri-mini/runtime/cgroup/systemd"
	"cri-mini/runtime/spec"
)

// Options is what an executor works with.
type Options struct {
	State  string // folder on tmpfs, this instance's own
	Logger *slog.Logger
	// Systemd makes the groups that are scopes; nil where we make all.
	Systemd *systemd.Manager
	// Store keeps what we hold for the case that we and the monitor die
	// together, and Kept is what it has; nil where nobody keeps it.
	Store *fdstore.Store
	Kept  map[string]fdstore.Bundle
}

// Executor makes sandboxes and containers. It is safe for concurrent use.
type Executor struct {
	state   string
	mark    string // of our control groups
	log     *slog.Logger
	cgroups cgroup.Root
	systemd *systemd.Manager // or nil
	monitor *client
	store   *fdstore.Store // or nil
	exits   chan spec.TaskExit
	limits  limits
	layers  layerMounts
	initExe onceFile // sealed copy of our binary for reaping inits

	mu         sync.Mutex // guards what follows; never held across system calls that can hang
	sandboxes  map[string]*sandbox
	containers map[string]*container
	closed     bool

	devices sync.Map // names of block devices by number

	usersMu sync.Mutex // guards users
	users   map[spec.IDMapping]*os.File
}

// ErrUnknown is a sandbox or container that the executor does not have.
var ErrUnknown = spec.ErrUnknown

// Open connects to the monitor, and starts one when there is none.
func Open(ctx context.Context, o Options) (*Executor, error) {
	root, err := cgroup.Find()
	if err != nil {
		return nil, err
	}
	own, err := ownLimits()
	if err != nil {
		return nil, err
	}
	for _, name := range []string{exitsDir, tasksDir} {
		if err := os.MkdirAll(filepath.Join(o.State, name), 0o700); err != nil {
			return nil, err
		}
	}
	if err := atomicfile.Sweep(filepath.Join(o.State, tasksDir)); err != nil {
		return nil, err
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	mark, err := makeInstance(o.State)
	if err != nil {
		o.Logger.Warn("control groups of this daemon cannot be known to later ones", "err", err)
	}
	e := &Executor{
		state: o.State, mark: mark, log: o.Logger, cgroups: root, systemd: o.Systemd, store: o.Store, limits: own,
		exits:     make(chan spec.TaskExit, 1024),
		sandboxes: map[string]*sandbox{}, containers: map[string]*container{}, users: map[spec.IDMapping]*os.File{},
	}
	e.monitor = &client{state: o.State, log: o.Logger}
	if err := e.monitor.ensure(ctx); err != nil {
		return nil, fmt.Errorf("monitor: %w", err)
	}
	crashpoint.Here("recovery.connected")
	err = e.watch(ctx, e.learn)
	if monitorDied(err) {
		// While we came up. What it had told us of is handed to the next one.
		e.log.Error("the monitor has died; starting another", "pid", e.monitor.pid())
		err = e.tryReplace(ctx)
	}
	if err == nil {
		err = e.restore(ctx, o.Kept)
	}
	if err != nil {
		return nil, fmt.Errorf("monitor: %w", err)
	}
	e.learnPins(ctx)
	crashpoint.Here("recovery.learned")
	return e, nil
}

// Folders below the state folder: exit records of the monitor, and what we
// note of started tasks for the case that the monitor dies.
const (
	exitsDir = "exits"
	tasksDir = "tasks"
)

// Exits delivers each end of a container's first process, and of an init by
// the id of its sandbox.
func (e *Executor) Exits() <-chan spec.TaskExit { return e.exits }

// Cgroups is the root of the control groups in use.
func (e *Executor) Cgroups() cgroup.Root { return e.cgroups }

// MonitorPID is the process id of the monitor.
func (e *Executor) MonitorPID() int { return e.monitor.pid() }

// Close lets go of everything but what the monitor holds: containers go on.
func (e *Executor) Close() error {
	e.mu.Lock()
	e.closed = true
	sandboxes, containers := e.sandboxes, e.containers
	e.sandboxes, e.containers = nil, nil
	e.mu.Unlock()
	e.monitor.close()
	for _, s := range sandboxes {
		s.close()
	}
	for _, c := range containers {
		c.close()
	}
	e.layers.close()
	e.initExe.close()
	e.dropUsers()
	return nil
}

// Shutdown ends the monitor, which refuses while a container runs, and closes
// the executor.
func (e *Executor) Shutdown(ctx context.Context) error {
	e.mu.Lock()
	e.closed = true // its end is wanted: no new one
	e.mu.Unlock()
	if err := e.monitor.quit(ctx); err != nil {
		e.mu.Lock()
		e.closed = false
		e.mu.Unlock()
		return err
	}
	return e.Close()
}

// limits is what this process may pass on. Without CAP_SYS_RESOURCE (an
// executor inside a container) a limit above our own is cut to it.
type limits struct {
	unbounded   bool
	openFiles   unix.Rlimit
	oomScoreAdj int
	lastCap     int
}

func ownLimits() (limits, error) {
	own, err := capability.Own()
	if err != nil {
		return limits{}, err
	}
	l := limits{unbounded: own&(1<<unix.CAP_SYS_RESOURCE) != 0}
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l.openFiles); err != nil {
		return limits{}, err
	}
	if l.oomScoreAdj, err = readInt("/proc/self/oom_score_adj"); err != nil {
		return limits{}, err
	}
	if l.lastCap, err = readInt("/proc/sys/kernel/cap_last_cap"); err != nil {
		return limits{}, err
	}
	return l, nil
}

// apply cuts a process down to what the kernel will let us set.
func (l limits) apply(p spec.Process) spec.Process {
	if l.unbounded {
		return p
	}
	if p.OOMScoreAdj != nil && *p.OOMScoreAdj < l.oomScoreAdj {
		p.OOMScoreAdj = &l.oomScoreAdj
	}
	limits := make([]spec.Rlimit, len(p.Rlimits))
	for i, r := range p.Rlimits {
		if own, err := hardLimit(r.Resource); err == nil {
			r.Hard, r.Soft = min(r.Hard, own), min(r.Soft, own)
		}
		limits[i] = r
	}
	p.Rlimits = limits
	return p
}

func hardLimit(resource int) (uint64, error) {
	var r unix.Rlimit
	err := unix.Getrlimit(resource, &r)
	return r.Max, err
}
