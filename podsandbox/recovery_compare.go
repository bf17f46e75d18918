package podsandbox

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"time"

	"cri-mini/internal/audit"
	"cri-mini/internal/broken"
	"cri-mini/internal/mishap"
	"cri-mini/runtime/spec"
)

// recovery compares the records with what runs.
type recovery struct {
	p     *Pods
	tasks map[string]Task

	connected []string        // pods whose network is in use or will be given back by us
	claimed   map[string]bool // containers that are accounted for
	leftovers map[string]func(context.Context) error
	halfMade  map[string][]*Sandbox // by the key of the call that was making them
}

func newRecovery(p *Pods, tasks map[string]Task) *recovery {
	return &recovery{
		p:         p,
		tasks:     tasks,
		claimed:   map[string]bool{},
		leftovers: map[string]func(context.Context) error{},
		halfMade:  map[string][]*Sandbox{},
	}
}

// run fills the tables and starts what has to be done in the background.
func (r *recovery) run(found []*Sandbox) {
	p := r.p
	for _, s := range found {
		if s.dir.mark == "" {
			r.sandbox(s)
		} else {
			r.unfinished(s)
		}
	}
	r.strays()
	p.watch("exits", p.watchExits)
	p.watch("default AppArmor profile", p.prepareProfile)
	p.watch("usage", p.watchUsage)
	p.watch("audit", p.watchLeftovers)
	for range counters {
		p.watch("writable layers", p.countWritable)
	}
	p.background.Go(func() {
		defer close(p.collected)
		collect := func() error { return p.opt.Network.Collect(r.connected) }
		if err := mishap.Caught(p.log, "collect network", collect); err != nil {
			p.log.Warn("cannot collect what the network holds for old pods", "err", err)
		}
	})
	for key, pods := range r.halfMade {
		if !broken.TakeBack {
			r.takeBack(key, pods)
		}
	}
	for what, work := range r.leftovers {
		p.later(what, work)
	}
}

// sandbox decides what becomes of a pod that was complete.
func (r *recovery) sandbox(s *Sandbox) {
	r.p.sandboxes[s.ID] = s
	s.relabel()
	r.p.names[nameOf(s.config.Metadata)] = s
	for _, c := range s.containers {
		r.container(c)
	}
	if s.boot != r.p.opt.BootID && !s.stopped {
		s.happened("the node went down")
	}
	s.stopping = r.initGone(s) || s.stopping || s.lost()
	if s.stopped {
		return
	}
	r.connected = append(r.connected, s.ID)
	if s.stopping {
		s.ips = nil
		r.leftovers["pod "+s.ID] = s.stop
	}
}

// initGone takes note of the reaping init of a pod, and says that it has ended.
func (r *recovery) initGone(s *Sandbox) bool {
	task, known := r.tasks[s.ID]
	r.claimed[s.ID] = true
	if known && task.Exit == nil {
		s.init = task.PID
	}
	if known && task.Exit != nil && !s.stopping {
		s.happened(initEnded)
	}
	return known && task.Exit != nil
}

// lost says that the namespaces of a pod are not there any more although the
// node did not reboot: the monitor was lost.
func (s *Sandbox) lost() bool {
	file, _, err := s.pods.opt.Executor.SandboxNetNS(context.Background(), s.ID)
	if file != nil {
		file.Close()
	}
	if !errors.Is(err, spec.ErrUnknown) {
		return false
	}
	s.pods.log.Warn("the namespaces of a pod are gone", "pod", s.ID)
	s.happened("daemon and monitor died at once, and the pod's namespaces with them")
	return true
}

// unfinished takes note of a pod that was being made or removed.
func (r *recovery) unfinished(s *Sandbox) {
	r.connected = append(r.connected, s.ID)
	r.initGone(s)
	for _, c := range s.containers {
		r.claim(c)
	}
	if s.dir.mark == removing || s.config.Metadata.GetName() == "" {
		r.leftovers["pod "+s.ID] = s.discardAll
		return
	}
	key := runKey(s.config.Metadata)
	r.halfMade[key] = append(r.halfMade[key], s)
}

