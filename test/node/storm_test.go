package node

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// TestKillsInTheMiddleOfEverythingLeakNothing lets eight callers live pods'
// lives, whatever errors they get, while daemon and monitor are killed again
// and again. Then everything that is listed is removed, and nothing else may
// be there.
func TestKillsInTheMiddleOfEverythingLeakNothing(t *testing.T) {
	for _, c := range []struct {
		name string
		kill func(*daemon)
	}{
		{"daemon", (*daemon).restart},
		{"monitor", (*daemon).killMonitor},
		{"both in turns", func(d *daemon) { d.restart(); time.Sleep(60 * time.Millisecond); d.killMonitor() }},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := ready(t)
			check := d.unchanged()
			var callers sync.WaitGroup
			var lives, errors atomic.Int32
			stop := make(chan struct{})
			for i := range 8 {
				callers.Go(func() {
					for n := 0; ; n++ {
						select {
						case <-stop:
							return
						default:
						}
						if err := d.oneLife(fmt.Sprintf("storm-%d-%d", i, n)); err != nil {
							errors.Add(1)
							time.Sleep(5 * time.Millisecond)
						} else {
							lives.Add(1)
						}
					}
				})
			}
			kills := 0
			for end := time.Now().Add(3 * time.Second); time.Now().Before(end); kills++ {
				time.Sleep(time.Duration(20+17*(kills%8)) * time.Millisecond)
				c.kill(d)
			}
			close(stop)
			callers.Wait()
			t.Logf("%d kills, %d whole lives, %d cut short", kills, lives.Load(), errors.Load())
			if lives.Load() == 0 || errors.Load() == 0 {
				t.Error("the kills did not meet what they were to meet")
			}
			list, err := d.ListPodSandbox(d.context(), &criapi.ListPodSandboxRequest{})
			if err != nil {
				t.Fatal(err)
			}
			ids := make([]string, len(list.Items))
			for i, item := range list.Items {
				ids[i] = item.Id
			}
			if err := d.down(ids); err != nil {
				t.Fatal(err)
			}
			check()
		})
	}
}

// oneLife ends at the first error.
func (d *daemon) oneLife(name string) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	config := d.podConfig(name)
	run, err := d.RunPodSandbox(ctx, &criapi.RunPodSandboxRequest{Config: config})
	if err != nil {
		return err
	}
	create, err := d.CreateContainer(ctx, &criapi.CreateContainerRequest{
		PodSandboxId: run.PodSandboxId, SandboxConfig: config, Config: containerConfig("c", "sleep", "1000")})
	if err != nil {
		return err
	}
	if _, err = d.StartContainer(ctx, &criapi.StartContainerRequest{ContainerId: create.ContainerId}); err != nil {
		return err
	}
	if _, err = d.ExecSync(ctx, &criapi.ExecSyncRequest{ContainerId: create.ContainerId, Cmd: []string{"true"}, Timeout: 10}); err != nil {
		return err
	}
	if _, err = d.StopPodSandbox(ctx, &criapi.StopPodSandboxRequest{PodSandboxId: run.PodSandboxId}); err != nil {
		return err
	}
	_, err = d.RemovePodSandbox(ctx, &criapi.RemovePodSandboxRequest{PodSandboxId: run.PodSandboxId})
	return err
}
