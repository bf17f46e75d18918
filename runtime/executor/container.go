package executor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"cri-mini/internal/crashpoint"
	"cri-mini/internal/undo"
	"cri-mini/runtime/cgroup"
	"cri-mini/runtime/internal/mount"
	"cri-mini/runtime/spawn"
	"cri-mini/runtime/spec"
)

// container is what we hold of one. All of it can be lost with us: a prepared
// one is prepared again, a running one is in the monitor.
type container struct {
	id string

	mu       sync.Mutex // guards what follows
	rootfs   *mount.Tree
	prepared *prepared
	running  *running
}

// prepared is all that a start needs.
type prepared struct {
	spec    spec.Container
	program spawn.Program
	files   files
	group   *cgroup.Group
	user    bool // in a user namespace
}

func (p *prepared) close() { p.files.close() }

// container finds or adds the entry of an id.
func (e *Executor) container(id string) *container {
	e.mu.Lock()
	defer e.mu.Unlock()
	c := e.containers[id]
	if c == nil {
		c = &container{id: id}
		if !e.closed {
			e.containers[id] = c
		}
	}
	return c
}

func (c *container) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.drop()
}

// drop closes everything; the caller holds mu.
func (c *container) drop() {
	if c.prepared != nil {
		c.prepared.close()
		c.prepared = nil
	}
	if c.rootfs != nil {
		c.rootfs.Close()
		c.rootfs = nil
	}
	if c.running != nil {
		c.running.close()
		c.running = nil
	}
}

// Prepare makes everything that a start needs: mounts, devices, the cgroup,
// the program. What it made is kept for Start; on error nothing is left.
func (e *Executor) Prepare(ctx context.Context, s spec.Container) error {
	c := e.container(s.ID)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.prepared != nil {
		return nil
	}
	return e.prepare(ctx, c, s)
}

func (e *Executor) prepare(ctx context.Context, c *container, s spec.Container) error {
	var back undo.Stack
	defer back.Run()
	sb, err := e.sandbox(ctx, s.Sandbox)
	if err != nil {
		return err
	}
	if c.rootfs == nil {
		if c.rootfs, err = e.mountRootfs(s.Rootfs); err != nil {
			return fmt.Errorf("root file system: %w", err)
		}
		back.Add(func() error { err := c.rootfs.Close(); c.rootfs = nil; return err })
	}
	p := &prepared{spec: s, files: files{}, user: sb.files["user"] != nil}
	back.Add(func() error { p.close(); return nil })
	s.Process = e.limits.apply(s.Process)

	around := spawn.Surroundings{
		HostNetwork: sb.files["net"] == nil, HostIPC: sb.files["ipc"] == nil, HostUTS: sb.files["uts"] == nil,
		User: p.user, JoinPID: s.PID != spec.PIDContainer, LastCap: e.limits.lastCap,
	}
	// In a PID namespace that others are in already, one of them might trace
	// the new process: it must not share the monitor's memory.
	around.Copy = around.JoinPID
	if err := p.joined(sb); err != nil {
		return err
	}
	if around.JoinPID {
		if err := e.joinPID(s, sb, p); err != nil {
			return fmt.Errorf("PID namespace: %w", err)
		}
	}
	devices, err := p.devices(ctx, &s)
	if err != nil {
		return err
	}
	dev, err := devFolder(devices, s.Process.Terminal, s.Rootfs.IDs, s.Rootfs.Label)
	if err != nil {
		return err
	}
	p.files["dev"] = dev.File
	if around.Folders, err = e.mounts(ctx, s, p.files); err != nil {
		return err
	}
	if around.Places, err = places(c.rootfs, s); err != nil {
		return err
	}
	crashpoint.Here("create.mounts-made")
	if p.group, err = e.group(ctx, s, devices); err != nil {
		return err
	}
	back.Add(func() error { return e.removeGroup(context.WithoutCancel(ctx), s.Cgroup) })
	crashpoint.Here("create.group-made")
	p.spec = s
	p.program = spawn.Container(s, around)
	c.prepared = p
	back.Keep()
	return nil
}

// places finds the mount points that are not where their names say.
func places(root *mount.Tree, s spec.Container) (map[string]string, error) {
	found := map[string]string{}
	names := append([]string{s.Process.Cwd}, spawn.DefaultTargets...)
	for _, m := range s.Mounts {
		names = append(names, path.Clean(m.Target))
	}
	for _, name := range names {
		where, err := place(root, name)
		if err != nil {
			return nil, fmt.Errorf("mount point %s: %w", name, err)
		}
		if where != name {
			found[name] = where
		}
	}
	return found, nil
}

