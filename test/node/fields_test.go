package node

import (
	"encoding/json"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// What the node advertises it gives, and what it does not give it refuses.
func TestNodeAdvertisesWhatPodsGet(t *testing.T) {
	d := ready(t)
	check := d.unchanged()
	answer, err := d.Status(d.context(), &criapi.StatusRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if len(answer.RuntimeHandlers) != 1 || answer.RuntimeHandlers[0].Name != "" {
		t.Errorf("handlers %v, want the default alone", answer.RuntimeHandlers)
	}
	handler, features := answer.RuntimeHandlers[0].Features, answer.Features
	if !handler.RecursiveReadOnlyMounts || !handler.UserNamespaces {
		t.Errorf("features of the handler: %v", handler)
	}
	if !features.SupplementalGroupsPolicy || !features.MountOptions || features.UserNamespacesHostNetwork {
		t.Errorf("features: %v", features)
	}

	ids := []*criapi.IDMapping{{HostId: 200000, Length: 65536}}
	users := &criapi.UserNamespace{Mode: criapi.NamespaceMode_POD, Uids: ids, Gids: ids}
	config := d.podConfig("refused")
	config.Linux.SecurityContext.NamespaceOptions = &criapi.NamespaceOption{Network: criapi.NamespaceMode_NODE, Pid: criapi.NamespaceMode_CONTAINER, UsernsOptions: users}
	if _, err := d.RunPodSandbox(d.context(), &criapi.RunPodSandboxRequest{Config: config}); status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), "namespace_options.network") {
		t.Errorf("users of its own in the node's network: %v, want it refused", err)
	}

	p := d.runPod("options", func(c *criapi.PodSandboxConfig) { c.Linux.SecurityContext.NamespaceOptions.UsernsOptions = users })
	host := t.TempDir()
	c := containerConfig("c", "sleep", "1000")
	c.Linux.SecurityContext.NamespaceOptions.UsernsOptions = users
	c.Mounts = []*criapi.Mount{
		{ContainerPath: "/plain", HostPath: host, UidMappings: ids, GidMappings: ids},
		{ContainerPath: "/strict", HostPath: host, UidMappings: ids, GidMappings: ids, MountOptions: []string{"noexec", "nodev", "nosuid"}},
		{ContainerPath: "/fixed", HostPath: host, UidMappings: ids, GidMappings: ids, Readonly: true, RecursiveReadOnly: true},
	}
	run := p.run(c)
	if got := strings.Fields(run.exec("cat", "/proc/self/uid_map")); strings.Join(got, " ") != "0 200000 65536" {
		t.Errorf("users %q", got)
	}
	table := run.exec("cat", "/proc/self/mountinfo")
	for place, want := range map[string][]string{"/plain": {"rw"}, "/strict": {"rw", "noexec", "nodev", "nosuid"}, "/fixed": {"ro"}} {
		options := mountOptions(table, place)
		for _, o := range want {
			if !strings.Contains(","+options+",", ","+o+",") {
				t.Errorf("%s is mounted %q, want %s", place, options, o)
			}
		}
		if place == "/plain" && strings.Contains(options, "noexec") {
			t.Errorf("%s is mounted %q", place, options)
		}
	}
	if told := run.status().Mounts; len(told) != 3 || len(told[1].MountOptions) != 3 || !told[2].RecursiveReadOnly {
		t.Errorf("mounts in the status: %v", told)
	}
	run.stop(0)
	p.remove()
	check()
}

// mountOptions finds the options of a mount point in a mountinfo.
func mountOptions(table, place string) string {
	for line := range strings.Lines(table) {
		if fields := strings.Fields(line); len(fields) > 5 && fields[4] == place {
			return fields[5]
		}
	}
	return ""
}

func TestStopSignalOfTheRequestIsSentAndTold(t *testing.T) {
	d := ready(t)
	check := d.unchanged()
	p := d.runPod("signals")
	config := containerConfig("c", "sh", "-c", "trap 'exit 42' USR1; echo ready; while :; do sleep 0.1; done")
	config.StopSignal = criapi.Signal_SIGNAL_SIGUSR1
	c := p.run(config)
	if s := c.status(); s.StopSignal != criapi.Signal_SIGNAL_SIGUSR1 {
		t.Errorf("the status tells of %s", s.StopSignal)
	}
	eventually(t, "the trap is set", func() bool { return len(readLog(t, c.log)) > 0 })
	c.stop(60)
	if s := c.exited(); s.ExitCode != 42 || s.Reason != "Error" {
		t.Errorf("exit %d %s, want the program's answer to SIGUSR1", s.ExitCode, s.Reason)
	}
	p.remove()
	check()
}

// A pod whose init is killed can start nothing any more. The kubelet makes
// another one when it hears of that.
func TestPodWhoseInitIsKilledIsNotReady(t *testing.T) {
	d := ready(t)
	shared := func(c *criapi.PodSandboxConfig) {
		c.Linux.SecurityContext.NamespaceOptions.Pid = criapi.NamespaceMode_POD
	}
	d.runPod("first", shared).remove() // the program of the init is kept in memory from now on
	check := d.unchanged()
	p := d.runPod("shared", shared)
	config := containerConfig("c", "sleep", "1000")
	config.Linux.SecurityContext.NamespaceOptions.Pid = criapi.NamespaceMode_POD
	c := p.run(config)
	d.restart()
	init := p.initPID()
	if got := c.exec("cat", "/proc/1/cmdline"); !strings.Contains(got, "cri-mini: init") {
		t.Errorf("process 1 of the pod is %q", got)
	}
	if err := unix.Kill(init, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the pod is not ready", func() bool {
		answer, err := d.PodSandboxStatus(d.context(), &criapi.PodSandboxStatusRequest{PodSandboxId: p.id})
		if err != nil {
			t.Fatal(err)
		}
		return answer.Status.State == criapi.PodSandboxState_SANDBOX_NOTREADY
	})
	if s := c.exited(); s.ExitCode != 137 {
		t.Errorf("the container ended with %d", s.ExitCode)
	}
	p.remove()
	d.runPod("shared", shared).remove()
	check()
}

// initPID is the init of a shared PID namespace, from the verbose status.
func (p *pod) initPID() int {
	p.d.t.Helper()
	answer, err := p.d.PodSandboxStatus(p.d.context(), &criapi.PodSandboxStatusRequest{PodSandboxId: p.id, Verbose: true})
	if err != nil {
		p.d.t.Fatal(err)
	}
	var info struct{ PID int }
	if err := json.Unmarshal([]byte(answer.Info["info"]), &info); err != nil || info.PID == 0 {
		p.d.t.Fatalf("pid in %s: %v", answer.Info["info"], err)
	}
	return info.PID
}
