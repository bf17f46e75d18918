package podsandbox

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"time"

	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"cri-mini/runtime/spec"
)

// SandboxStats is what a pod uses.
type SandboxStats struct {
	Status    SandboxStatus
	Usage     spec.Stats
	NanoCores *uint64 // as of a container
	// Default is the interface that the pod's addresses are on. It and Others
	// are nothing for a pod in the node's network.
	Default    *spec.Interface
	Others     []spec.Interface
	Containers []ContainerStats // those that run
}

// defaultInterface is what the built-in network and the kubelet's CNI calls
// name the first interface of a pod.
const defaultInterface = "eth0"

// Stats tells what the pod uses. A stopped pod uses what its containers left.
func (s *Sandbox) Stats(ctx context.Context) (SandboxStats, error) {
	return s.stats(ctx, s.pods.ownGroups())
}

func (s *Sandbox) stats(ctx context.Context, own ownGroups) (SandboxStats, error) {
	stats := SandboxStats{Status: s.Status()}
	var ended []*Container
	for _, c := range byAgeOfContainers(s.Containers()) {
		if c.state() == criapi.ContainerState_CONTAINER_RUNNING {
			if one, there := s.pods.orMissing(c); there {
				stats.Containers = append(stats.Containers, one)
			}
			continue
		}
		ended = append(ended, c)
	}
	if err := s.network(ctx, &stats); err != nil {
		return stats, fmt.Errorf("stats of pod %s: %w", s.ID, err)
	}
	var err error
	if stats.Usage, err = s.usage(own.of(s), stats.Containers, ended); err != nil {
		return stats, fmt.Errorf("stats of pod %s: %w", s.ID, err)
	}
	stats.NanoCores = s.meter.see(stats.Usage)
	return stats, nil
}

func byAgeOfContainers(list []*Container) []*Container {
	slices.SortFunc(list, func(a, b *Container) int { return byAge(a.created, b.created, a.ID, b.ID) })
	return list
}

func (s *Sandbox) network(ctx context.Context, stats *SandboxStats) error {
	if s.spec.HostNetwork || !stats.Status.Ready {
		return nil
	}
	list, err := s.pods.opt.Executor.Interfaces(ctx, s.ID)
	if err != nil || len(list) == 0 {
		return err
	}
	first := max(slices.IndexFunc(list, func(i spec.Interface) bool { return i.Name == defaultInterface }), 0)
	stats.Default, stats.Others = &list[first], slices.Concat(list[:first], list[first+1:])
	return nil
}

// usage reads the pod's own group, or else adds up what is known to belong to
// the pod: running and ended containers, and the init of a shared PID
// namespace.
func (s *Sandbox) usage(own string, running []ContainerStats, ended []*Container) (spec.Stats, error) {
	executor := s.pods.opt.Executor
	if own != "" {
		usage, err := executor.Stats(own, 0)
		if !errors.Is(err, spec.ErrUnknown) {
			return usage, err
		}
	}
	parts := make([]spec.Stats, 0, len(running)+1)
	for _, c := range running {
		parts = append(parts, c.Usage)
	}
	for _, c := range ended {
		usage, err := c.usage(c.Status())
		if errors.Is(err, spec.ErrUnknown) {
			continue
		}
		if err != nil {
			return spec.Stats{}, err
		}
		c.meter.see(usage)
		parts = append(parts, usage)
	}
	if s.spec.SharedPID {
		usage, err := executor.Stats(s.spec.Cgroup, 0)
		if err != nil && !errors.Is(err, spec.ErrUnknown) {
			return spec.Stats{}, err
		}
		if err == nil {
			parts = append(parts, usage)
		}
	}
	sum := total(parts)
	s.mu.Lock()
	defer s.mu.Unlock()
	sum.CPU.Nanos += s.spent
	return sum, nil
}

// cpuTime is the processor time in what usage gives.
func (s *Sandbox) cpuTime(own string) (uint64, error) {
	executor := s.pods.opt.Executor
	if own != "" {
		if used, err := executor.CPUTime(own); !errors.Is(err, spec.ErrUnknown) {
			return used, err
		}
	}
	var groups []string
	for _, c := range s.Containers() {
		groups = append(groups, c.Status().Spec.Cgroup)
	}
	if s.spec.SharedPID {
		groups = append(groups, s.spec.Cgroup)
	}
	s.mu.Lock()
	sum := s.spent
	s.mu.Unlock()
	for _, group := range groups {
		used, err := executor.CPUTime(group)
		if err != nil && !errors.Is(err, spec.ErrUnknown) {
			return 0, err
		}
		sum += used
	}
	return sum, nil
}

// total adds up groups. Pressure cannot be added: two that waited at the same
// time waited once.
func total(parts []spec.Stats) spec.Stats {
	sum := spec.Stats{At: time.Now()}
	limited := len(parts) > 0
	for _, p := range parts {
		sum.CPU.Nanos += p.CPU.Nanos
		sum.CPU.UserNanos += p.CPU.UserNanos
		sum.CPU.SystemNanos += p.CPU.SystemNanos
		sum.Processes += p.Processes
		if m := p.Memory; m != nil {
			if sum.Memory == nil {
				sum.Memory = &spec.Memory{}
			}
			limited = limited && m.Limit != 0
			sum.Memory.Usage += m.Usage
			sum.Memory.WorkingSet += m.WorkingSet
			sum.Memory.RSS += m.RSS
			sum.Memory.PageFaults += m.PageFaults
			sum.Memory.MajorPageFaults += m.MajorPageFaults
			sum.Memory.Limit += m.Limit
		}
	}
	if sum.Memory != nil && !limited {
		sum.Memory.Limit = 0 // one may take all there is
	}
	return sum
}

// ownGroups are the control groups that belong to one pod each.
type ownGroups struct {
	owner  map[string]podName
	shared map[string]bool
}

// ownGroups finds the groups that a request named as parent of a pod and
// nobody else's things are in, as far as we know: no other pod has the same
// parent, or one below. A second attempt at the same pod is no other pod. The
// kubelet makes such a group for each pod; who names none gets one for all.
func (p *Pods) ownGroups() ownGroups {
	own := ownGroups{owner: map[string]podName{}, shared: map[string]bool{}}
	p.mu.RLock()
	defer p.mu.RUnlock()
	for _, s := range p.sandboxes {
		parent, name := path.Dir(s.spec.Cgroup), nameOf(s.config.GetMetadata())
		name.attempt = 0
		if other, taken := own.owner[parent]; taken && other != name || !s.namesParent() {
			own.shared[parent] = true
		}
		own.owner[parent] = name
		for above := path.Dir(parent); above != "/" && above != "."; above = path.Dir(above) {
			own.shared[above] = true
		}
	}
	return own
}

// of gives the group of a pod; empty when it has none of its own.
func (o ownGroups) of(s *Sandbox) string {
	parent := path.Dir(s.spec.Cgroup)
	if !s.namesParent() || o.shared[parent] {
		return ""
	}
	return parent
}

// namesParent says whether the request named a parent other than the root.
func (s *Sandbox) namesParent() bool {
	return path.Clean("/"+s.config.GetLinux().GetCgroupParent()) != "/"
}
