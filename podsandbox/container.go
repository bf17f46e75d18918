package podsandbox

import (
	"context"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"

	"google.golang.org/protobuf/proto"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"cri-mini/internal/crashpoint"
	"cri-mini/internal/passwd"
	"cri-mini/internal/signalname"
	"cri-mini/podsandbox/history"
	"cri-mini/runtime/spec"
)

// Container is one container of a sandbox. It is safe for concurrent use.
type Container struct {
	ID      string
	Sandbox *Sandbox

	config     *criapi.ContainerConfig
	created    time.Time
	imageID    string
	imageRef   string
	mounts     []*criapi.Mount // as asked for, with the ids of images
	stopSignal syscall.Signal
	user       passwd.User

	// turn orders what changes the container: start, end and removal.
	turn *turn
	// prepared says that the executor knows the container. One made by an
	// earlier daemon and not started is prepared again. Guarded by turn.
	prepared bool

	// files is held while a record is written or the folder moved. No record
	// may appear in a folder that is being deleted.
	files sync.Mutex

	mu        sync.Mutex
	spec      spec.Container
	resources *criapi.LinuxContainerResources
	dir       folder
	started   Started // zero when it never ran
	ended     *end    // nil until it ended or could not start
	gone      bool    // its folder is on the way out
	starting  bool    // the executor was asked and has not answered
	removed   bool    // it is in no table any more

	exited chan struct{} // closed when ended is set
	stops  int           // calls of Stop that wait for the end

	told step // of its life, to subscribers; guarded by events.mu

	meter meter
}

// state follows from what is known; it is stored nowhere.
func (c *Container) state() criapi.ContainerState {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.stateLocked()
}

func (c *Container) stateLocked() criapi.ContainerState {
	switch {
	case c.ended != nil:
		return criapi.ContainerState_CONTAINER_EXITED
	case c.started.PID != 0:
		return criapi.ContainerState_CONTAINER_RUNNING
	}
	return criapi.ContainerState_CONTAINER_CREATED
}

// Status tells how the container is.
func (c *Container) Status() ContainerStatus {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := ContainerStatus{
		ID:         c.ID,
		Sandbox:    c.Sandbox.ID,
		Config:     c.config,
		State:      c.stateLocked(),
		Created:    c.created,
		Started:    c.started.At,
		ImageID:    c.imageID,
		ImageRef:   c.imageRef,
		Mounts:     c.mounts,
		LogPath:    c.spec.LogPath,
		Resources:  c.resources,
		User:       &criapi.LinuxContainerUser{Uid: int64(c.user.UID), Gid: int64(c.user.GID)},
		StopSignal: criSignal(c.stopSignal),
		Spec:       c.spec,
	}
	for _, g := range c.user.Groups {
		s.User.SupplementalGroups = append(s.User.SupplementalGroups, int64(g))
	}
	if c.ended != nil {
		s.Finished, s.ExitCode = c.ended.At, int32(c.ended.Code)
		s.Reason, s.Message = c.ended.Reason, c.ended.Message
	} else {
		s.PID = c.started.PID
	}
	return s
}

func criSignal(n syscall.Signal) criapi.Signal {
	return criapi.Signal(criapi.Signal_value[signalname.CRI(n)])
}

// finish sets how the container ended, once: the first news is the truth.
func (c *Container) finish(e end) {
	c.mu.Lock()
	if c.ended != nil {
		c.mu.Unlock()
		return
	}
	c.ended = &e
	close(c.exited)
	c.mu.Unlock()
	c.Sandbox.pods.opt.History.Note(context.Background(), c.subject(), history.Ended, e.At, e.exit())
	c.keep("exit.json", e)
	crashpoint.Here("exit.recorded")
	c.tell()
}

