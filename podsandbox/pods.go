package podsandbox

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"cri-mini/internal/mishap"
	"cri-mini/podsandbox/cdi"
	"cri-mini/podsandbox/plan"
	"cri-mini/runtime/selinux"
)

// Pods is the table of all pods and containers. It is safe for concurrent use.
//
// Order of locks: Container.turn, then the files of a Container or Sandbox, then
// events.mu, then Pods.mu, then Sandbox.mu, then Container.mu. The last three are held for a few
// instructions and never across a call of the executor, the network or the
// disk (a rename excepted); the first two are held across those, and no reader
// ever takes one.
type Pods struct {
	opt   Options
	log   *slog.Logger
	known plan.Facts
	cdi   *cdi.Catalog

	levels selinux.Levels // of the pods that exist

	ops    operations
	audits audits
	events events
	// collected is closed when the network has let go what earlier daemons
	// left: an address must not be collected after a new pod got it.
	collected chan struct{}

	uncounted chan *Container // whose writable layer is to be counted

	ctx        context.Context // of everything that runs in the background
	cancel     context.CancelFunc
	background sync.WaitGroup

	mu         sync.RWMutex
	sandboxes  map[string]*Sandbox
	making     map[string]*Sandbox // not in the table yet
	names      map[podName]*Sandbox
	containers map[string]*Container
}

// podName is what the kubelet knows a sandbox by.
type podName struct {
	namespace, name, uid string
	attempt              uint32
}

func nameOf(m *criapi.PodSandboxMetadata) podName {
	return podName{namespace: m.GetNamespace(), name: m.GetName(), uid: m.GetUid(), attempt: m.GetAttempt()}
}

func (n podName) String() string {
	return fmt.Sprintf("%s/%s (uid %s, attempt %d)", n.namespace, n.name, n.uid, n.attempt)
}

// Close ends what runs in the background and takes back unfinished calls. Pods
// and containers live on.
func (p *Pods) Close(ctx context.Context) error {
	err := p.ops.close(ctx)
	p.cancel()
	ended := make(chan struct{})
	go func() { p.background.Wait(); close(ended) }()
	select {
	case <-ended:
		return err
	case <-ctx.Done():
		return errors.Join(err, fmt.Errorf("pods: wait for the background: %w", ctx.Err()))
	}
}

// AtWork lists the calls that have not ended, with what each one is doing.
func (p *Pods) AtWork() []string { return p.ops.atWork() }

// Sandbox finds a pod by its id or the beginning of it.
func (p *Pods) Sandbox(id string) (*Sandbox, error) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return find(p.sandboxes, "pod", id)
}

// Container finds a container by its id or the beginning of it.
func (p *Pods) Container(id string) (*Container, error) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return find(p.containers, "container", id)
}

// Sandboxes lists all pods, the oldest first.
func (p *Pods) Sandboxes() []*Sandbox {
	p.mu.RLock()
	list := make([]*Sandbox, 0, len(p.sandboxes))
	for _, s := range p.sandboxes {
		list = append(list, s)
	}
	p.mu.RUnlock()
	slices.SortFunc(list, func(a, b *Sandbox) int { return byAge(a.created, b.created, a.ID, b.ID) })
	return list
}

// Containers lists all containers, the oldest first.
func (p *Pods) Containers() []*Container {
	p.mu.RLock()
	list := make([]*Container, 0, len(p.containers))
	for _, c := range p.containers {
		list = append(list, c)
	}
	p.mu.RUnlock()
	slices.SortFunc(list, func(a, b *Container) int { return byAge(a.created, b.created, a.ID, b.ID) })
	return list
}

func byAge(a, b time.Time, aID, bID string) int {
	if order := a.Compare(b); order != 0 {
		return order
	}
	return strings.Compare(aID, bID)
}

// facts are what we know of the node, with its present name.
func (p *Pods) facts() plan.Facts {
	f := p.known
	f.Hostname, _ = os.Hostname() // uname(2) does not fail
	return f
}

// NetNS gives the network namespace of a running pod; the caller closes it. It
// is nil for a pod in the node's network.
func (p *Pods) NetNS(id string) (*os.File, error) {
	s, err := p.Sandbox(id)
	if err != nil {
		return nil, err
	}
	if !s.ready() {
		return nil, fmt.Errorf("pod %s: %w: it is stopped", s.ID, ErrFailedPrecondition)
	}
	file, _, err := p.opt.Executor.SandboxNetNS(p.ctx, s.ID)
	if err != nil {
		return nil, fmt.Errorf("pod %s: network namespace: %w", s.ID, err)
	}
	return file, nil
}

// watch does work in the background as long as the daemon runs. A panic in it
// is logged, and it goes on.
func (p *Pods) watch(what string, work func()) {
	p.background.Go(func() {
		for {
			err := mishap.Caught(p.log, what, func() error { work(); return nil })
			if err == nil {
				return
			}
			select {
			case <-time.After(time.Second):
			case <-p.ctx.Done():
				return
			}
		}
	})
}

// later does work until it succeeds. It is for what a failed or dead call left
// behind.
func (p *Pods) later(what string, work func(context.Context) error) {
	p.background.Go(func() {
		for wait := time.Second; ; wait = min(2*wait, time.Minute) {
			err := mishap.Caught(p.log, what, func() error { return work(p.ctx) })
			if err == nil || p.ctx.Err() != nil {
				return
			}
			p.log.Warn("cannot clean up, will try again", "what", what, "after", wait, "err", err)
			select {
			case <-time.After(wait):
			case <-p.ctx.Done():
				return
			}
		}
	})
}