// joined copies the descriptors of the sandbox that the program needs.
func (p *prepared) joined(sb *sandbox) error {
	for _, name := range []string{"user", "net", "ipc", "uts"} {
		if f := sb.files[name]; f != nil {
			copied, err := dup(f)
			if err != nil {
				return err
			}
			p.files[name] = copied
		}
	}
	shm, err := mount.CloneFile(sb.files["shm"])
	if err != nil {
		return fmt.Errorf("/dev/shm: %w", err)
	}
	p.files["shm"] = shm.File
	return nil
}

// joinPID opens the PID namespace that the container shares, and a /proc that
// shows it.
func (e *Executor) joinPID(s spec.Container, sb *sandbox, p *prepared) (err error) {
	var pid *os.File
	switch s.PID {
	case spec.PIDPod:
		if sb.files["pid"] == nil {
			return errors.New("the sandbox has no shared one")
		}
		if err := e.awaitInit(s.Sandbox); err != nil {
			return err
		}
		pid, err = dup(sb.files["pid"])
	case spec.PIDNode:
		pid, err = os.Open("/proc/self/ns/pid")
	case spec.PIDTarget:
		if canTraceOthers(s) {
			if err := e.expectTracer(s.TargetContainer); err != nil {
				return err
			}
		}
		pid, err = e.pidNamespaceOf(s.TargetContainer)
	default:
		return fmt.Errorf("mode %q", s.PID)
	}
	if err != nil {
		return err
	}
	p.files["pid"] = pid
	var options []mount.Option
	if s.PID != spec.PIDNode {
		options = append(options, mount.Option{Key: "pidns", File: pid})
	}
	proc, err := mount.New("proc", unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC, options...)
	if errors.Is(err, unix.EINVAL) && options != nil {
		return &mount.Unsupported{Feature: "procfs of another PID namespace (Linux 6.17)"}
	}
	if err != nil {
		return err
	}
	p.files["proc"] = proc.File
	return nil
}

func (e *Executor) pidNamespaceOf(id string) (*os.File, error) {
	r, err := e.running(id)
	if err != nil {
		return nil, err
	}
	f, err := os.Open("/proc/" + strconv.Itoa(r.pid) + "/ns/pid")
	if err == nil && !r.alive() { // else the number might be another's by now
		f.Close()
		err = fmt.Errorf("container %s has ended", id)
	}
	return f, err
}

// devices looks the container's devices up. One with a place outside /dev
// becomes a mount of its node.
func (p *prepared) devices(ctx context.Context, s *spec.Container) ([]device, error) {
	var list []device
	for _, wanted := range s.Devices {
		d, err := lookUpDevice(ctx, wanted)
		if err != nil {
			return nil, err
		}
		if _, ok := d.below(); !ok {
			s.Mounts = append(s.Mounts, spec.Mount{Kind: spec.BindMount, Source: d.HostPath, Target: path.Clean(d.ContainerPath)})
		}
		list = append(list, d)
	}
	return list, nil
}

// badLimit gives the error of a cgroup to the one who asked for the limit, if
// he can mend it.
func badLimit(err error) error {
	if missing := (*cgroup.ErrControllerMissing)(nil); errors.As(err, &missing) {
		return &spec.InputError{Part: spec.InputResource, Name: missing.Field, Value: unquoted(missing.Value), Err: fmt.Errorf("cgroup controller %s is missing on this node", missing.Controller)}
	}
	if limit := (*cgroup.ErrLimit)(nil); errors.As(err, &limit) && limit.Refused() {
		if size, ok := strings.CutPrefix(limit.Field, "hugepage_limits["); ok && errors.Is(limit, unix.ENOENT) {
			limit.Cause = fmt.Errorf("this node has no pages of %s", strings.TrimSuffix(size, "]"))
		}
		return &spec.InputError{Part: spec.InputResource, Name: limit.Field, Value: unquoted(limit.Value), Err: limit.Cause}
	}
	return err
}

func unquoted(value string) string {
	if text, err := strconv.Unquote(value); err == nil {
		return text
	}
	return value
}

func (e *Executor) group(ctx context.Context, s spec.Container, devices []device) (*cgroup.Group, error) {
	resources := cgroupResources(s.Resources)
	for _, d := range devices {
		if rule, needed := d.rule(); needed {
			resources.Devices = append(resources.Devices, rule)
		}
	}
	group, err := e.makeGroup(ctx, s.Cgroup, resources)
	return group, badLimit(err)
}