// keep writes a fact that is written once, now if possible and else later: the
// disk may be full. The monitor keeps it too, but does not outlive the node, and
// does not know a container that never ran.
func (c *Container) keep(name string, v any) {
	if err := c.write(name, v); err != nil {
		c.Sandbox.pods.log.Error("cannot write a record, will try again", "container", c.ID, "file", name, "err", err)
		c.Sandbox.pods.later(name+" of container "+c.ID, func(context.Context) error { return c.write(name, v) })
	}
}

// write does nothing for a container on the way out.
func (c *Container) write(name string, v any) error {
	c.files.Lock()
	defer c.files.Unlock()
	c.mu.Lock()
	dir, gone := c.dir, c.gone
	c.mu.Unlock()
	if gone {
		return nil
	}
	return dir.write(name, v)
}

// running gives the container's spec if it runs.
func (c *Container) running(what string) (spec.Container, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if state := c.stateLocked(); state != criapi.ContainerState_CONTAINER_RUNNING {
		return spec.Container{}, fmt.Errorf("%s in container %s: %w: it is %s", what, c.ID, ErrFailedPrecondition, stateText(state))
	}
	return c.spec, nil
}

func stateText(s criapi.ContainerState) string {
	switch s {
	case criapi.ContainerState_CONTAINER_CREATED:
		return "created, not started"
	case criapi.ContainerState_CONTAINER_RUNNING:
		return "running"
	}
	return "exited"
}

// statusMounts are the mounts of a config with the ids of their images.
func statusMounts(cfg *criapi.ContainerConfig, volumes map[int]string) []*criapi.Mount {
	list := make([]*criapi.Mount, len(cfg.Mounts))
	for i, m := range cfg.Mounts {
		list[i] = m
		if id := volumes[i]; id != "" {
			list[i] = proto.CloneOf(m)
			list[i].Image.ImageRef = id
		}
	}
	return list
}

// RemoveContainer takes a container away. If it runs it is killed.
func (p *Pods) RemoveContainer(ctx context.Context, id string) error {
	c, err := p.Container(id)
	if err != nil {
		return err
	}
	return c.remove(ctx)
}

func (c *Container) remove(ctx context.Context) error {
	_, err := c.Sandbox.pods.ops.do(ctx, c.order(history.RemoveContainer),
		func(ctx context.Context, op *operation) (string, error) { return c.ID, c.removeNow(ctx, op) })
	return err
}

func (c *Container) removeNow(ctx context.Context, op *operation) error {
	done, err := c.turn.take(ctx, op.work)
	if err != nil {
		return err
	}
	defer done()
	dir, remains, err := c.leave()
	if err != nil {
		return err
	}
	crashpoint.Here("remove.marked")
	op.at("killing it and taking away its files")
	if err := c.Sandbox.pods.discardContainer(ctx, dir, remains); err != nil {
		return err
	}
	crashpoint.Here("remove.folder-gone")
	c.forget()
	c.tell()
	return nil
}

// leave marks the folder as one to be taken away. It may be called again.
func (c *Container) leave() (folder, spec.Container, error) {
	c.files.Lock()
	defer c.files.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.gone {
		if err := c.dir.move(removing); err != nil {
			return folder{}, spec.Container{}, err
		}
		c.gone = true
	}
	return c.dir, c.spec, nil
}

// forget takes the container out of the tables, which frees its name.
func (c *Container) forget() {
	p := c.Sandbox.pods
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.containers, c.ID)
	c.Sandbox.mu.Lock()
	defer c.Sandbox.mu.Unlock()
	delete(c.Sandbox.containers, c.ID)
	// What a pod has used does not become less.
	c.Sandbox.spent += c.meter.lastCPU()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.removed = true
}

// discardContainer takes away all there is of a container. The folder goes
// last, for it is what makes the next daemon try again.
func (p *Pods) discardContainer(ctx context.Context, dir folder, remains spec.Container) error {
	if err := p.opt.Executor.Remove(ctx, remains); err != nil {
		return err
	}
	crashpoint.Here("remove.discarded")
	p.opt.Images.Release(remains.ID)
	crashpoint.Here("remove.image-released")
	return os.RemoveAll(dir.path())
}
