package node

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"cri-mini/internal/enclosure"
)

// These tests are of the cgroup driver systemd. `make test-node` runs them, all
// whose names begin with TestSystemd, where systemd is the first process.

func needSystemd(t *testing.T) {
	t.Helper()
	if cgroupDriver() == "cgroupfs" {
		t.Skip("tool missing: systemd as the first process (apt-get install systemd)")
	}
}

// systemctl is what it says.
func systemctl(t *testing.T, arguments ...string) string {
	t.Helper()
	out, err := exec.Command("systemctl", arguments...).CombinedOutput()
	if err != nil {
		t.Fatalf("systemctl %s: %v: %s", strings.Join(arguments, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

func scopes(t *testing.T) string {
	t.Helper()
	return systemctl(t, "list-units", "--all", "--plain", "--no-legend", "cri-mini-*", "cri_mini*")
}

func TestSystemdReloadLeavesLimitsAndProcesses(t *testing.T) {
	needSystemd(t)
	d := ready(t)
	p := d.runPod("reload")
	c := p.run(limited("sleeper", &criapi.LinuxContainerResources{
		CpuShares: 2048, CpuPeriod: 100000, CpuQuota: 50000, CpusetCpus: "1", MemoryLimitInBytes: 64 << 20,
		Unified: map[string]string{"memory.high": "50331648", "pids.max": "77", "memory.low": "1048576"},
	}, "sleep", "1000"))
	inside := c.group()
	scope := filepath.Dir(inside)
	if want := "/cri-mini-" + c.id + ".scope/container"; !strings.HasSuffix(inside, want) {
		t.Fatalf("the container is in %s, want %s", inside, want)
	}
	limits := func() string {
		var all strings.Builder
		for _, file := range []string{"container/cpu.max", "container/cpuset.cpus", "container/memory.max", "container/memory.high", "container/pids.max", "container/cgroup.procs", "cpu.weight", "memory.low"} {
			all.WriteString(file + " " + strings.TrimSpace(readFile(t, filepath.Join(scope, file))) + "\n")
		}
		return all.String()
	}
	before := limits()
	for _, want := range []string{"cpu.max 50000 100000", "cpuset.cpus 1", "memory.max 67108864", "memory.high 50331648", "pids.max 77", "memory.low 1048576"} {
		if !strings.Contains(before, want+"\n") {
			t.Errorf("no %s in:\n%s", want, before)
		}
	}
	reload := func(before string) {
		t.Helper()
		systemctl(t, "daemon-reload")
		// Another unit beside it has systemd go through the groups again.
		systemctl(t, "set-property", "--runtime", filepath.Base(filepath.Dir(scope)), "CPUWeight=50")
		time.Sleep(500 * time.Millisecond)
		if after := limits(); after != before {
			t.Errorf("after a reload:\n%s\nbefore it:\n%s", after, before)
		}
	}
	reload(before)
	c.update(&criapi.LinuxContainerResources{CpuShares: 512, CpuPeriod: 100000, CpuQuota: 20000, MemoryLimitInBytes: 60 << 20})
	eventually(t, "systemd sets the new weight", func() bool { return !strings.Contains(limits(), figureLine(before, "cpu.weight")) })
	changed := limits()
	for _, want := range []string{"cpu.max 20000 100000", "memory.max 62914560", "pids.max 77"} {
		if !strings.Contains(changed, want+"\n") {
			t.Errorf("no %s in:\n%s", want, changed)
		}
	}
	reload(changed)
	systemctl(t, "daemon-reexec")
	reload(changed)
	if c.status().State != criapi.ContainerState_CONTAINER_RUNNING {
		t.Error("the container has ended")
	}
	if got := c.exec("echo", "alive"); got != "alive\n" {
		t.Errorf("exec says %q", got)
	}
	// The connection of before may be gone with the systemd of before.
	p.run(containerConfig("another", "sleep", "1000"))
}

// figureLine is the line of a file in what limits gave.
func figureLine(limits, file string) string {
	for line := range strings.Lines(limits) {
		if strings.HasPrefix(line, file+" ") {
			return line
		}
	}
	return "no " + file
}

func TestSystemdKeepsScopesOverLivesOfTheDaemon(t *testing.T) {
	needSystemd(t)
	d := ready(t)
	p := d.runPod("lives")
	running := p.run(containerConfig("running", "sleep", "1000"))
	created := p.create(containerConfig("created", "sleep", "1000"))
	group := running.group()
	if got := strings.Count(scopes(t), ".scope"); got != 2 {
		t.Errorf("%d scopes, want 2:\n%s", got, scopes(t))
	}
	d.kill()
	d.serve()
	if got := running.group(); got != group {
		t.Errorf("the container is in %s, and was in %s", got, group)
	}
	created.start()
	d.stopAll()
	eventually(t, "no unit is left", func() bool { return scopes(t) == "" })
}

func TestSystemdScopeOfAnInterruptedCreateGoesAway(t *testing.T) {
	needSystemd(t)
	d := ready(t)
	p := d.runPod("interrupted")
	for i := range 8 {
		done := make(chan error)
		go func() {
			_, err := p.try(containerConfig("c"+strconv.Itoa(i), "sleep", "1000"))
			done <- err
		}()
		time.Sleep(time.Duration(i*20) * time.Millisecond)
		d.kill()
		err := <-done
		t.Logf("killed after %d ms: %v", i*20, err)
		d.serve()
		list, err := d.ListContainers(d.context(), &criapi.ListContainersRequest{})
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range list.Containers {
			(&container{d: d, id: c.Id}).remove()
		}
		eventually(t, "no scope is left", func() bool { return !strings.Contains(scopes(t), ".scope") })
	}
}

func TestSystemdScopeOfAnInterruptedRemovalGoesAway(t *testing.T) {
	needSystemd(t)
	d := ready(t)
	p := d.runPod("interrupted")
	for i := range 10 {
		config := containerConfig("c"+strconv.Itoa(i), "sleep", "1000")
		c := p.create(config)
		if i%2 == 0 { // of the others only the keeper lives in the scope
			c.start()
		}
		done := make(chan error)
		go func() {
			_, err := d.RemoveContainer(d.context(), &criapi.RemoveContainerRequest{ContainerId: c.id})
			done <- err
		}()
		time.Sleep(time.Duration(i*10) * time.Millisecond)
		d.kill()
		err := <-done
		d.serve()
		found, listed := d.ListContainers(d.context(), &criapi.ListContainersRequest{Filter: &criapi.ContainerFilter{Id: c.id}})
		if listed != nil {
			t.Fatal(listed)
		}
		t.Logf("killed after %d ms: %v, %d containers are left", i*10, err, len(found.Containers))
		if err == nil && len(found.Containers) > 0 {
			t.Error("a container whose removal had come to its end is back")
		}
		if len(found.Containers) > 0 {
			c.remove() // as the kubelet repeats it; of one that is gone nobody speaks again
		}
		eventually(t, "no scope is left", func() bool { return !strings.Contains(scopes(t), ".scope") })
	}
}

func TestSystemdScopeThatSomebodyStopsEndsTheContainer(t *testing.T) {
	needSystemd(t)
	d := ready(t)
	p := d.runPod("stopped")
	c := p.run(containerConfig("victim", "sleep", "1000"))
	created := p.create(containerConfig("created", "sleep", "1000"))
	for _, id := range []string{c.id, created.id} {
		systemctl(t, "kill", "--signal=KILL", "cri-mini-"+id+".scope")
	}
	if s := c.exited(); s.ExitCode != 137 {
		t.Errorf("exit code %d, want 137", s.ExitCode)
	}
	eventually(t, "no scope is left", func() bool { return !strings.Contains(scopes(t), ".scope") })
	if err := created.tryStart(); err == nil {
		t.Error("a container without its group has started")
	}
	c.remove()
	created.remove()
}

func TestSystemdSlicesOfTheKubeletStay(t *testing.T) {
	needSystemd(t)
	d := ready(t)
	found, err := d.RuntimeConfig(d.context(), &criapi.RuntimeConfigRequest{})
	if err != nil || found.Linux.CgroupDriver != criapi.CgroupDriver_SYSTEMD {
		t.Fatalf("the cgroup driver is %v (%v), want SYSTEMD", found.GetLinux().GetCgroupDriver(), err)
	}
	const slice = "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podab_cd.slice"
	p := d.runPod("kubelet", func(c *criapi.PodSandboxConfig) {
		c.Linux.CgroupParent = slice
		c.Linux.SecurityContext.NamespaceOptions.Pid = criapi.NamespaceMode_POD
	})
	t.Cleanup(func() {
		systemctl(t, "stop", "kubepods.slice")
		eventually(t, "the slice goes away", func() bool {
			_, err := os.Stat(filepath.Join(enclosure.CgroupRoot, "kubepods.slice"))
			return errors.Is(err, os.ErrNotExist)
		})
	})
	config := containerConfig("c", "sleep", "1000")
	config.Linux.SecurityContext.NamespaceOptions.Pid = criapi.NamespaceMode_POD
	c := p.run(config)
	if want := enclosure.CgroupRoot + slice + "/cri-mini-" + c.id + ".scope/container"; c.group() != want {
		t.Errorf("the container is in %s, want %s", c.group(), want)
	}
	if got := strings.Count(scopes(t), ".scope"); got != 2 {
		t.Errorf("%d scopes, want those of the container and of the pod's init:\n%s", got, scopes(t))
	}
	p.remove()
	eventually(t, "no scope is left", func() bool { return !strings.Contains(scopes(t), ".scope") })
	if strings.Contains(readFile(t, d.log()), "removed without systemd") {
		t.Error("systemd was not waited for, see the log")
		d.showLog()
	}
	if state := systemctl(t, "is-active", filepath.Base(slice)); state != "active" {
		t.Errorf("the slice is %s", state)
	}
}
