package node

import (
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"cri-mini/internal/testtool"
)

func (p *pod) stats() *criapi.LinuxPodSandboxStats {
	p.d.t.Helper()
	answer, err := p.d.PodSandboxStats(p.d.context(), &criapi.PodSandboxStatsRequest{PodSandboxId: p.id})
	if err != nil {
		p.d.t.Fatalf("stats of the pod: %v", err)
	}
	return answer.Stats.Linux
}

func (c *container) stats() *criapi.ContainerStats {
	c.d.t.Helper()
	answer, err := c.d.ContainerStats(c.d.context(), &criapi.ContainerStatsRequest{ContainerId: c.id})
	if err != nil {
		c.d.t.Fatalf("stats of the container: %v", err)
	}
	return answer.Stats
}

func (p *pod) ip() string {
	p.d.t.Helper()
	answer, err := p.d.PodSandboxStatus(p.d.context(), &criapi.PodSandboxStatusRequest{PodSandboxId: p.id})
	if err != nil {
		p.d.t.Fatal(err)
	}
	return answer.Status.Network.Ip
}

// seen is what went through eth0, as the kernel shows it to a process there.
func (c *container) seen() (rx, tx uint64) {
	c.d.t.Helper()
	for line := range strings.Lines(readFile(c.d.t, fmt.Sprintf("/proc/%d/net/dev", c.pid()))) {
		name, rest, _ := strings.Cut(strings.TrimSpace(line), ":")
		if words := strings.Fields(rest); name == "eth0" {
			rx, _ = strconv.ParseUint(words[0], 10, 64)
			tx, _ = strconv.ParseUint(words[8], 10, 64)
		}
	}
	return rx, tx
}

func near(a, b uint64, part float64) bool {
	return math.Abs(float64(a)-float64(b)) <= part*math.Max(float64(a), float64(b))
}

func TestNetworkOfAPodIsWhatWentThroughIt(t *testing.T) {
	d := ready(t)
	const size = 5 << 20
	receiver, sender := d.runPod("receiver"), d.runPod("sender")
	defer receiver.remove()
	defer sender.remove()
	to := receiver.run(containerConfig("c", "sh", "-c", "sleep 1000 | nc -l -p 9000 > /dev/null; exec sleep 1000"))
	from := sender.run(containerConfig("c", "sleep", "1000"))
	address := receiver.ip()
	before := receiver.stats().Network.GetDefaultInterface().GetRxBytes().GetValue()
	// Tried until it listens; what is refused is too little to count.
	from.exec("sh", "-c", fmt.Sprintf("for i in 1 2 3 4 5 6 7 8 9; do head -c %d /dev/zero | nc %s 9000 && exit 0; sleep 1; done; exit 1", size, address))
	eventually(t, "all has arrived", func() bool {
		return receiver.stats().Network.DefaultInterface.RxBytes.GetValue()-before > size
	})
	for _, end := range []struct {
		pod *pod
		c   *container
	}{{receiver, to}, {sender, from}} {
		n := end.pod.stats().Network
		rx, tx := end.c.seen()
		i := n.GetDefaultInterface()
		if n.GetTimestamp() == 0 || i.GetName() != "eth0" || len(n.Interfaces) != 0 {
			t.Fatalf("network %v", n)
		}
		if !near(i.RxBytes.Value, rx, 0.05) || !near(i.TxBytes.Value, tx, 0.05) || max(rx, tx) < size {
			t.Errorf("%s: %d and %d bytes, inside it is %d and %d", end.pod.config.Metadata.Name, i.RxBytes.Value, i.TxBytes.Value, rx, tx)
		}
	}

	host := d.runPod("host", func(c *criapi.PodSandboxConfig) {
		c.Linux.SecurityContext.NamespaceOptions.Network = criapi.NamespaceMode_NODE
	})
	defer host.remove()
	if n := host.stats().Network; n != nil {
		t.Errorf("a pod in the node's network has %v", n)
	}
}

