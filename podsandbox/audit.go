package podsandbox

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"cri-mini/internal/audit"
	"cri-mini/internal/mishap"
	"cri-mini/runtime/spec"
)

const (
	auditPace = time.Hour // the first is at the start
	// lookAgain is between the two looks in which a thing must be without a record:
	// the kernel takes its time to end what was let go.
	lookAgain = 2 * time.Second
	// removalTime is for one leftover, whose process may never end.
	removalTime = 30 * time.Second
	// askTime is for questions to the monitor about all pods.
	askTime = 30 * time.Second
)

// audits is what is kept between two audits.
type audits struct {
	turn  chan struct{}    // held by the one at work, guards what follows
	stuck map[string]stuck // leftovers that could not be removed, by key
}

// stuck is why a leftover is still there.
type stuck struct {
	why   string
	since time.Time
}

// watchLeftovers removes from time to time what no record stands for.
func (p *Pods) watchLeftovers() {
	for wait := time.Duration(0); ; wait = auditPace {
		select {
		case <-time.After(wait):
		case <-p.ctx.Done():
			return
		}
		report, err := p.Audit(p.ctx, true, false)
		if err != nil {
			if p.ctx.Err() == nil {
				p.log.Warn("cannot compare what there is with the records", "err", err)
			}
			continue
		}
		for _, f := range report.Findings {
			if f.About == audit.Removed || f.About == audit.Missing {
				p.log.Warn("audit", "about", f.About, "kind", f.Kind, "name", f.Name, "owner", f.Owner, "why", f.Why)
			}
		}
	}
}

// Audit compares kernel and disk with the records. With remove it takes away what
// no record stands for. What it could not take away before is tried again only when
// again is set.
func (p *Pods) Audit(ctx context.Context, remove, again bool) (audit.Report, error) {
	report := audit.Report{At: time.Now()}
	select {
	case p.audits.turn <- struct{}{}:
		defer func() { <-p.audits.turn }()
	case <-ctx.Done():
		return report, ctx.Err()
	}
	select {
	case <-p.collected: // the network is being cleaned
	case <-ctx.Done():
		return report, ctx.Err()
	}
	before := p.running()
	things, err := p.things(ctx)
	if err != nil {
		return report, err
	}
	report.Count(things)
	known, err := p.recorded()
	if err != nil {
		return report, err
	}
	report.Add(p.missing(ctx, before, things)...)
	leftovers, foreign := audit.Compare(things, known)
	for _, t := range foreign {
		report.Add(t.Finding(audit.Foreign, t.Foreign, "if nobody needs it, remove it by hand"))
	}
	if len(leftovers) > 0 {
		if leftovers, err = p.confirmed(ctx, leftovers); err != nil {
			return report, err
		}
	}
	p.forgetUnstuck(leftovers)
	for _, t := range leftovers {
		report.Add(p.judge(ctx, t, remove, again))
		if ctx.Err() != nil {
			return report, ctx.Err() // why the rest could not be removed would be wrong
		}
	}
	report.Add(p.badRecords()...)
	report.Sort()
	report.Took = time.Since(report.At)
	return report, nil
}