// takeBack takes away half made pods as if their call were still at work, so
// that the same call made again waits: the two may want the same host port.
func (r *recovery) takeBack(key string, pods []*Sandbox) {
	r.p.ops.mu.Lock()
	defer r.p.ops.mu.Unlock()
	want := order{key: key, what: "take back pod", about: pods[0].subject()}
	r.p.ops.begin(r.p.ctx, want, 0, func(ctx context.Context, op *operation) (string, error) {
		op.at("taking back what an earlier daemon began")
		for _, s := range pods {
			r.p.discard(ctx, "pod "+s.ID, s.discardAll)
		}
		return "", nil
	})
}

func (s *Sandbox) discardAll(ctx context.Context) error {
	for _, c := range s.containers {
		if err := s.pods.discardContainer(ctx, c.dir, c.spec); err != nil {
			return err
		}
	}
	return s.discard(ctx)
}

// claim says that c is accounted for, and gives what is known of its process.
func (r *recovery) claim(c *Container) (task Task, known bool) {
	task, known = r.tasks[c.ID]
	r.claimed[c.ID] = true
	return task, known
}

// container decides what became of one container of a complete pod.
func (r *recovery) container(c *Container) {
	task, known := r.claim(c)
	if c.dir.mark != "" {
		delete(c.Sandbox.containers, c.ID)
		r.leftovers["container "+c.ID] = func(ctx context.Context) error {
			return r.p.discardContainer(ctx, c.dir, c.spec)
		}
		return
	}
	r.p.containers[c.ID] = c
	r.hold(c)
	if known {
		c.started = task.Started
	}
	switch {
	case c.ended != nil:
		if known && task.Exit == nil {
			// Its start was given up, and the daemon died before the kill.
			r.leftovers["container "+c.ID] = func(context.Context) error { return r.p.opt.Executor.Kill(c.ID) }
		}
	case known && task.Exit != nil:
		c.finish(ending(*task.Exit))
	case known:
	case c.started.PID != 0, c.Sandbox.boot != r.p.opt.BootID:
		e := ending(spec.Exit{At: time.Now(), Unknown: true})
		if _, err := os.Lstat(c.dir.path("start.json")); errors.Is(err, os.ErrNotExist) {
			e.Message = "the node went down before the container was started"
		}
		c.finish(e)
	}
}

// hold protects the images of a container, which nobody else remembers.
func (r *recovery) hold(c *Container) {
	ids := []string{c.imageID}
	for _, m := range c.mounts {
		if m.GetImage() != nil {
			ids = append(ids, m.Image.ImageRef)
		}
	}
	for _, id := range ids {
		if err := r.p.opt.Images.Hold(id, c.ID); err != nil {
			r.p.log.Warn("an image in use is gone", "container", c.ID, "image", id, "err", err)
		}
	}
}

// strays are processes that run and writable layers that lie around although
// no record knows them. A container with a bad record is among them: the
// kubelet will start another in its place, and two must not run.
func (r *recovery) strays() {
	found := map[string]bool{}
	for id := range r.tasks {
		found[id] = true
	}
	layers, err := os.ReadDir(r.p.writable(""))
	if err != nil {
		r.p.log.Warn("cannot look for old writable layers", "err", err)
	}
	for _, e := range layers {
		if audit.IsID(e.Name()) { // else it is not ours
			found[e.Name()] = true
		}
	}
	for id := range found {
		if r.claimed[id] {
			continue
		}
		level := slog.LevelInfo // a create that was killed, or lost with the power
		if _, runs := r.tasks[id]; runs {
			level = slog.LevelWarn
		}
		r.p.log.Log(r.p.ctx, level, "removing a container without a record", "container", id)
		r.leftovers["container "+id] = func(ctx context.Context) error {
			return r.p.opt.Executor.Remove(ctx, spec.Container{ID: id, Rootfs: spec.Rootfs{Writable: r.p.writable(id)}})
		}
	}
}
