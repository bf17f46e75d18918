package main

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/grpc"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"cri-mini/test/critest/internal/instance"
)

const (
	image      = "registry.test/busybox:1.29-2"
	pauseImage = "registry.test/pause:bench" // sleeps, in as little memory as image does
	patience   = 2 * time.Minute             // for a life's half
)

// client is the kubelet's side of the socket.
type client struct {
	connection *grpc.ClientConn
	runtime    criapi.RuntimeServiceClient
	images     criapi.ImageServiceClient
	logs       string // folder for what containers print
}

func dial(endpoint, logs string) (*client, error) {
	connection, err := instance.Connect(endpoint)
	if err != nil {
		return nil, err
	}
	return &client{connection, criapi.NewRuntimeServiceClient(connection), criapi.NewImageServiceClient(connection), logs}, nil
}

func (c *client) pull(name string) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if _, err := c.images.PullImage(ctx, &criapi.PullImageRequest{Image: &criapi.ImageSpec{Image: name}}); err != nil {
		return fmt.Errorf("pull %s: %w", name, err)
	}
	return nil
}

func (c *client) close() { _ = c.connection.Close() }

// pod is a pod with one container that sleeps.
type pod struct {
	c         *client
	config    *criapi.PodSandboxConfig
	id        string
	container string
	asked     time.Time // for the start
	options   *criapi.NamespaceOption
	forget    func() error // removes the cgroup that the kubelet would have made
}

func (s *subject) newPod() (*pod, error) {
	name := fmt.Sprintf("bench-%d", s.count.Add(1))
	parent := "/pods/" + name
	forget, err := s.place.MakeGroup(parent)
	if err != nil {
		return nil, err
	}
	options := &criapi.NamespaceOption{Pid: criapi.NamespaceMode_CONTAINER}
	return &pod{c: s.client, forget: forget, options: options, config: &criapi.PodSandboxConfig{
		Metadata:     &criapi.PodSandboxMetadata{Name: name, Namespace: "bench", Uid: name},
		Hostname:     name,
		LogDirectory: s.logs,
		Linux:        &criapi.LinuxPodSandboxConfig{CgroupParent: parent, SecurityContext: &criapi.LinuxSandboxSecurityContext{Seccomp: defaultSeccomp, NamespaceOptions: options}},
	}}, nil
}

// command is what the one container of each pod runs.
var command = []string{"/bin/sleep", "1000000"}

var defaultSeccomp = &criapi.SecurityProfile{ProfileType: criapi.SecurityProfile_RuntimeDefault}

func (p *pod) run(ctx context.Context) error {
	r, err := p.c.runtime.RunPodSandbox(ctx, &criapi.RunPodSandboxRequest{Config: p.config})
	p.id = r.GetPodSandboxId()
	return err
}

// create asks for what a kubelet asks for by default.
func (p *pod) create(ctx context.Context) error {
	r, err := p.c.runtime.CreateContainer(ctx, &criapi.CreateContainerRequest{
		PodSandboxId:  p.id,
		SandboxConfig: p.config,
		Config: &criapi.ContainerConfig{
			Metadata: &criapi.ContainerMetadata{Name: "sleep"},
			Image:    &criapi.ImageSpec{Image: image},
			Command:  command,
			LogPath:  p.config.Metadata.Name,
			Linux: &criapi.LinuxContainerConfig{SecurityContext: &criapi.LinuxContainerSecurityContext{
				NamespaceOptions: p.options,
				Seccomp:          defaultSeccomp,
				MaskedPaths: []string{
					"/proc/asound", "/proc/acpi", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
					"/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware", "/sys/devices/virtual/powercap",
				},
				ReadonlyPaths: []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"},
			}},
		},
	})
	p.container = r.GetContainerId()
	return err
}

func (p *pod) start(ctx context.Context) error {
	p.asked = time.Now()
	_, err := p.c.runtime.StartContainer(ctx, &criapi.StartContainerRequest{ContainerId: p.container})
	return err
}

// untilExecuted is the time from the request to start the container to its
// execve: the start is stamped when that call has left the new process.
func (p *pod) untilExecuted(ctx context.Context) (time.Duration, error) {
	r, err := p.c.runtime.ContainerStatus(ctx, &criapi.ContainerStatusRequest{ContainerId: p.container})
	return time.Unix(0, r.GetStatus().GetStartedAt()).Sub(p.asked), err
}

func (p *pod) exec(ctx context.Context) error {
	r, err := p.c.runtime.ExecSync(ctx, &criapi.ExecSyncRequest{ContainerId: p.container, Cmd: []string{"/bin/true"}})
	if err == nil && r.ExitCode != 0 {
		err = fmt.Errorf("exit code %d", r.ExitCode)
	}
	return err
}

func (p *pod) stopContainer(ctx context.Context) error {
	_, err := p.c.runtime.StopContainer(ctx, &criapi.StopContainerRequest{ContainerId: p.container})
	return err
}

func (p *pod) removeContainer(ctx context.Context) error {
	_, err := p.c.runtime.RemoveContainer(ctx, &criapi.RemoveContainerRequest{ContainerId: p.container})
	return err
}

func (p *pod) stop(ctx context.Context) error {
	_, err := p.c.runtime.StopPodSandbox(ctx, &criapi.StopPodSandboxRequest{PodSandboxId: p.id})
	return err
}

func (p *pod) remove(ctx context.Context) error {
	_, err := p.c.runtime.RemovePodSandbox(ctx, &criapi.RemovePodSandboxRequest{PodSandboxId: p.id})
	return err
}
