package podsandbox

import (
	"context"
	"errors"
	"io/fs"
	"time"

	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"cri-mini/runtime/spec"
)

// Nobody waits for a disk to learn what a container uses. Writable layers are
// counted in the background and answers come from memory.
const (
	usagePace = 10 * time.Second // how often everything is looked at
	counters  = 2                // layers counted at a time; each count works a tenth of its time
	// recount is when a layer is counted again though its container did
	// nothing: something may have been written from outside.
	recount = 10 * time.Minute
	// settle is when what was written is on the disk: only then is it known
	// what it takes there.
	settle = 40 * time.Second
	// countLimit ends a count that would take for ever, as when somebody makes
	// files faster than they are counted.
	countLimit = 10 * time.Minute
	// countRest is how many times longer than the last count took it is at
	// least until the next one of the same layer.
	countRest = 5
)

// measure begins with a container that was just started.
func (p *Pods) measure(c *Container, started time.Time) {
	c.meter.begin(started)
	if c.meter.ask() {
		p.askForCount(c)
	}
}

// askForCount never waits. When the queue is full, the next look asks again.
func (p *Pods) askForCount(c *Container) {
	select {
	case p.uncounted <- c:
	default:
		c.meter.unask()
	}
}

// watchUsage samples processor time, so that a question that comes seldom gets
// a figure of now, and finds the layers that may have changed.
func (p *Pods) watchUsage() {
	tick := time.NewTicker(usagePace)
	defer tick.Stop()
	for {
		p.lookAtUsage()
		select {
		case <-tick.C:
		case <-p.ctx.Done():
			return
		}
	}
}

func (p *Pods) lookAtUsage() {
	for _, c := range p.Containers() {
		c.mu.Lock()
		runs, group := c.stateLocked() == criapi.ContainerState_CONTAINER_RUNNING, c.spec.Cgroup
		c.mu.Unlock()
		if !runs {
			continue
		}
		used, err := p.opt.Executor.CPUTime(group)
		if err != nil {
			continue // it ends; else who asks for its use gets the error
		}
		if c.meter.tick(time.Now(), used) {
			p.askForCount(c)
		}
	}
	own := p.ownGroups()
	for _, s := range p.Sandboxes() {
		if !s.ready() {
			continue
		}
		if used, err := s.cpuTime(own.of(s)); err == nil {
			s.meter.see(spec.Stats{At: time.Now(), CPU: spec.CPU{Nanos: used}})
		}
	}
}

// tick takes a sample and tells whether the layer is to be counted. Where no
// processor time was used, nothing can have been written, and the old figure
// is still that of now; only once, when all is on the disk, it is looked at
// again.
func (m *meter) tick(now time.Time, used uint64) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if used > m.cpu.newest {
		m.active = now
	}
	m.cpu.observe(sample{now, used})
	settled := now.Sub(m.active) < settle || m.counted.Sub(m.active) >= settle
	switch {
	case m.queued:
		return false
	case !m.counted.IsZero() && used == m.idleAt && settled && now.Sub(m.counted) < recount:
		m.writable.At = now
		return false
	case now.Before(m.notUntil):
		return false
	}
	m.queued = true
	return true
}

func (m *meter) ask() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.queued {
		return false
	}
	m.queued = true
	return true
}

func (m *meter) unask() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.queued = false
}

// countWritable counts one layer after the other.
func (p *Pods) countWritable() {
	for {
		select {
		case c := <-p.uncounted:
			p.count(c)
		case <-p.ctx.Done():
			return
		}
	}
}

func (p *Pods) count(c *Container) {
	s, err := c.running("count the writable layer")
	if err != nil {
		c.meter.unask()
		return // it ended before its turn
	}
	ctx, cancel := context.WithTimeout(p.ctx, countLimit)
	defer cancel()
	go func() {
		select {
		case <-c.exited:
			cancel()
		case <-ctx.Done():
		}
	}()
	// Read first: what is written while we count shows as a change.
	used, err := p.opt.Executor.CPUTime(s.Cgroup)
	began := time.Now()
	usage := spec.DiskUsage{}
	if err == nil {
		usage, err = p.opt.Executor.Writable(ctx, s.Rootfs)
	}
	c.meter.count(usage, began, used, err == nil)
	if err != nil && p.ctx.Err() == nil && !errors.Is(err, context.Canceled) && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, spec.ErrUnknown) {
		p.log.Warn("cannot count a writable layer to its end", "container", c.ID, "err", err)
	}
}

// count keeps a figure. One that is not complete is at least a lower bound.
func (m *meter) count(u spec.DiskUsage, began time.Time, used uint64, complete bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.queued = false
	m.notUntil = time.Now().Add(countRest * time.Since(began))
	if complete {
		m.writable, m.counted, m.idleAt = u, began, used
	} else if u.Bytes > m.writable.Bytes {
		m.writable = u
		m.counted = time.Time{}
	}
}
