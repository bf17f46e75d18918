package node

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

var waves = flag.Int("waves", 20, "how often fifty pods come and go; 200 of them take ten minutes and more")

// up runs n pods with a container each, 16 at a time. Their names are new ones
// each time, as a kubelet's are.
func (d *daemon) up(n int, changes ...func(n int, p *criapi.PodSandboxConfig, c *criapi.ContainerConfig)) ([]string, error) {
	ids := make([]string, n)
	d.waves++
	var all errgroup.Group
	all.SetLimit(16)
	for i := range ids {
		all.Go(func() error {
			config, container := d.podConfig(fmt.Sprintf("pod-%d-%d", d.waves, i)), containerConfig("c", "sleep", "1000")
			for _, change := range changes {
				change(i, config, container)
			}
			run, err := d.RunPodSandbox(d.context(), &criapi.RunPodSandboxRequest{Config: config})
			if err != nil {
				return fmt.Errorf("run: %w", err)
			}
			ids[i] = run.PodSandboxId
			create, err := d.CreateContainer(d.context(), &criapi.CreateContainerRequest{
				PodSandboxId: run.PodSandboxId, SandboxConfig: config, Config: container})
			if err != nil {
				return fmt.Errorf("create: %w", err)
			}
			_, err = d.StartContainer(d.context(), &criapi.StartContainerRequest{ContainerId: create.ContainerId})
			return err
		})
	}
	return ids, all.Wait()
}

func (d *daemon) down(ids []string) error {
	var all errgroup.Group
	all.SetLimit(16)
	for _, id := range ids {
		all.Go(func() error {
			if _, err := d.StopPodSandbox(d.context(), &criapi.StopPodSandboxRequest{PodSandboxId: id}); err != nil {
				return err
			}
			_, err := d.RemovePodSandbox(d.context(), &criapi.RemovePodSandboxRequest{PodSandboxId: id})
			return err
		})
	}
	return all.Wait()
}

// ofAllKinds makes pods that differ in what they leave behind.
func ofAllKinds(n int, p *criapi.PodSandboxConfig, c *criapi.ContainerConfig) {
	pod, container := p.Linux.SecurityContext.NamespaceOptions, c.Linux.SecurityContext.NamespaceOptions
	switch n % 5 {
	case 0:
		pod.Pid, container.Pid = criapi.NamespaceMode_POD, criapi.NamespaceMode_POD
	case 1:
		p.PortMappings = []*criapi.PortMapping{{HostPort: int32(20000 + n), ContainerPort: 80}}
	case 2:
		ids := []*criapi.IDMapping{{HostId: uint32(n+1) << 16, Length: 1 << 16}}
		pod.UsernsOptions = &criapi.UserNamespace{Mode: criapi.NamespaceMode_POD, Uids: ids, Gids: ids}
		container.UsernsOptions = pod.UsernsOptions
	case 3:
		c.Tty = true
	}
}

// TestWavesOfFiftyPodsLeaveTheSameOfEverything counts after each wave, and once
// more at the end, when nothing but what was there before may be there.
func TestWavesOfFiftyPodsLeaveTheSameOfEverything(t *testing.T) {
	d := ready(t)
	d.sharedLife()
	check := d.unchanged()
	graph := d.newGraph()
	began := time.Now()
	for wave := range *waves {
		if err := d.wave(); err != nil {
			t.Fatalf("wave %d: %v", wave, err)
		}
		graph.look((wave + 1) * 50)
	}
	t.Logf("%d pods up and down in %s", *waves*50, time.Since(began).Round(time.Millisecond))
	graph.flat()
	check()
	// Kept for the next request, and not one for each that there ever was.
	if n := d.conversations(); n > 12 {
		t.Errorf("%d connections between daemon and monitor at rest", n)
	}
}

// wave is fifty pods that come, are probed, and go.
func (d *daemon) wave() error {
	ids, err := d.up(50, ofAllKinds)
	if err != nil {
		return fmt.Errorf("up: %w", err)
	}
	list, err := d.ListContainers(d.context(), &criapi.ListContainersRequest{})
	if err != nil || len(list.Containers) != len(ids) {
		return fmt.Errorf("%d containers, %w; want %d", len(list.GetContainers()), err, len(ids))
	}
	for _, c := range list.Containers[:10] {
		answer, err := d.ExecSync(d.context(), &criapi.ExecSyncRequest{ContainerId: c.Id, Cmd: []string{"true"}, Timeout: 60})
		if err != nil || answer.ExitCode != 0 {
			return fmt.Errorf("exec: %v, %w", answer, err)
		}
	}
	if err := d.down(ids); err != nil {
		return fmt.Errorf("down: %w", err)
	}
	return os.RemoveAll(d.logs()) // as a kubelet does
}

func TestMountTableOfTheHostIsAsLongWithFiftyPodsAsWithNone(t *testing.T) {
	d := ready(t)
	tables := func() [3]int {
		var n [3]int
		for i, who := range []string{"1", fmt.Sprint(d.pid()), fmt.Sprint(d.monitor())} {
			n[i] = strings.Count(readFile(t, "/proc/"+who+"/mountinfo"), "\n")
		}
		return n
	}
	none := tables()
	check := d.unchanged()
	ids, err := d.up(50)
	if err != nil {
		t.Fatal(err)
	}
	if fifty := tables(); fifty != none {
		t.Errorf("mounts of host, daemon and monitor: %v with 50 pods, %v with none", fifty, none)
	}
	if n := runningContainers(t, d); n != 50 {
		t.Errorf("%d containers run, want 50", n)
	}
	if err := d.down(ids); err != nil {
		t.Fatal(err)
	}
	check()
}

func runningContainers(t *testing.T, d *daemon) int {
	t.Helper()
	answer, err := d.ListContainers(d.context(), &criapi.ListContainersRequest{
		Filter: &criapi.ContainerFilter{State: &criapi.ContainerStateValue{State: criapi.ContainerState_CONTAINER_RUNNING}}})
	if err != nil {
		t.Fatal(err)
	}
	return len(answer.Containers)
}