func TestProcessesOfAPodAreCountedAndThreadsAreNot(t *testing.T) {
	d := ready(t)
	p := d.runPod("p")
	defer p.remove()
	if n := p.stats().Process; n.GetTimestamp() == 0 || n.ProcessCount.GetValue() != 0 {
		t.Errorf("a pod without containers: %v", n)
	}
	busy := p.run(containerConfig("threads", "actor", "threads", "20"))
	p.run(containerConfig("shell", "sh", "-c", "sleep 1000 & sleep 1000 & exec sleep 1000"))
	eventually(t, "20 threads", func() bool { return strings.Contains(readFile(t, busy.log), "ready") })
	eventually(t, "4 processes", func() bool { return p.stats().Process.ProcessCount.Value == 4 })
	if n := busy.metric("container_processes"); n != 1 {
		t.Errorf("%d processes in the container with threads", n)
	}
	if n := busy.metric("container_threads"); n <= 20 || n > 40 {
		t.Errorf("%d threads in it, want more than 20", n)
	}

	shared := d.runPod("shared", func(c *criapi.PodSandboxConfig) {
		c.Linux.SecurityContext.NamespaceOptions.Pid = criapi.NamespaceMode_POD
	})
	defer shared.remove()
	config := containerConfig("c", "sleep", "1000")
	config.Linux.SecurityContext.NamespaceOptions.Pid = criapi.NamespaceMode_POD
	shared.run(config)
	if n := shared.stats().Process.ProcessCount.Value; n != 2 {
		t.Errorf("%d processes in a pod with an init of ours and a container", n)
	}
}

