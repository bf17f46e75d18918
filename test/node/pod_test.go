package node

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// pod is a sandbox that runs, and its config, which containers need.
type pod struct {
	d      *daemon
	id     string
	config *criapi.PodSandboxConfig
}

// container is one that was created, and perhaps started.
type container struct {
	d   *daemon
	id  string
	log string
}

func (d *daemon) podConfig(name string) *criapi.PodSandboxConfig {
	return &criapi.PodSandboxConfig{
		Metadata:     &criapi.PodSandboxMetadata{Name: name, Namespace: "default", Uid: "uid-" + name},
		LogDirectory: filepath.Join(d.logs(), name),
		Linux:        &criapi.LinuxPodSandboxConfig{SecurityContext: &criapi.LinuxSandboxSecurityContext{NamespaceOptions: &criapi.NamespaceOption{Pid: criapi.NamespaceMode_CONTAINER}}},
	}
}

// runPod fails the test when the pod does not run. It is removed at its end.
func (d *daemon) runPod(name string, changes ...func(*criapi.PodSandboxConfig)) *pod {
	d.t.Helper()
	config := d.podConfig(name)
	for _, change := range changes {
		change(config)
	}
	answer, err := d.RunPodSandbox(d.context(), &criapi.RunPodSandboxRequest{Config: config})
	if err != nil {
		d.t.Fatalf("run pod %s: %v", name, err)
	}
	return &pod{d, answer.PodSandboxId, config}
}

func (p *pod) remove() {
	p.d.t.Helper()
	if _, err := p.d.StopPodSandbox(p.d.context(), &criapi.StopPodSandboxRequest{PodSandboxId: p.id}); err != nil {
		p.d.t.Errorf("stop pod: %v", err)
	}
	if _, err := p.d.RemovePodSandbox(p.d.context(), &criapi.RemovePodSandboxRequest{PodSandboxId: p.id}); err != nil {
		p.d.t.Errorf("remove pod: %v", err)
	}
}

func containerConfig(name string, args ...string) *criapi.ContainerConfig {
	return &criapi.ContainerConfig{
		Metadata: &criapi.ContainerMetadata{Name: name},
		Image:    &criapi.ImageSpec{Image: shell},
		Command:  args,
		LogPath:  name + ".log",
		Linux:    &criapi.LinuxContainerConfig{SecurityContext: &criapi.LinuxContainerSecurityContext{NamespaceOptions: &criapi.NamespaceOption{Pid: criapi.NamespaceMode_CONTAINER}}},
	}
}

// try creates a container and hands on the error.
func (p *pod) try(config *criapi.ContainerConfig) (*container, error) {
	p.d.t.Helper()
	answer, err := p.d.CreateContainer(p.d.context(), &criapi.CreateContainerRequest{PodSandboxId: p.id, Config: config, SandboxConfig: p.config})
	if err != nil {
		return nil, err
	}
	return &container{p.d, answer.ContainerId, filepath.Join(p.config.LogDirectory, config.LogPath)}, nil
}

func (p *pod) create(config *criapi.ContainerConfig) *container {
	p.d.t.Helper()
	c, err := p.try(config)
	if err != nil {
		p.d.t.Fatalf("create container %s: %v", config.Metadata.Name, err)
	}
	return c
}

// run creates and starts.
func (p *pod) run(config *criapi.ContainerConfig) *container {
	p.d.t.Helper()
	c := p.create(config)
	c.start()
	return c
}

func (c *container) tryStart() error {
	_, err := c.d.StartContainer(c.d.context(), &criapi.StartContainerRequest{ContainerId: c.id})
	return err
}

func (c *container) start() {
	c.d.t.Helper()
	if err := c.tryStart(); err != nil {
		c.d.t.Fatalf("start container: %v", err)
	}
}

func (c *container) status() *criapi.ContainerStatus {
	c.d.t.Helper()
	answer, err := c.d.ContainerStatus(c.d.context(), &criapi.ContainerStatusRequest{ContainerId: c.id})
	if err != nil {
		c.d.t.Fatalf("status: %v", err)
	}
	return answer.Status
}

// pid is that of the first process, from the verbose status.
func (c *container) pid() int {
	c.d.t.Helper()
	answer, err := c.d.ContainerStatus(c.d.context(), &criapi.ContainerStatusRequest{ContainerId: c.id, Verbose: true})
	if err != nil {
		c.d.t.Fatalf("status: %v", err)
	}
	var info struct{ PID int }
	if err := json.Unmarshal([]byte(answer.Info["info"]), &info); err != nil || info.PID == 0 {
		c.d.t.Fatalf("pid in %s: %v", answer.Info["info"], err)
	}
	return info.PID
}

// exited waits for the end.
func (c *container) exited() *criapi.ContainerStatus {
	c.d.t.Helper()
	var status *criapi.ContainerStatus
	eventually(c.d.t, "the container has exited", func() bool {
		status = c.status()
		return status.State == criapi.ContainerState_CONTAINER_EXITED
	})
	return status
}

func (c *container) stop(grace int64) {
	c.d.t.Helper()
	if _, err := c.d.StopContainer(c.d.context(), &criapi.StopContainerRequest{ContainerId: c.id, Timeout: grace}); err != nil {
		c.d.t.Errorf("stop container: %v", err)
	}
}

func (c *container) remove() {
	c.d.t.Helper()
	if _, err := c.d.RemoveContainer(c.d.context(), &criapi.RemoveContainerRequest{ContainerId: c.id}); err != nil {
		c.d.t.Errorf("remove container: %v", err)
	}
}

// exec runs a command that must succeed and gives its output.
func (c *container) exec(args ...string) string {
	c.d.t.Helper()
	answer, err := c.d.ExecSync(c.d.context(), &criapi.ExecSyncRequest{ContainerId: c.id, Cmd: args, Timeout: 60})
	if err != nil {
		c.d.t.Fatalf("exec %q: %v", args, err)
	}
	if answer.ExitCode != 0 {
		c.d.t.Fatalf("exec %q: exit code %d, stdout %q, stderr %q", args, answer.ExitCode, answer.Stdout, answer.Stderr)
	}
	return string(answer.Stdout)
}

// wholeLife is what must work after whatever a test did to the node.
func (d *daemon) wholeLife(name string) {
	d.t.Helper()
	p := d.runPod(name)
	c := p.run(containerConfig("c", "sleep", "1000"))
	if got := c.exec("cat", "/etc/motd"); got != "hello" {
		d.t.Errorf("cat /etc/motd: %q, want hello", got)
	}
	c.stop(0)
	c.remove()
	p.remove()
}

// ready starts an instance that has the image of most containers.
func ready(t *testing.T, flags ...string) *daemon {
	t.Helper()
	d := start(t, flags...)
	d.pull(shell)
	return d
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