// confirmed are those that still are there, and still without a record, after a
// while.
func (p *Pods) confirmed(ctx context.Context, leftovers []audit.Thing) ([]audit.Thing, error) {
	select {
	case <-time.After(lookAgain):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	things, err := p.things(ctx)
	if err != nil {
		return nil, err
	}
	known, err := p.recorded()
	if err != nil {
		return nil, err
	}
	again, _ := audit.Compare(things, known)
	return slices.DeleteFunc(again, func(t audit.Thing) bool {
		return !slices.ContainsFunc(leftovers, func(l audit.Thing) bool { return l.Key() == t.Key() })
	}), nil
}

// judge decides on one leftover, and removes it if that is wanted.
func (p *Pods) judge(ctx context.Context, t audit.Thing, remove, again bool) audit.Finding {
	const why = "belongs to no record"
	before, isStuck := p.audits.stuck[t.Key()]
	switch {
	case t.Stays != "":
		return t.Finding(audit.Quarantine, why+"; left alone: "+t.Stays, "decide by hand")
	case isStuck && !again:
		return t.Finding(audit.Quarantine, fmt.Sprintf("%s; could not be removed at %s: %s", why, before.since.Format(time.DateTime), before.why),
			"remove the cause, then: cri-mini gc")
	case !remove:
		return t.Finding(audit.Leftover, why, "cri-mini gc")
	}
	limited, cancel := context.WithTimeout(ctx, removalTime)
	defer cancel()
	err := mishap.Caught(p.log, "remove "+t.Key(), func() error { return t.Remove(limited) })
	if err == nil {
		delete(p.audits.stuck, t.Key())
		return t.Finding(audit.Removed, "belonged to no record", "")
	}
	if ctx.Err() != nil { // nobody waits any more; it says nothing of the thing
		return t.Finding(audit.Leftover, why, "cri-mini gc")
	}
	p.audits.stuck[t.Key()] = stuck{err.Error(), time.Now()}
	p.log.Warn("a leftover cannot be removed; it will not be tried again by itself", "kind", t.Kind, "name", t.Name, "owner", t.Owner, "err", err)
	return t.Finding(audit.Quarantine, why+"; could not be removed: "+err.Error(), "remove the cause, then: cri-mini gc")
}

// forgetUnstuck drops what went away by itself.
func (p *Pods) forgetUnstuck(leftovers []audit.Thing) {
	maps.DeleteFunc(p.audits.stuck, func(key string, _ stuck) bool {
		return !slices.ContainsFunc(leftovers, func(t audit.Thing) bool { return t.Key() == key })
	})
}

// things lists all that is ours, in the order in which it can be removed.
func (p *Pods) things(ctx context.Context) ([]audit.Thing, error) {
	mounts, err := mountThings(p.opt.Root)
	if err != nil {
		return nil, err
	}
	folders, err := p.folderThings()
	if err != nil {
		return nil, err
	}
	network, err := p.opt.Network.Connections()
	if err != nil {
		return nil, fmt.Errorf("network: %w", err)
	}
	executor, err := p.opt.Executor.Things(ctx, p.opt.CgroupParent)
	if err != nil {
		return nil, err
	}
	layers, err := writableThings(p.opt.Root)
	if err != nil {
		return nil, err
	}
	images, err := p.opt.Images.StoredLayers()
	if err != nil {
		return nil, fmt.Errorf("image store: %w", err)
	}
	for i := range images {
		if owner := images[i].Owner; owner != "" {
			images[i].Owner = imageOwner + owner
		}
	}
	return slices.Concat(mounts, network, executor, layers, folders, images), nil
}

// Things is the part of an audit that is found below a root while no daemon runs.
func Things(root string) ([]audit.Thing, error) {
	mounts, err := mountThings(root)
	if err != nil {
		return nil, err
	}
	layers, err := writableThings(root)
	return append(mounts, layers...), err
}

// imageOwner begins the owner of a layer that the image store says is in use.
const imageOwner = "layer "

const kindWritable = "writable layer"

// writableThings are the folders of containers' own files.
func writableThings(root string) ([]audit.Thing, error) {
	list, err := audit.Folder(filepath.Join(root, "containers"), kindWritable, func(name string) string { return name })
	for i, t := range list {
		list[i].Remove = func(context.Context) error { return audit.RemoveFolder(t.Name) }
	}
	return list, err
}

// mountThings are mounts in the node's table below folders of ours, where we never
// make any. One in the folder of nobody keeps it from being removed.
func mountThings(root string) ([]audit.Thing, error) {
	var list []audit.Thing
	for _, dir := range []string{filepath.Join(root, "containers"), filepath.Join(root, "pods")} {
		dir, err := filepath.EvalSymlinks(dir) // the table has no links
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		points, err := audit.Mounts(dir)
		if err != nil {
			return nil, err
		}
		for _, point := range slices.Backward(points) { // the inner ones first
			t := audit.Thing{Kind: "mount", Name: point}
			for name := range strings.SplitSeq(strings.TrimPrefix(point, dir), "/") {
				if _, id := markOf(name); audit.IsID(id) {
					t.Owner = id
				}
			}
			if t.Owner == "" {
				t.Foreign = "mounted in a folder of ours, but not in that of a pod or container"
			}
			t.Remove = func(context.Context) error { return audit.Detach(point) }
			list = append(list, t)
		}
	}
	return list, nil
}

// folderThings are folders where records are. One that the daemon does not know was
// made by somebody else since it started.
func (p *Pods) folderThings() ([]audit.Thing, error) {
	pods, err := folders(p.podsDir())
	if err != nil {
		return nil, err
	}
	var list []audit.Thing
	for _, pod := range pods {
		list = append(list, recordThing(pod, "pod.json"))
		inside, err := folders(pod.path("containers"))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		for _, c := range inside {
			list = append(list, recordThing(c, "container.json"))
		}
	}
	inMemory := p.inMemory()
	return slices.DeleteFunc(list, func(t audit.Thing) bool { return inMemory[strings.TrimPrefix(t.Owner, folderOwner)] || t.Kind == "" }), nil
}

// folderOwner begins the owner of a folder: a folder is not a record of itself.
const folderOwner = "folder of "

func recordThing(dir folder, record string) audit.Thing {
	if dir.mark != "" {
		return audit.Thing{} // a call is at work on it
	}
	t := audit.Thing{Kind: "record folder", Name: dir.path(), Owner: folderOwner + dir.id}
	if info, err := os.Stat(dir.path()); err == nil {
		t.Since = info.ModTime()
	}
	if !audit.IsID(dir.id) {
		t.Foreign = "its name is no id of a pod or container"
	}
	if _, err := os.Stat(dir.path(record)); err == nil {
		t.Stays = "it has a record, which the next daemon reads"
	}
	t.Remove = func(context.Context) error { return audit.RemoveFolder(dir.path()) }
	return t
}

// recorded are the ids of all pods and containers that exist, that are being made, or
// that are being taken away.
func (p *Pods) recorded() (map[string]bool, error) {
	ids := p.inMemory()
	onDisk, err := RecordIDs(p.opt.Root)
	if err != nil {
		return nil, err
	}
	maps.Copy(ids, onDisk)
	maps.Copy(ids, p.inMemory())
	layers, err := p.opt.Images.StoredLayers()
	if err != nil {
		return nil, err
	}
	for _, t := range layers {
		if t.Owner != "" {
			ids[imageOwner+t.Owner] = true
		}
	}
	return ids, nil
}

// inMemory are the ids in the tables, and of the calls at work.
func (p *Pods) inMemory() map[string]bool {
	ids := map[string]bool{}
	p.ops.mu.Lock()
	for _, op := range p.ops.running {
		ids[op.about.PodID], ids[op.about.ContainerID] = true, true
	}
	p.ops.mu.Unlock()
	p.mu.RLock()
	defer p.mu.RUnlock()
	for id := range p.sandboxes {
		ids[id] = true
	}
	for id := range p.making {
		ids[id] = true
	}
	for id := range p.containers {
		ids[id] = true
	}
	delete(ids, "")
	return ids
}

// RecordIDs are the ids of the pods and containers that have a folder below a root,
// however far they are.
func RecordIDs(root string) (map[string]bool, error) {
	ids := map[string]bool{}
	pods, err := folders(filepath.Join(root, "pods"))
	if errors.Is(err, fs.ErrNotExist) {
		return ids, nil
	}
	if err != nil {
		return nil, err
	}
	for _, pod := range pods {
		if pod.isRecord("pod.json") {
			ids[pod.id] = true
		}
		containers, err := folders(pod.path("containers"))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		for _, c := range containers {
			if c.isRecord("container.json") {
				ids[c.id] = true
			}
		}
	}
	return ids, nil
}

// isRecord says that a folder stands for something: it has a record, or is marked
// because a call is at work on it.
func (f folder) isRecord(name string) bool {
	_, err := os.Stat(f.path(name))
	return f.mark != "" || err == nil
}

func (p *Pods) badRecords() []audit.Finding {
	entries, err := os.ReadDir(filepath.Join(p.opt.Root, "bad-records"))
	if err != nil {
		return nil // there is none
	}
	var list []audit.Finding
	for _, e := range entries {
		f := audit.Finding{About: audit.Notice, Kind: "bad record", Name: filepath.Join(p.opt.Root, "bad-records", e.Name()),
			Why: "it could not be read, and its pod or container was ended", Do: "look at it, then delete it"}
		if info, err := e.Info(); err == nil {
			f.Since = info.ModTime()
		}
		list = append(list, f)
	}
	return list
}

// running lists what must have its things.
func (p *Pods) running() map[string]spec.Container {
	list := map[string]spec.Container{}
	for _, c := range p.Containers() {
		if c.state() == criapi.ContainerState_CONTAINER_RUNNING {
			list[c.ID] = c.Status().Spec
		}
	}
	return list
}

// missing tells what running containers and ready pods have lost. What was so
// before the things were listed and is so after them cannot have been on its way.
func (p *Pods) missing(ctx context.Context, before map[string]spec.Container, things []audit.Thing) []audit.Finding {
	has := map[string]bool{}
	for _, t := range things {
		has[t.Kind+" "+t.Owner] = true
	}
	var list []audit.Finding
	after := p.running()
	for id, c := range before {
		if _, still := after[id]; !still {
			continue
		}
		for _, kind := range []string{"task of the monitor", "control group", kindWritable} {
			if has[kind+" "+id] || kind == kindWritable && c.Rootfs.Writable == "" {
				continue
			}
			list = append(list, audit.Finding{About: audit.Missing, Kind: kind, Owner: id,
				Why: "the container is said to run", Do: "stop the container; the kubelet makes it anew"})
		}
	}
	limited, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	for _, s := range p.Sandboxes() {
		file, _, err := p.opt.Executor.SandboxNetNS(limited, s.ID)
		if file != nil {
			file.Close()
		}
		if errors.Is(err, spec.ErrUnknown) && s.ready() && p.stillThere(s) {
			list = append(list, audit.Finding{About: audit.Missing, Kind: "namespaces", Owner: s.ID,
				Why: "the pod is said to be ready", Do: "stop the pod; the kubelet makes it anew"})
		}
	}
	if limited.Err() != nil {
		p.log.Warn("audit: the monitor does not tell of all pods", "err", limited.Err())
	}
	if lost, err := p.opt.Network.LostConnections(); err == nil {
		list = append(list, lost...)
	} else {
		p.log.Warn("audit: network", "err", err)
	}
	return append(list, p.opt.Images.MissingLayers()...)
}

func (p *Pods) stillThere(s *Sandbox) bool {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.sandboxes[s.ID] == s
}
