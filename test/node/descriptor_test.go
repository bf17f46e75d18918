package node

import (
	"context"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// leaveDescriptors lets a process open so many more, or fewer: the limit is one
// of numbers, and numbers above it may be in use.
func leaveDescriptors(t *testing.T, pid, more int) (restore func()) {
	t.Helper()
	open, err := os.ReadDir("/proc/" + strconv.Itoa(pid) + "/fd")
	if err != nil {
		t.Fatal(err)
	}
	var before unix.Rlimit
	if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, nil, &before); err != nil {
		t.Fatal(err)
	}
	limit := before
	limit.Cur = uint64(len(open) + more)
	if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, &limit, nil); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, &before, nil); err != nil {
			t.Error(err)
		}
	}
}

// tryLife is a whole life of a pod; the first error ends it, and is returned
// after everything was removed.
func (d *daemon) tryLife(t *testing.T, name string) (first error) {
	note := func(err error) bool {
		if first == nil {
			first = err
		}
		return err == nil
	}
	call := func() context.Context {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		t.Cleanup(cancel)
		return ctx
	}
	config := d.podConfig(name)
	pod, err := d.RunPodSandbox(call(), &criapi.RunPodSandboxRequest{Config: config})
	if !note(err) {
		return first
	}
	container, err := d.CreateContainer(call(), &criapi.CreateContainerRequest{PodSandboxId: pod.PodSandboxId, SandboxConfig: config,
		Config: containerConfig("c", "sleep", "1000")})
	if note(err) {
		_, err = d.StartContainer(call(), &criapi.StartContainerRequest{ContainerId: container.ContainerId})
		if note(err) {
			answer, err := d.ExecSync(call(), &criapi.ExecSyncRequest{ContainerId: container.ContainerId, Cmd: []string{"cat", "/etc/motd"}, Timeout: 10})
			if note(err) && string(answer.Stdout) != "hello" {
				t.Errorf("%s: exec gives %v", name, answer)
			}
		}
	}
	_, err = d.StopPodSandbox(call(), &criapi.StopPodSandboxRequest{PodSandboxId: pod.PodSandboxId})
	note(err)
	_, err = d.RemovePodSandbox(call(), &criapi.RemovePodSandboxRequest{PodSandboxId: pod.PodSandboxId})
	note(err)
	return first
}

// A process that is short of descriptors refuses what it has none for, says so,
// and is none the worse for it.
func TestDescriptorsThatRunOutEndOneCallAndNothingElse(t *testing.T) {
	d := ready(t)
	bystander := d.runPod("bystander")
	c := bystander.run(containerConfig("c", "sh", "-c", "while :; do echo line; sleep 0.1; done"))
	check := d.unchanged()
	for _, who := range []struct {
		name string
		pid  func() int
	}{{"daemon", d.pid}, {"monitor", d.monitor}} {
		pid, failed := who.pid(), 0
		for more := 0; more <= 40; more += 2 {
			restore := leaveDescriptors(t, pid, more)
			err := d.tryLife(t, who.name+strconv.Itoa(more))
			restore()
			if err == nil {
				continue
			}
			failed++
			if !strings.Contains(err.Error(), unix.EMFILE.Error()) {
				t.Errorf("%s with %d more descriptors: %v; want an error that says %q", who.name, more, err, unix.EMFILE.Error())
			}
			// Whatever was left to be done is done now.
			pods, err := d.ListPodSandbox(d.context(), &criapi.ListPodSandboxRequest{})
			if err != nil {
				t.Fatal(err)
			}
			for _, p := range pods.Items {
				if p.Id != bystander.id {
					if err := d.down([]string{p.Id}); err != nil {
						t.Errorf("%s, with descriptors again: %v", who.name, err)
					}
				}
			}
		}
		if failed == 0 {
			t.Errorf("%s never ran out of descriptors: the test does not do what it says", who.name)
		}
		if who.pid() != pid {
			t.Errorf("the %s has ended", who.name)
		}
		t.Logf("%s: %d lives of 21 cut short", who.name, failed)
	}
	if got := c.status().State; got != criapi.ContainerState_CONTAINER_RUNNING {
		t.Errorf("the bystander is %s", got)
	}
	check()
	bystander.remove()
}
