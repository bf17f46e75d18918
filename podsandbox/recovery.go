package podsandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"golang.org/x/sync/errgroup"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"cri-mini/internal/atomicfile"
	"cri-mini/internal/crashpoint"
	"cri-mini/internal/spread"
	"cri-mini/podsandbox/cdi"
	"cri-mini/podsandbox/history"
	"cri-mini/runtime/spec"
)

func (p *Pods) podsDir() string           { return filepath.Join(p.opt.Root, "pods") }
func (p *Pods) writable(id string) string { return filepath.Join(p.opt.Root, "containers", id) }

// Open reads what earlier daemons left and compares it with what runs. It
// returns when lists and statuses can be answered; what is left to be cleaned
// up is done in the background.
func Open(ctx context.Context, o Options) (*Pods, error) {
	if err := o.complete(); err != nil {
		return nil, err
	}
	facts, err := o.learn()
	if err != nil {
		return nil, fmt.Errorf("pods: %w", err)
	}
	p := &Pods{
		opt:        o,
		log:        o.Logger,
		known:      facts,
		cdi:        cdi.New(o.CDIFolders, o.Logger),
		audits:     audits{turn: make(chan struct{}, 1), stuck: map[string]stuck{}},
		collected:  make(chan struct{}),
		uncounted:  make(chan *Container, 1024),
		sandboxes:  map[string]*Sandbox{},
		making:     map[string]*Sandbox{},
		names:      map[podName]*Sandbox{},
		containers: map[string]*Container{},
	}
	p.ops.pods = p
	for _, dir := range []string{p.podsDir(), p.writable("")} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("pods: %w", err)
		}
		if err := spread.Children(dir); err != nil {
			p.opt.Logger.Debug("pods are not spread over the disk", "err", err)
		}
	}
	p.ctx, p.cancel = context.WithCancel(history.Asked(context.WithoutCancel(ctx), "the daemon itself"))
	tasks := make(chan error, 1)
	var running map[string]Task
	go func() {
		var err error
		running, err = p.opt.Executor.Tasks(ctx)
		tasks <- err
	}()
	found, err := p.load()
	if err := errors.Join(err, <-tasks); err != nil {
		p.cancel()
		return nil, fmt.Errorf("pods: %w", err)
	}
	crashpoint.Here("recovery.read")
	newRecovery(p, running).run(found)
	crashpoint.Here("recovery.compared")
	return p, nil
}

// load reads all records, many at a time: on a full node it is what the first
// answer waits for.
func (p *Pods) load() ([]*Sandbox, error) {
	dirs, err := folders(p.podsDir())
	if err != nil {
		return nil, err
	}
	found := make([]*Sandbox, len(dirs))
	var readers errgroup.Group
	readers.SetLimit(4 * runtime.GOMAXPROCS(0))
	for i, dir := range dirs {
		readers.Go(func() error {
			s, err := p.loadSandbox(dir)
			if errors.Is(err, errNewer) {
				return err
			}
			if errors.Is(err, atomicfile.ErrUnwritten) && !p.lives(dir.id) {
				if err := p.unwritten(&dir); err != nil {
					return err
				}
				s, err = p.loadSandbox(dir)
			}
			if err != nil {
				// What the pod holds besides its record is still to be let go.
				s = p.unnamed(folder{parent: dir.parent, id: dir.id, mark: removing})
				err = p.putAside(dir, err)
			}
			found[i] = s
			return err
		})
	}
	return found, readers.Wait()
}

func (p *Pods) loadSandbox(dir folder) (*Sandbox, error) {
	var r podRecord
	err := atomicfile.ReadJSON(dir.path("pod.json"), &r)
	if (os.IsNotExist(err) || errors.Is(err, atomicfile.ErrUnwritten)) && dir.mark != "" {
		// Killed before the record was written or after it was removed: the
		// name of the folder is all that is left of the pod.
		return p.unnamed(dir), nil
	}
	if err != nil {
		return nil, err
	}
	config := new(criapi.PodSandboxConfig)
	if err := checkRecord(dir, "pod.json", r.Version, r.ID); err != nil {
		return nil, err
	}
	if err := decode(r.Config, config); err != nil {
		return nil, fmt.Errorf("pod.json: config: %w", err)
	}
	if config.Metadata == nil {
		return nil, errors.New("pod.json: config has no metadata")
	}
	s := &Sandbox{ID: r.ID, pods: p, config: config, handler: r.Handler, spec: r.Spec, boot: r.Boot,
		created: r.Created, dir: dir, containers: map[string]*Container{}}
	var at stopMark
	if s.stopped, err = readOptional(dir.path("stopped"), &at); err != nil {
		return nil, err
	}
	begun, err := readOptional(dir.path("stopping"), &at)
	if err != nil {
		return nil, err
	}
	s.stopping = s.stopped || begun || s.boot != p.opt.BootID
	if result, known := p.opt.Network.Result(s.ID); known && !s.stopping {
		s.ips = result.IPs
	}
	if err := atomicfile.Sweep(dir.path()); err != nil {
		return nil, err
	}
	return s, errors.Join(s.loadResources(), s.loadContainers())
}

// unnamed is a pod of which there is no record any more or not yet.
func (p *Pods) unnamed(dir folder) *Sandbox {
	return &Sandbox{ID: dir.id, pods: p, dir: dir, spec: spec.Sandbox{ID: dir.id},
		config: &criapi.PodSandboxConfig{Metadata: &criapi.PodSandboxMetadata{}}}
}

// lives tells whether a pod is of this boot: the power did not go since.
func (p *Pods) lives(id string) bool {
	file, _, err := p.opt.Executor.SandboxNetNS(p.ctx, id)
	if err != nil {
		return false
	}
	return file.Close() == nil
}

// unwritten marks a pod or container of which only the name is left, so that
// it is taken away with all it stands for.
func (p *Pods) unwritten(dir *folder) error {
	p.log.Info("the node lost its power before a record was on the disk: it is removed", "folder", dir.path())
	return dir.move(removing)
}

// putAside keeps a bad record out of the way of the good ones, for a person to
// look at.
func (p *Pods) putAside(dir folder, reason error) error {
	aside := filepath.Join(p.opt.Root, "bad-records")
	if err := os.MkdirAll(aside, 0o700); err != nil {
		return err
	}
	to := filepath.Join(aside, filepath.Base(dir.path())+time.Now().UTC().Format("-20060102T150405.000000000"))
	p.log.Error("bad record, put aside", "folder", dir.path(), "to", to, "err", reason)
	return os.Rename(dir.path(), to)
}
