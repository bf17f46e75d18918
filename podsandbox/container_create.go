package podsandbox

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"google.golang.org/protobuf/proto"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"cri-mini/image"
	"cri-mini/internal/crashpoint"
	"cri-mini/internal/passwd"
	"cri-mini/internal/undo"
	"cri-mini/podsandbox/history"
	"cri-mini/podsandbox/plan"
	"cri-mini/runtime/spec"
)

// Create makes a container in a pod and gives its id. All that can be done
// before the start is done here.
func (p *Pods) Create(ctx context.Context, sandbox string, cfg *criapi.ContainerConfig) (string, error) {
	s, err := p.Sandbox(sandbox)
	if err != nil {
		return "", err
	}
	if cfg.GetMetadata() == nil {
		return "", plan.NoText("config.metadata", "is missing")
	}
	cfg = proto.CloneOf(cfg) // the caller's may change
	key := fmt.Sprintf("%s%s (attempt %d)", s.createKey(), cfg.Metadata.Name, cfg.Metadata.Attempt)
	about := s.subject()
	about.Container, about.ContainerID = cfg.Metadata.Name, newID()
	want := order{key: key, what: history.CreateContainer, about: about, request: cfg}
	id, err := p.ops.do(ctx, want, func(ctx context.Context, op *operation) (string, error) {
		birth := &birth{s: s, op: op, id: about.ContainerID, config: cfg}
		return birth.id, birth.run(ctx)
	})
	if volume := new(plan.ImageVolumeError); errors.As(err, &volume) {
		return "", volume
	}
	if err != nil {
		return "", err
	}
	return id, nil
}

// createKey begins the key of each operation that makes a container here.
func (s *Sandbox) createKey() string { return "create container " + s.ID + "/" }

// birth is a container being created.
type birth struct {
	s      *Sandbox
	op     *operation
	id     string
	config *criapi.ContainerConfig

	dir     folder
	image   image.Image
	volumes map[int]string // ids of the images mounted, by place in config.Mounts
	request plan.Request
}

func (b *birth) run(ctx context.Context) error {
	p := b.s.pods
	if err := b.allowed(); err != nil {
		return err
	}
	var back undo.Stack
	defer back.Run()
	b.dir = folder{parent: b.s.dir.path("containers"), id: b.id, mark: creating}
	remains, err := p.remains(b.s, b.id)
	if err != nil {
		return err
	}
	// The name of the folder alone tells what to take away.
	if err := os.Mkdir(b.dir.path(), 0o700); err != nil {
		return err
	}
	back.Add(func() error {
		p.discard(ctx, "container "+b.id, func(ctx context.Context) error {
			return p.discardContainer(ctx, b.dir, remains)
		})
		return nil
	})
	crashpoint.Here("create.folder-made")
	b.op.at("finding image and devices")
	if err := b.gather(ctx, remains); err != nil {
		return err
	}
	crashpoint.Here("create.image-held")
	b.op.at("mounting the root file system")
	if err := b.mountRootfs(ctx); err != nil {
		return fmt.Errorf("root file system: %w", err)
	}
	crashpoint.Here("create.rootfs-mounted")
	planned, err := plan.Container(b.request)
	if err != nil {
		return err
	}
	b.op.at("preparing mounts and cgroup")
	if err := p.opt.Executor.Prepare(ctx, planned.Spec); err != nil {
		return asInput(err, b.config, plan.ResourcesField)
	}
	crashpoint.Here("create.prepared")
	c, err := b.complete(planned)
	if err != nil {
		return err
	}
	// A caller who left will not learn the id: let nothing remain.
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := p.addContainer(c); err != nil {
		return err
	}
	back.Keep()
	c.tell()
	return nil
}

// allowed checks what does not need to be looked up.
func (b *birth) allowed() error {
	if !b.s.ready() {
		return fmt.Errorf("pod %s: %w: it is stopped", b.s.ID, ErrFailedPrecondition)
	}
	if other := b.s.named(b.config.Metadata); other != nil {
		return fmt.Errorf("%w with id %s", ErrExists, other.ID)
	}
	if err := b.checkImage("config.image", b.config.Image); err != nil {
		return err
	}
	for i, m := range b.config.Mounts {
		if m.GetImage() == nil {
			continue
		}
		if err := b.checkImage(fmt.Sprintf("config.mounts[%d].image", i), m.Image); err != nil {
			return &plan.ImageVolumeError{Cause: err}
		}
	}
	return b.checkTarget()
}

// checkTarget keeps a container from looking into another pod.
func (b *birth) checkTarget() error {
	o := b.config.GetLinux().GetSecurityContext().GetNamespaceOptions()
	if o.GetPid() != criapi.NamespaceMode_TARGET {
		return nil
	}
	bad := func(reason string) error {
		return &InvalidError{Field: "config.linux.security_context.namespace_options.target_id", Value: o.TargetId, Reason: reason}
	}
	target, err := b.s.pods.Container(o.TargetId)
	if err != nil || target.Sandbox != b.s {
		return bad("is no container of this pod")
	}
	if target.state() != criapi.ContainerState_CONTAINER_RUNNING {
		return bad("is not running")
	}
	o.TargetId = target.ID
	return nil
}

