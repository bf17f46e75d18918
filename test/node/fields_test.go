package node

import (
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gorilla/websocket"
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

// The host name of a pod in the node's network is the node's, whatever it asks
// for: it shares the node's UTS namespace.
func TestPodInTheNodesNetworkHasTheNodesName(t *testing.T) {
	d := ready(t)
	check := d.unchanged()
	node, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	for _, onNode := range []bool{true, false} {
		want := "kitten"
		p := d.runPod("names", func(c *criapi.PodSandboxConfig) {
			c.Hostname = "kitten"
			if onNode {
				c.Linux.SecurityContext.NamespaceOptions.Network = criapi.NamespaceMode_NODE
			}
		})
		config := containerConfig("c", "sleep", "1000")
		if onNode {
			want = node
			config.Linux.SecurityContext.NamespaceOptions.Network = criapi.NamespaceMode_NODE
		}
		c := p.run(config)
		if got := c.exec("sh", "-c", "hostname; cat /etc/hostname; echo $HOSTNAME"); got != want+"\n"+want+"\n"+want+"\n" {
			t.Errorf("in the node's network: %v: the name is %q, want %q three times", onNode, got, want)
		}
		p.remove()
	}
	if after, err := os.Hostname(); err != nil || after != node {
		t.Errorf("the node is called %q now, %v", after, err)
	}
	check()
}

// A container with tty has a terminal as its three streams, of which those who
// attach get one, in both directions and with sizes.
func TestContainerWithTTYHasATerminal(t *testing.T) {
	d := ready(t)
	check := d.unchanged()
	p := d.runPod("terminal")
	config := containerConfig("c", "sh", "-c", "read first; tty; for i in 0 1 2; do [ -t $i ] && echo terminal $i; done; stty size; echo TERM=$TERM; echo said $first >&2; read last; stty size; exit 7")
	config.Tty, config.Stdin = true, true
	c := p.run(config)
	talk, streams := c.attach(true)
	defer talk.close()
	sizes := talk.stream("streamType", "resize")
	io.WriteString(sizes, `{"Width":91,"Height":31}`)
	eventually(t, "the terminal has its size", func() bool { return c.exec("stty", "-F", "/proc/1/fd/0", "size") == "31 91\n" })
	io.WriteString(streams[0], "hello\n")
	got := readUntil(t, streams[1], "said hello\r\n")
	for _, want := range []string{"hello\r\n/dev/", "terminal 0\r\n", "terminal 1\r\n", "terminal 2\r\n", "31 91\r\n", "TERM=xterm\r\n"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in %q", want, got)
		}
	}
	io.WriteString(sizes, `{"Width":77,"Height":33}`)
	eventually(t, "the terminal has its new size", func() bool { return c.exec("stty", "-F", "/proc/1/fd/0", "size") == "33 77\n" })
	io.WriteString(streams[0], "over\n")
	readUntil(t, streams[1], "33 77\r\n")
	if s := c.exited(); s.ExitCode != 7 {
		t.Errorf("exit code %d, want 7", s.ExitCode)
	}
	if log := readFile(t, c.log); !strings.Contains(log, " stdout F said hello") || strings.Contains(log, " stderr ") {
		t.Errorf("a terminal is one stream, and the log has %s", log)
	}
	talk.close() // the daemon waits for its client to leave
	p.remove()
	check()
}

// Without stdin there is no input that could end.
func TestStdinOnceWithoutStdinHasNoEffect(t *testing.T) {
	d := ready(t)
	check := d.unchanged()
	p := d.runPod("once")
	config := containerConfig("c", "sh", "-c", "cat; echo empty; while ! [ -e /tmp/end ]; do echo again; sleep 0.05; done; exit 3")
	config.StdinOnce = true
	c := p.run(config)
	for range 2 { // the first leaves and takes nothing away from the second
		s := c.attachWebSocket()
		s.ws.WriteMessage(websocket.BinaryMessage, []byte("\x00words\n"))
		if got := readUntil(t, s, "again\n"); strings.Contains(got, "words") {
			t.Errorf("the input arrived: %q", got)
		}
		s.ws.Close()
	}
	if s := c.status(); s.State != criapi.ContainerState_CONTAINER_RUNNING {
		t.Errorf("state %s after both have left, want it to run", s.State)
	}
	c.exec("touch", "/tmp/end")
	if s := c.exited(); s.ExitCode != 3 {
		t.Errorf("exit code %d, want 3", s.ExitCode)
	}
	p.remove()
	check()
}

// What a status shows is in force. A period alone limits nothing: it is shown
// as asked for, and where there is no controller no quota joins it.
func TestStatusShowsThePeriodThatLimitsNothing(t *testing.T) {
	d := ready(t)
	check := d.unchanged()
	p := d.runPod("period")
	c := p.run(limited("c", &criapi.LinuxContainerResources{CpuPeriod: 50000}, "sleep", "1000"))
	if r := c.status().Resources.Linux; r.CpuPeriod != 50000 || r.CpuQuota != 0 {
		t.Errorf("the status shows %v", r)
	}
	_, err := d.UpdateContainerResources(d.context(), &criapi.UpdateContainerResourcesRequest{ContainerId: c.id, Linux: &criapi.LinuxContainerResources{CpuQuota: 25000}})
	max, missing := os.ReadFile(filepath.Join(c.group(), "cpu.max"))
	quota := c.status().Resources.Linux.CpuQuota
	switch {
	case missing == nil && (err != nil || string(max) != "25000 50000\n" || quota != 25000):
		t.Errorf("with a controller: %v, cpu.max %q, quota %d in the status", err, max, quota)
	case missing != nil && (err == nil || !strings.Contains(err.Error(), "cpu_quota") || quota != 0):
		t.Errorf("without a controller: %v, quota %d in the status; want it refused", err, quota)
	}
	p.remove()
	check()
}
