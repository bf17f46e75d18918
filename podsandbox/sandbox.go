package podsandbox

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"cri-mini/internal/crashpoint"
	"cri-mini/podsandbox/network"
	"cri-mini/runtime/spec"
)

// Sandbox is one pod: the namespaces and the network its containers share. It
// is safe for concurrent use.
type Sandbox struct {
	ID string

	pods    *Pods
	config  *criapi.PodSandboxConfig
	handler string
	spec    spec.Sandbox
	boot    string
	created time.Time
	dir     folder // moved only by run and remove

	// files is held while resources.json is written or a complete pod's folder
	// moved. No record may appear in a folder that is being deleted.
	files sync.Mutex

	mu         sync.Mutex
	updated    *criapi.PodSandboxConfig // config with later resources; nil without
	containers map[string]*Container    // complete ones
	ips        []netip.Addr
	init       int    // process id of the reaping init; 0 without one
	stopping   bool   // it will never be ready again
	stopped    bool   // nothing is left to stop
	removed    bool   // it is in no table any more
	spent      uint64 // processor time of containers that were removed, in ns

	told step // of its life, to subscribers; guarded by events.mu

	meter meter
}

// Status tells how the pod is.
func (s *Sandbox) Status() SandboxStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	return SandboxStatus{
		ID:      s.ID,
		Config:  cmp.Or(s.updated, s.config),
		Handler: s.handler,
		Created: s.created,
		Ready:   !s.stopping,
		IPs:     s.ips,
		PID:     s.init,
		Spec:    s.spec,
	}
}

// Containers lists the pod's containers in no order.
func (s *Sandbox) Containers() []*Container {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]*Container, 0, len(s.containers))
	for _, c := range s.containers {
		list = append(list, c)
	}
	return list
}

func (s *Sandbox) ready() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.stopping
}

func (s *Sandbox) named(m *criapi.ContainerMetadata) *Container {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.containers {
		if c.config.Metadata.GetName() == m.GetName() && c.config.Metadata.GetAttempt() == m.GetAttempt() {
			return c
		}
	}
	return nil
}

// netPod is the pod as the network knows it. The namespace may be gone, after a
// reboot or half a removal; the rest is then enough to give back addresses.
func (s *Sandbox) netPod() (pod network.Pod, done func()) {
	m := s.config.Metadata
	pod = network.Pod{
		ID:           s.ID,
		Name:         m.Name,
		Namespace:    m.Namespace,
		UID:          m.Uid,
		Labels:       s.config.Labels,
		Annotations:  s.config.Annotations,
		CgroupParent: s.config.GetLinux().GetCgroupParent(),
	}
	for _, p := range s.config.PortMappings {
		ip, _ := netip.ParseAddr(p.HostIp) // checked by the plan; "" is every address
		pod.Ports = append(pod.Ports, network.PortMapping{
			Protocol:      p.Protocol.String(),
			ContainerPort: uint16(p.ContainerPort),
			HostPort:      uint16(p.HostPort),
			HostIP:        ip,
		})
	}
	file, path, err := s.pods.opt.Executor.SandboxNetNS(context.Background(), s.ID)
	if err != nil || file == nil {
		return pod, func() {}
	}
	pod.NetNS, pod.NetNSFile = path, file
	return pod, func() { file.Close() }
}

// release lets go what the pod holds outside of its folder: addresses and
// namespaces. It may be called again after it failed.
func (s *Sandbox) release(ctx context.Context) error {
	var failed error
	if !s.spec.HostNetwork {
		n, done := s.netPod()
		if err := s.pods.opt.Network.Teardown(ctx, n); err != nil {
			failed = fmt.Errorf("network: %w", err)
		}
		done()
	}
	crashpoint.Here("pod.disconnected")
	if err := s.pods.opt.Executor.RemoveSandbox(ctx, s.ID); err != nil {
		failed = errors.Join(failed, fmt.Errorf("namespaces: %w", err))
	}
	return failed
}
