package podsandbox

import (
	"encoding/json"
	"fmt"

	"google.golang.org/protobuf/proto"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"cri-mini/internal/crashpoint"
)

// podResources is the file with the overhead and resources of the last update.
const podResources = "resources.json"

// UpdateResources keeps what the kubelet says of the pod as a whole. The pod's
// cgroup is the kubelet's to change, so nothing else follows. What is nil
// stays. After an error nothing has changed.
func (s *Sandbox) UpdateResources(overhead, resources *criapi.LinuxContainerResources) error {
	s.files.Lock()
	defer s.files.Unlock()
	if s.dir.mark == removing {
		return fmt.Errorf("pod %q: %w: it is being removed", s.ID, ErrNotFound)
	}
	linux := &criapi.LinuxPodSandboxConfig{Overhead: overhead, Resources: resources}
	before := s.Status().Config.GetLinux()
	if overhead == nil {
		linux.Overhead = before.GetOverhead()
	}
	if resources == nil {
		linux.Resources = before.GetResources()
	}
	encoded, err := encode(linux)
	if err != nil {
		return err
	}
	if err := s.dir.write(podResources, encoded); err != nil {
		return fmt.Errorf("resources of pod %s: %w", s.ID, err)
	}
	crashpoint.Here("update-pod.recorded")
	s.setResources(linux)
	return nil
}

// setResources makes the config that is shown: the one that was asked for, with
// other resources. The old one may be in use.
func (s *Sandbox) setResources(linux *criapi.LinuxPodSandboxConfig) {
	config := proto.CloneOf(s.config)
	if config.Linux == nil {
		config.Linux = &criapi.LinuxPodSandboxConfig{}
	}
	config.Linux.Overhead, config.Linux.Resources = proto.CloneOf(linux.Overhead), proto.CloneOf(linux.Resources)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.updated = config
}

// loadResources reads the resources of the last update, if there was one.
func (s *Sandbox) loadResources() error {
	var encoded json.RawMessage
	found, err := readOptional(s.dir.path(podResources), &encoded)
	if err != nil || !found {
		return err
	}
	linux := new(criapi.LinuxPodSandboxConfig)
	if err := decode(encoded, linux); err != nil {
		return fmt.Errorf("%s: %w", podResources, err)
	}
	s.setResources(linux)
	return nil
}
