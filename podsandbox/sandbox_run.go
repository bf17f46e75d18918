package podsandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"cri-mini/internal/crashpoint"
	"cri-mini/internal/undo"
	"cri-mini/podsandbox/history"
	"cri-mini/podsandbox/plan"
)

// undoTime is how long taking back an unfinished call may take before it is
// left to the background.
const undoTime = time.Minute

// Run makes a pod and gives its id.
func (p *Pods) Run(ctx context.Context, cfg *criapi.PodSandboxConfig, handler string) (string, error) {
	if handler != "" && !slices.Contains(p.opt.Handlers, handler) {
		return "", &InvalidError{Field: "runtime_handler", Value: handler, Reason: "is unknown"}
	}
	id := newID()
	planned, err := plan.Sandbox(id, cfg, p.facts())
	if err != nil {
		return "", err
	}
	s := &Sandbox{
		ID:         id,
		pods:       p,
		config:     proto.CloneOf(cfg), // the caller's may change
		handler:    handler,
		spec:       planned,
		boot:       p.opt.BootID,
		created:    time.Now(),
		dir:        folder{parent: p.podsDir(), id: id, mark: creating},
		containers: map[string]*Container{},
	}
	same := &criapi.RunPodSandboxRequest{Config: s.config, RuntimeHandler: handler}
	return p.ops.do(ctx, order{key: runKey(cfg.Metadata), what: history.RunPod, about: s.subject(), request: same},
		func(ctx context.Context, op *operation) (string, error) { return s.ID, s.run(ctx, op) })
}

func runKey(m *criapi.PodSandboxMetadata) string { return "run pod " + nameOf(m).String() }

func (s *Sandbox) run(ctx context.Context, op *operation) error {
	p := s.pods
	op.at("waiting for the network to be cleaned")
	select {
	case <-p.collected:
	case <-ctx.Done():
		return ctx.Err()
	}
	if err := p.nameFree(nameOf(s.config.Metadata)); err != nil {
		return err
	}
	p.warnOfSharedUsers(s)
	defer p.beginMaking(s)()
	var back undo.Stack
	defer back.Run()
	if err := s.label(); err != nil {
		return err
	}
	back.Add(func() error { s.unlabel(); return nil })
	back.Add(func() error { p.discard(ctx, "pod "+s.ID, s.discard); return nil })

	// The record comes before what it stands for: whoever finds it knows what
	// to take away.
	if err := s.write(); err != nil {
		return fmt.Errorf("record: %w", err)
	}
	crashpoint.Here("pod.record-written")
	op.at("making namespaces")
	started, err := p.opt.Executor.CreateSandbox(ctx, s.spec)
	if err != nil {
		return sysctlInput(err, s.config)
	}
	s.setInit(started.PID)
	op.at("setting up the network")
	if err := s.connect(ctx); err != nil {
		return InRequest(fmt.Errorf("network: %w", err), "config.")
	}
	crashpoint.Here("pod.connected")
	if err := s.writeEtc(); err != nil {
		return err
	}
	crashpoint.Here("pod.etc-written")
	// A caller who left will not learn the id: let nothing remain.
	if err := ctx.Err(); err != nil {
		return err
	}
	if !s.ready() {
		return errors.New("the init of the shared PID namespace has ended")
	}
	if err := s.dir.move(""); err != nil {
		return fmt.Errorf("record: %w", err)
	}
	crashpoint.Here("pod.complete")
	s.meter.begin(s.created)
	p.add(s)
	back.Keep()
	if !s.ready() { // it ended in the last moment
		p.later("pod "+s.ID, s.stop)
	}
	s.tell()
	return nil
}

// setInit notes the process id of the init, which may have ended by now.
func (s *Sandbox) setInit(pid int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.stopping {
		s.init = pid
	}
}

func (p *Pods) nameFree(n podName) error {
	p.mu.RLock()
	defer p.mu.RUnlock()
	if other := p.names[n]; other != nil {
		return fmt.Errorf("%w with id %s", ErrExists, other.ID)
	}
	return nil
}

// warnOfSharedUsers names the pods whose ids on the node overlap those of a new
// one. The interface leaves the choice to the kubelet, which gives each pod a
// range of its own; a range given twice separates the pods less than they
// think.
func (p *Pods) warnOfSharedUsers(s *Sandbox) {
	ours := s.spec.IDs
	if ours == nil {
		return
	}
	for _, other := range p.Sandboxes() {
		theirs := other.spec.IDs
		if theirs == nil || !other.ready() || !ours.Overlaps(*theirs) {
			continue
		}
		p.log.Warn("two pods have the same users on the node", "pod", nameOf(s.config.Metadata), "first", ours.Host, "count", ours.Length,
			"other", nameOf(other.config.Metadata), "its first", theirs.Host, "its count", theirs.Length)
	}
}

func (p *Pods) add(s *Sandbox) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sandboxes[s.ID] = s
	p.names[nameOf(s.config.Metadata)] = s
}

func (s *Sandbox) write() error {
	config, err := encode(s.config)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(s.dir.path("containers"), 0o700); err != nil {
		return err
	}
	crashpoint.Here("pod.folder-made")
	return s.dir.write("pod.json", podRecord{
		Version: recordVersion,
		ID:      s.ID,
		Boot:    s.boot,
		Created: s.created,
		Handler: s.handler,
		Spec:    s.spec,
		Config:  config,
	})
}

func (s *Sandbox) connect(ctx context.Context) error {
	if s.spec.HostNetwork {
		return nil
	}
	n, done := s.netPod()
	defer done()
	if n.NetNSFile == nil {
		return fmt.Errorf("namespace of the pod: %w", os.ErrNotExist)
	}
	result, err := s.pods.opt.Network.Setup(ctx, n)
	if err != nil {
		return err
	}
	s.ips = result.IPs
	return nil
}

// discard takes away what is there of a pod that was not completed. The folder
// goes last, for it is what makes the next daemon try again.
func (s *Sandbox) discard(ctx context.Context) error {
	if err := s.release(ctx); err != nil {
		return err
	}
	crashpoint.Here("pod.discarded")
	return os.RemoveAll(s.dir.path())
}

// discard takes back an unfinished call, now if possible and else later. The
// call's own context has often ended.
func (p *Pods) discard(ctx context.Context, what string, work func(context.Context) error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTime)
	defer cancel()
	if err := work(ctx); err != nil {
		p.log.Warn("cannot take back, will try again", "what", what, "err", err)
		p.later(what, work)
	}
}
