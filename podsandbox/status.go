package podsandbox

import (
	"net/netip"
	"time"

	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"cri-mini/runtime/spec"
)

// SandboxStatus is a pod at one moment. What it points to is shared: read only.
type SandboxStatus struct {
	ID      string
	Config  *criapi.PodSandboxConfig // as asked for, with the resources of the last update
	Handler string
	Created time.Time
	Ready   bool
	IPs     []netip.Addr // empty with the node's network
	PID     int          // of the reaping init; 0 without one, and when it ended
	Spec    spec.Sandbox
}

// ContainerStatus is a container at one moment. What it points to is shared:
// read only.
type ContainerStatus struct {
	ID         string
	Sandbox    string
	Config     *criapi.ContainerConfig // as asked for
	State      criapi.ContainerState
	Created    time.Time
	Started    time.Time // zero when it never started
	Finished   time.Time
	ExitCode   int32
	Reason     string
	Message    string
	ImageID    string
	ImageRef   string // a digest of the image's repository, or its id
	Mounts     []*criapi.Mount
	LogPath    string // absolute; empty without a log
	Resources  *criapi.LinuxContainerResources
	User       *criapi.LinuxContainerUser
	StopSignal criapi.Signal
	PID        int // 0 unless it runs
	Spec       spec.Container
}
