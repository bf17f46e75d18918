package podsandbox

import (
	"context"
	"time"

	"cri-mini/podsandbox/metrics"
	"cri-mini/runtime/spec"
)

// SandboxStats tells what all pods use that run and match. One that cannot be
// measured is left out: it must not hide the others.
func (p *Pods) SandboxStats(ctx context.Context, match func(SandboxStatus) bool) ([]SandboxStats, error) {
	own := p.ownGroups()
	return measured(ctx, p.Sandboxes(), func(s *Sandbox) (SandboxStats, bool) {
		if !s.ready() || !match(s.Status()) {
			return SandboxStats{}, false
		}
		stats, err := s.stats(ctx, own)
		if err != nil && s.ready() { // else it was stopped while we looked
			p.log.Warn("cannot measure a pod", "pod", s.ID, "err", err)
		}
		return stats, err == nil
	})
}

// WritableUsage adds up the latest figures of all writable layers. Those of
// containers that ended stay until they are removed.
func (p *Pods) WritableUsage() spec.DiskUsage {
	sum := spec.DiskUsage{At: time.Now()}
	for _, c := range p.Containers() {
		if u := c.meter.layer(); u != nil {
			sum.Bytes += u.Bytes
			sum.Inodes += u.Inodes
		}
	}
	return sum
}

// PodMetrics are the metrics of a pod and of its running containers.
type PodMetrics struct {
	ID         string
	Pod        []metrics.Metric
	Containers []ContainerMetrics
}

// ContainerMetrics are the metrics of one container.
type ContainerMetrics struct {
	ID      string
	Metrics []metrics.Metric
}

// Metrics measures all pods that run.
func (p *Pods) Metrics(ctx context.Context) ([]PodMetrics, error) {
	disk, err := p.opt.Executor.FileSystem(p.writable(""))
	if err != nil {
		return nil, err
	}
	return measured(ctx, p.Sandboxes(), func(s *Sandbox) (PodMetrics, bool) {
		if !s.ready() {
			return PodMetrics{}, false
		}
		return s.metrics(ctx, disk), true
	})
}

func (s *Sandbox) metrics(ctx context.Context, disk spec.FileSystem) PodMetrics {
	m := PodMetrics{ID: s.ID}
	name := s.config.GetMetadata()
	pod := metrics.Identity{ID: s.ID, Namespace: name.GetNamespace(), Pod: name.GetName()}
	if !s.spec.HostNetwork {
		interfaces, err := s.pods.opt.Executor.Interfaces(ctx, s.ID)
		if err != nil && s.ready() {
			s.pods.log.Warn("cannot measure the network of a pod", "pod", s.ID, "err", err)
		}
		m.Pod = metrics.OfPod(metrics.Pod{Identity: pod, Interfaces: interfaces})
	}
	for _, c := range byAgeOfContainers(s.Containers()) {
		if list, there := c.metrics(pod, disk); there {
			m.Containers = append(m.Containers, ContainerMetrics{ID: c.ID, Metrics: list})
		}
	}
	return m
}

func (c *Container) metrics(pod metrics.Identity, disk spec.FileSystem) ([]metrics.Metric, bool) {
	if _, err := c.running("measure"); err != nil {
		return nil, false
	}
	stats, there := c.Sandbox.pods.orMissing(c)
	if !there {
		return nil, false
	}
	one := metrics.Container{
		Identity: metrics.Identity{
			Container: c.config.GetMetadata().GetName(), ID: c.ID, Image: imageLabel(stats.Status),
			Namespace: pod.Namespace, Pod: pod.Pod,
		},
		Started: stats.Status.Started, Seen: time.Now(),
		Usage: stats.Usage, Writable: stats.Writable, Disk: &disk, HugetlbPeaks: c.meter.hugetlbPeaks(),
	}
	inside, err := c.Sandbox.pods.opt.Executor.Inside(c.ID)
	if err == nil {
		one.Inside = &inside
	} else if _, ended := c.running("measure"); ended == nil {
		c.Sandbox.pods.log.Warn("cannot look at the processes of a container", "container", c.ID, "err", err)
	}
	return metrics.OfContainer(one), true
}

// imageLabel is the image by the name that the user wrote.
func imageLabel(s ContainerStatus) string {
	image := s.Config.GetImage()
	if name := image.GetUserSpecifiedImage(); name != "" {
		return name
	}
	return image.GetImage()
}