func TestWritableLayerIsShownWithoutWaitingForIt(t *testing.T) {
	d := ready(t)
	p := d.runPod("p")
	defer p.remove()
	c := p.run(containerConfig("c", "sleep", "1000"))
	upper := filepath.Join(d.root(), "containers", c.id, "upper")
	top, err := os.Open(upper)
	if err != nil {
		t.Fatal(err)
	}
	defer top.Close()
	du := func() (bytes, inodes uint64) {
		t.Helper()
		ask := func(flag string) uint64 {
			out, err := exec.Command(testtool.Need(t, "du", "coreutils"), flag, "-s", upper).Output()
			if err != nil {
				t.Fatal(err)
			}
			n, err := strconv.ParseUint(strings.Fields(string(out))[0], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
		return ask("--block-size=1"), ask("--inodes")
	}
	agrees := func() bool {
		w := c.stats().WritableLayer
		bytes, inodes := du()
		return w.GetUsedBytes().GetValue() == bytes && w.GetInodesUsed().GetValue() == inodes
	}
	eventually(t, "the layer of a fresh container is known", agrees)
	c.exec("sh", "-c", "mkdir /data; head -c 4000000 /dev/zero > /data/x; ln /data/x /data/y; for i in 1 2 3 4 5; do echo $i > /data/$i; done; rm /bin/wc")
	if err := unix.Syncfs(int(top.Fd())); err != nil { // a file may take more once it is on the disk
		t.Fatal(err)
	}
	c.exec("true")
	if bytes, _ := du(); bytes < 4000000 {
		t.Fatalf("du sees %d bytes", bytes)
	}
	eventually(t, "what was written is known", agrees)
	w := c.stats().WritableLayer
	if w.Timestamp == 0 || w.FsId.Mountpoint != d.root() {
		t.Errorf("layer %v", w)
	}
	fs, err := d.images.ImageFsInfo(d.context(), &criapi.ImageFsInfoRequest{})
	if err != nil || len(fs.ImageFilesystems) != 1 || len(fs.ContainerFilesystems) != 1 || fs.ContainerFilesystems[0].UsedBytes.Value != w.UsedBytes.Value {
		t.Errorf("file systems %v, %v", fs, err)
	}
	bytes, _ := du()
	if n := c.metric("container_fs_usage_bytes"); n != bytes {
		t.Errorf("the metric is %d, du says %d", n, bytes)
	}
	d.restart()
	eventually(t, "the layer is known to the next daemon", agrees)
}

func TestUseOfAProcessorIsThatOfABusyLoop(t *testing.T) {
	d := ready(t)
	p := d.runPod("p")
	defer p.remove()
	c := p.run(containerConfig("c", "sh", "-c", "while :; do :; done"))
	first := c.stats().Cpu
	time.Sleep(4 * time.Second)
	second := c.stats().Cpu
	used := second.UsageCoreNanoSeconds.Value - first.UsageCoreNanoSeconds.Value
	want := uint64(float64(used) / time.Duration(second.Timestamp-first.Timestamp).Seconds())
	// Other work takes its part of the machine, now more and now less.
	if got := second.UsageNanoCores.GetValue(); !near(got, want, 0.5) || got < 2e7 || got > 105e7 {
		t.Errorf("%d ns per second, between two questions it was %d", got, want)
	}
	if got := p.stats().Cpu.UsageNanoCores.GetValue(); got < 2e7 || got > 105e7 {
		t.Errorf("of the pod %d ns per second", got)
	}
	if _, err := os.Stat("/proc/pressure/cpu"); err == nil && second.Psi == nil {
		t.Error("the kernel accounts pressure, the container has none")
	}
	idle := p.run(containerConfig("idle", "sleep", "1000"))
	idle.stats()
	time.Sleep(2 * time.Second)
	if got := idle.stats().Cpu.UsageNanoCores; got == nil || got.Value > 5e7 {
		t.Errorf("of one that sleeps %v", got)
	}
}

func TestUseOfMemoryIsThatOfTheGroup(t *testing.T) {
	needController(t, "memory")
	d := ready(t)
	p := d.runPod("p")
	defer p.remove()
	r := &criapi.LinuxContainerResources{MemoryLimitInBytes: 96 * mib, MemorySwapLimitInBytes: 96 * mib}
	c := p.run(limited("c", r, "actor", "eat", "48", "1000s"))
	eventually(t, "all is taken", func() bool { return strings.Contains(readFile(t, c.log), "full") })
	group := c.group()
	usage := uint64(figure(t, group, "memory.current", ""))
	working := usage - uint64(figure(t, group, "memory.stat", "inactive_file"))
	m := c.stats().Memory
	for what, pair := range map[string][2]uint64{
		"use":                 {m.UsageBytes.GetValue(), usage},
		"working set":         {m.WorkingSetBytes.GetValue(), working},
		"anonymous memory":    {m.RssBytes.GetValue(), uint64(figure(t, group, "memory.stat", "anon"))},
		"what is left":        {m.AvailableBytes.GetValue(), 96*mib - working},
		"working set of all":  {p.stats().Memory.WorkingSetBytes.GetValue(), working},
		"metric of use":       {c.metric("container_memory_usage_bytes"), usage},
		"metric of its limit": {c.metric("container_spec_memory_limit_bytes"), 96 * mib},
	} {
		if !near(pair[0], pair[1], 0.05) || pair[1] < 40*mib {
			t.Errorf("%s: %d, in the group it is %d", what, pair[0], pair[1])
		}
	}
}

// The lists are asked for every ten seconds on nodes that have other things
// to do.
func TestStatisticsOfAHundredPodsAreCheap(t *testing.T) {
	d := ready(t)
	ids, err := d.up(100)
	if err != nil {
		t.Fatal(err)
	}
	const rounds = 20
	for _, list := range []struct {
		name  string
		bound time.Duration // of processor time, for each pod; many times what it takes
		ask   func() (int, error)
	}{
		{"ListPodSandboxStats", 2 * time.Millisecond, func() (int, error) {
			answer, err := d.ListPodSandboxStats(d.context(), &criapi.ListPodSandboxStatsRequest{})
			return len(answer.GetStats()), err
		}},
		{"ListContainerStats", 2 * time.Millisecond, func() (int, error) {
			answer, err := d.ListContainerStats(d.context(), &criapi.ListContainerStatsRequest{})
			return len(answer.GetStats()), err
		}},
		{"ListPodSandboxMetrics", 4 * time.Millisecond, func() (int, error) {
			answer, err := d.ListPodSandboxMetrics(d.context(), &criapi.ListPodSandboxMetricsRequest{})
			return len(answer.GetPodMetrics()), err
		}},
	} {
		worked, began := processorTime(t, d.pid()), time.Now()
		for range rounds {
			if n, err := list.ask(); err != nil || n != len(ids) {
				t.Fatalf("%s: %d, %v; want %d", list.name, n, err, len(ids))
			}
		}
		took := time.Since(began) / rounds
		worked = (processorTime(t, d.pid()) - worked) / rounds / time.Duration(len(ids))
		t.Logf("%s: %s for 100 pods, %s of processor time for each", list.name, took.Round(10*time.Microsecond), worked)
		if worked > list.bound {
			t.Errorf("%s takes %s of processor time for each pod, allowed are %s", list.name, worked, list.bound)
		}
	}
	time.Sleep(2 * time.Second)
	idle := processorTime(t, d.pid())
	time.Sleep(20 * time.Second)
	idle = processorTime(t, d.pid()) - idle
	t.Logf("a daemon with 100 idle pods, which nobody asks, worked %s in 20 s", idle)
	if idle > 400*time.Millisecond {
		t.Errorf("a daemon with 100 idle pods, which nobody asks, worked %s in 20 s", idle)
	}
	if err := d.down(ids); err != nil {
		t.Fatal(err)
	}
}

// processorTime is what a process used, in steps of 10 ms.
func processorTime(t *testing.T, pid int) time.Duration {
	t.Helper()
	_, rest, _ := strings.Cut(readFile(t, fmt.Sprintf("/proc/%d/stat", pid)), ") ")
	words := strings.Fields(rest)
	user, err1 := strconv.Atoi(words[11])
	system, err2 := strconv.Atoi(words[12])
	if err1 != nil || err2 != nil {
		t.Fatalf("stat of %d: %s", pid, rest)
	}
	return time.Duration(user+system) * 10 * time.Millisecond
}