// gather looks up on the node what the request names.
func (b *birth) gather(ctx context.Context, remains spec.Container) error {
	p := b.s.pods
	layers, err := b.findImage("config.image.image", b.config.GetImage().GetImage(), &b.image)
	if err != nil {
		return err
	}
	b.request = plan.Request{
		ID:      b.id,
		Sandbox: b.s.spec,
		Pod:     b.s.config,
		Config:  b.config,
		Image:   wishes(b.image.Config),
		Rootfs:  spec.Rootfs{Layers: layers, Writable: remains.Rootfs.Writable, IDs: b.s.spec.IDs},
		Etc:     b.s.dir.path("etc"),
		Facts:   p.facts(),
	}
	if err := b.findVolumes(); err != nil {
		return err
	}
	if b.request.Devices, err = findDevices(ctx, b.config.Devices); err != nil {
		return err
	}
	if b.request.CDI, err = p.findCDI(ctx, b.config.CDIDevices); err != nil {
		return err
	}
	security := b.config.GetLinux().GetSecurityContext()
	if security.GetPrivileged() {
		if b.request.HostDevices, err = hostDevices(); err != nil {
			return err
		}
	}
	labels, err := b.s.labels(security)
	if err != nil {
		return err
	}
	b.request.SELinux, b.request.Rootfs.Label = labels.Process, labels.File
	if b.request.AppArmor, err = b.s.pods.appArmor(ctx, security); err != nil {
		return err
	}
	b.request.Profile, err = loadProfile(ctx, security)
	return err
}

// mountRootfs mounts the layers and reads who is who in the image.
func (b *birth) mountRootfs(ctx context.Context) (err error) {
	root, err := b.s.pods.opt.Executor.MountRootfs(ctx, b.id, b.request.Rootfs)
	if err != nil {
		return err
	}
	defer root.Close()
	if b.request.Passwd, err = readAccounts(root, "etc/passwd"); err != nil {
		return err
	}
	b.request.Group, err = readAccounts(root, "etc/group")
	return err
}

// readAccounts gives nil for an image that has no such file.
func readAccounts(root Rootfs, name string) ([]byte, error) {
	data, err := root.ReadFile(name, passwd.MaxFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("/%s of the image: %w", name, err)
	}
	return data, nil
}

// complete writes the record and gives the folder its name: from now on the
// container exists.
func (b *birth) complete(planned plan.Plan) (*Container, error) {
	config, err := encode(b.config)
	if err != nil {
		return nil, err
	}
	record := containerRecord{
		Version:    recordVersion,
		ID:         b.id,
		Created:    time.Now(),
		ImageID:    b.image.ID,
		ImageRef:   b.image.ID,
		Volumes:    b.volumes,
		StopSignal: planned.StopSignal,
		User:       planned.User,
		Spec:       planned.Spec,
		Config:     config,
	}
	if digests := b.image.Digests; len(digests) > 0 {
		record.ImageRef = digests[0]
	}
	record.keepEnv()
	if err := b.dir.write("container.json", record); err != nil {
		return nil, fmt.Errorf("record: %w", err)
	}
	crashpoint.Here("create.record-written")
	if err := b.dir.move(""); err != nil {
		return nil, fmt.Errorf("record: %w", err)
	}
	crashpoint.Here("create.complete")
	c := newContainer(b.s, b.dir, record, b.config)
	c.prepared = true
	return c, nil
}

func newContainer(s *Sandbox, dir folder, r containerRecord, config *criapi.ContainerConfig) *Container {
	return &Container{
		ID:         r.ID,
		Sandbox:    s,
		config:     config,
		created:    r.Created,
		imageID:    r.ImageID,
		imageRef:   r.ImageRef,
		mounts:     statusMounts(config, r.Volumes),
		stopSignal: r.StopSignal,
		user:       r.User,
		turn:       newTurn(),
		spec:       r.Spec,
		resources:  config.GetLinux().GetResources(),
		dir:        dir,
		exited:     make(chan struct{}),
	}
}

// addContainer enters c in the tables, unless its pod stopped meanwhile.
func (p *Pods) addContainer(c *Container) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	c.Sandbox.mu.Lock()
	defer c.Sandbox.mu.Unlock()
	if c.Sandbox.stopping {
		return errPodStops
	}
	c.Sandbox.containers[c.ID] = c
	p.containers[c.ID] = c
	return nil
}

// remains is the least a container is known by: enough to remove it.
func (p *Pods) remains(s *Sandbox, id string) (spec.Container, error) {
	c, err := plan.Remains(id, spec.Rootfs{Writable: p.writable(id)}, s.config, p.known)
	c.Sandbox = s.ID
	return c, err
}
