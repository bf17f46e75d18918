package node

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// up runs n pods with a container each, 16 at a time.
func (d *daemon) up(n int) ([]string, error) {
	ids := make([]string, n)
	var all errgroup.Group
	all.SetLimit(16)
	for i := range ids {
		all.Go(func() error {
			config := d.podConfig(fmt.Sprint("pod-", i))
			run, err := d.RunPodSandbox(d.context(), &criapi.RunPodSandboxRequest{Config: config})
			if err != nil {
				return fmt.Errorf("run: %w", err)
			}
			ids[i] = run.PodSandboxId
			create, err := d.CreateContainer(d.context(), &criapi.CreateContainerRequest{
				PodSandboxId: run.PodSandboxId, SandboxConfig: config, Config: containerConfig("c", "sleep", "1000")})
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

func TestFiftyPodsTwentyTimesLeaveTheSameOfEverything(t *testing.T) {
	d := ready(t)
	check := d.unchanged()
	began := time.Now()
	var daemonEarly, monitorEarly int
	for round := range 20 {
		ids, err := d.up(50)
		if err != nil {
			t.Fatalf("round %d: up: %v", round, err)
		}
		if err := d.down(ids); err != nil {
			t.Fatalf("round %d: down: %v", round, err)
		}
		if round == 4 { // buffers and pools have their size by now
			daemonEarly, monitorEarly = resident(t, d.pid()), resident(t, d.monitor())
		}
	}
	t.Logf("1000 pods up and down in %s", time.Since(began).Round(time.Millisecond))
	check()
	// Kept for the next request, and not one for each that there ever was.
	if n := d.conversations(); n > 12 {
		t.Errorf("%d connections between daemon and monitor at rest", n)
	}
	for _, p := range []struct {
		name       string
		pid, early int
		allowed    int // kB: 750 pods at a few kB each would show
	}{{"daemon", d.pid(), daemonEarly, 8 << 10}, {"monitor", d.monitor(), monitorEarly, 1 << 10}} {
		late := resident(t, p.pid)
		t.Logf("private memory of the %s: %d kB after 250 pods, %d kB after 1000", p.name, p.early, late)
		if late > p.early+p.allowed {
			t.Errorf("the %s has grown from %d kB after 250 pods to %d kB after 1000", p.name, p.early, late)
		}
	}
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
