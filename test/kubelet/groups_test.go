package kubelet

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"cri-mini/internal/enclosure"
)

// needControllers skips where the kubelet makes no groups.
func needControllers(t *testing.T) {
	t.Helper()
	text, err := os.ReadFile(enclosure.CgroupRoot + "/cgroup.controllers")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"cpu", "cpuset", "memory", "hugetlb", "pids"} {
		if !strings.Contains(" "+strings.TrimSpace(string(text))+" ", " "+name+" ") {
			t.Skipf("cgroup controller %s is missing", name)
		}
	}
}

// cgroupDriver is cgroupfs, or auto on a machine that is all for these tests and
// where that means systemd.
func cgroupDriver() string { return cmp.Or(os.Getenv("NODE_CGROUP_DRIVER"), "cgroupfs") }

func systemd() bool { return cgroupDriver() != "cgroupfs" }

// group is the folder of a container below the group that its pod's class has.
func (n *node) group(class string, p *pod, name string) string {
	n.t.Helper()
	c, err := p.container(name)
	if err != nil {
		n.t.Fatal(err)
	}
	_, id, _ := strings.Cut(c.ContainerID, "://")
	dir := filepath.Join(n.podGroup(class, p), id)
	if systemd() {
		dir = filepath.Join(n.podGroup(class, p), "cri-mini-"+id+".scope", "container")
	}
	if !exists(dir) {
		n.t.Fatalf("container %s of pod %s has no group %s", name, p.Metadata.Name, dir)
	}
	return dir
}

// podGroup is the group that the kubelet makes for a pod.
func (n *node) podGroup(class string, p *pod) string {
	if !systemd() {
		return filepath.Join(enclosure.CgroupRoot, "kubepods", class, "pod"+p.Metadata.UID)
	}
	name := "kubepods"
	path := filepath.Join(enclosure.CgroupRoot, name+".slice")
	for _, part := range []string{class, "pod" + strings.ReplaceAll(p.Metadata.UID, "-", "_")} {
		if part != "" { // as the class of guaranteed pods is
			name += "-" + part
			path = filepath.Join(path, name+".slice")
		}
	}
	return path
}

// weightOf is the group that competes with others for the processor: systemd
// sets the weight of the scope that the container's own group is in.
func weightOf(dir string) string {
	if systemd() {
		return filepath.Dir(dir)
	}
	return dir
}

func (n *node) groupFile(dir, file string) string {
	n.t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, file))
	if err != nil {
		n.t.Fatal(err)
	}
	return strings.TrimSpace(string(text))
}

// figure is a number in a file of a group, of a line with a key or the only one.
func (n *node) figure(dir, file, key string) float64 {
	n.t.Helper()
	for line := range strings.Lines(n.groupFile(dir, file)) {
		fields := strings.Fields(line)
		if key != "" && fields[0] != key {
			continue
		}
		number, err := strconv.ParseFloat(fields[len(fields)-1], 64)
		if err != nil {
			n.t.Fatal(err)
		}
		return number
	}
	n.t.Fatalf("%s/%s has no %q", dir, file, key)
	return 0
}

// TestLimitsOfPodsHoldInTheGroupsOfTheKubelet looks at files and at what they do.
func TestLimitsOfPodsHoldInTheGroupsOfTheKubelet(t *testing.T) {
	needControllers(t)
	n := start(t)
	for _, scenario := range []struct {
		name string
		run  func(*node)
	}{
		{"ClassesHaveTheirGroups", classes},
		{"QuotaThrottles", quota},
		{"RequestsDivideBusyProcessors", requestsDivide},
		{"ContainerThatTakesTooMuchIsOOMKilled", outOfMemory},
		{"MemoryOfAVolumeIsCharged", chargedVolume},
	} {
		t.Run(scenario.name, func(t *testing.T) {
			own := *n
			own.t = t
			scenario.run(&own)
		})
	}
}

func classes(n *node) {
	n.usesDriver()
	for _, name := range []string{"guaranteed", "burstable", "plain"} {
		n.add(name)
	}
	for _, want := range []struct{ pod, class, quota, memory, weight string }{
		{"guaranteed", "", "20000 100000", "67108864", "29"},
		{"burstable", "burstable", "50000 100000", "134217728", "17"},
		{"plain", "besteffort", "max 100000", "max", "1"},
	} {
		p := n.ready(want.pod)
		dir := n.group(want.class, p, "main")
		if got := n.groupFile(dir, "cpu.max"); got != want.quota {
			n.t.Errorf("%s: cpu.max %q, want %q", want.pod, got, want.quota)
		}
		if got := n.groupFile(dir, "memory.max"); got != want.memory {
			n.t.Errorf("%s: memory.max %q, want %q", want.pod, got, want.memory)
		}
		if got := n.groupFile(weightOf(dir), "cpu.weight"); got != want.weight {
			n.t.Errorf("%s: cpu.weight %q, want %q", want.pod, got, want.weight)
		}
		// The program is there, and not only a folder of that name.
		if got := n.groupFile(dir, "cgroup.procs"); got == "" {
			n.t.Errorf("%s: nobody is in %s", want.pod, dir)
		}
		if got := n.run(want.pod, "main", "cat", "/proc/self/cgroup"); !strings.HasPrefix(got, "0::/") {
			n.t.Errorf("%s: an exec is in %q", want.pod, got)
		}
	}
	for _, name := range []string{"burstable", "plain"} {
		n.remove(name)
	}
}

// usesDriver fails unless the kubelet was told the driver by the daemon.
func (n *node) usesDriver() {
	n.t.Helper()
	want := "cgroupfs"
	if systemd() {
		want = "systemd"
	}
	text, err := os.ReadFile(n.kubelet.log)
	if err != nil {
		n.t.Fatal(err)
	}
	if !strings.Contains(string(text), `"Using cgroup driver setting received from the CRI runtime" cgroupDriver="`+want+`"`) {
		n.t.Errorf("the kubelet does not say that it was told to use %s", want)
	}
}

// quota lets the pod of classes compute for a while.
func quota(n *node) {
	dir := n.group("", n.ready("guaranteed"), "main")
	begin, before := time.Now(), n.figure(dir, "cpu.stat", "usage_usec")
	time.Sleep(5 * time.Second)
	used := (n.figure(dir, "cpu.stat", "usage_usec") - before) / float64(time.Since(begin).Microseconds())
	if used > 0.2*1.2 || used == 0 {
		n.t.Errorf("a container with a quota of 0.2 processors used %.3f", used)
	}
	if n.figure(dir, "cpu.stat", "nr_throttled") == 0 {
		n.t.Error("never throttled")
	}
	n.remove("guaranteed")
}

func outOfMemory(n *node) {
	n.add("greedy")
	p := n.until("greedy", "failed", func(p *pod) bool { return p.Status.Phase == "Failed" })
	for _, name := range []string{"first", "child"} {
		c, err := p.container(name)
		if err != nil || c.State.Terminated == nil || c.State.Terminated.Reason != "OOMKilled" || c.State.Terminated.ExitCode != 137 {
			n.t.Errorf("%s: %v, want OOMKilled and 137: %s", name, err, p)
		}
	}
	n.remove("greedy")
}

const mebibyte = 1 << 20

func chargedVolume(n *node) {
	n.add("memoryvolume")
	p := n.ready("memoryvolume")
	dir := n.group("burstable", p, "main")
	if got := n.figure(dir, "memory.stat", "shmem"); got < 16*mebibyte || got > 17*mebibyte {
		n.t.Errorf("%.0f bytes of shared memory are charged for a file of 16 MiB", got)
	}
	if got := n.figure(n.podGroup("burstable", p), "memory.current", ""); got < 16*mebibyte {
		n.t.Errorf("the pod is charged %.0f bytes with a file of 16 MiB", got)
	}
	if _, err := n.tryRun("memoryvolume", "main", "dd", "if=/dev/zero", "of=/memory/more", "bs=1M", "count=10"); err == nil || !strings.Contains(err.Error(), "No space left") {
		n.t.Errorf("26 MiB in a volume of 20 MiB: %v, want no space left", err)
	}
	n.remove("memoryvolume")
}

// TestFiguresOfTheKubeletAreThoseOfTheGroups compares what the kubelet tells with
// what the kernel counts, whoever the kubelet has it from.
func TestFiguresOfTheKubeletAreThoseOfTheGroups(t *testing.T) {
	needControllers(t)
	for name, gates := range map[string][]string{
		"AsTheKubeletIsByDefault": nil,
		"FromTheRuntimeAlone":     {"PodAndContainerStatsFromCRI", "EventedPLEG", "CRIListStreaming"},
	} {
		t.Run(name, func(t *testing.T) {
			n := start(t, gates...)
			n.add("steady")
			p := n.until("steady", "ready", func(p *pod) bool { return p.condition("Ready") == "True" })
			dir := n.group("burstable", p, "main")
			pod := n.podGroup("burstable", p)
			n.eventually("the figures of /stats/summary are right", func() error { return n.compareSummary(pod, dir) })
			n.eventually("the figures of /metrics/resource are right", func() error { return n.compareMetrics(pod, dir) })
			n.remove("steady")
		})
	}
}

// near is an error unless two figures are the same within 5 %.
func near(what string, got, want float64) error {
	if want == 0 || math.Abs(got-want) > 0.05*want {
		return fmt.Errorf("%s is %.0f, and %.0f in the files of the group", what, got, want)
	}
	return nil
}

// workingSet is what the kernel could not free at once.
func (n *node) workingSet(dir string) float64 {
	return n.figure(dir, "memory.current", "") - n.figure(dir, "memory.stat", "inactive_file")
}

func (n *node) compareSummary(pod, dir string) error {
	s, err := n.summary()
	if err != nil {
		return err
	}
	for _, p := range s.Pods {
		if p.PodRef.Name != "steady-node" {
			continue
		}
		if len(p.Containers) != 1 || p.CPU == nil || p.CPU.UsageCoreNanoSeconds == nil || p.Memory == nil || p.Memory.WorkingSetBytes == nil {
			return fmt.Errorf("figures are missing: %+v", p)
		}
		c := p.Containers[0]
		if c.CPU == nil || c.CPU.UsageCoreNanoSeconds == nil || c.Memory == nil || c.Memory.WorkingSetBytes == nil {
			return fmt.Errorf("figures of the container are missing: %+v", c)
		}
		return errors.Join(
			near("processor time", float64(*c.CPU.UsageCoreNanoSeconds)/1000, n.figure(dir, "cpu.stat", "usage_usec")),
			near("memory", float64(*c.Memory.WorkingSetBytes), n.workingSet(dir)),
			near("processor time of the pod", float64(*p.CPU.UsageCoreNanoSeconds)/1000, n.figure(pod, "cpu.stat", "usage_usec")),
			near("memory of the pod", float64(*p.Memory.WorkingSetBytes), n.workingSet(pod)),
		)
	}
	return errors.New("no pod steady")
}

func (n *node) compareMetrics(pod, dir string) error {
	body, err := n.get("/metrics/resource")
	if err != nil {
		return err
	}
	var problems []error
	for metric, want := range map[string]float64{
		`container_memory_working_set_bytes{container="main",namespace="default",pod="steady-node"}`: n.workingSet(dir),
		`container_cpu_usage_seconds_total{container="main",namespace="default",pod="steady-node"}`:  n.figure(dir, "cpu.stat", "usage_usec") / 1e6,
		`pod_memory_working_set_bytes{namespace="default",pod="steady-node"}`:                        n.workingSet(pod),
	} {
		got, err := metricValue(string(body), metric)
		if err == nil {
			err = near(metric, got, want)
		}
		problems = append(problems, err)
	}
	return errors.Join(problems...)
}

func metricValue(text, metric string) (float64, error) {
	for line := range strings.Lines(text) {
		if rest, ok := strings.CutPrefix(line, metric+" "); ok {
			return strconv.ParseFloat(strings.Fields(rest)[0], 64)
		}
	}
	return 0, fmt.Errorf("no %s", metric)
}

// requestsDivide has two pods compete for all processors.
func requestsDivide(n *node) {
	n.add("busy")
	n.add("leftover")
	groups := []string{
		n.podGroup("burstable", n.ready("busy")),
		n.podGroup("besteffort", n.ready("leftover")),
	}
	var used []float64
	for _, dir := range groups {
		used = append(used, -n.figure(dir, "cpu.stat", "usage_usec"))
	}
	time.Sleep(10 * time.Second)
	for i, dir := range groups {
		used[i] += n.figure(dir, "cpu.stat", "usage_usec")
	}
	if used[0] < 4*used[1] {
		n.t.Errorf("a pod that asked for half a processor got %.1f s of them, and one that asked for none %.1f s", used[0]/1e6, used[1]/1e6)
	}
	n.remove("busy")
	n.remove("leftover")
}

// TestPodWithoutRequestsDiesFirstWhenPodsTakeAllMemory gives all pods together
// 400 MiB.
func TestPodWithoutRequestsDiesFirstWhenPodsTakeAllMemory(t *testing.T) {
	needControllers(t)
	n := startWith(t, func(n *node) { n.Kept = fmt.Sprintf("%dMi", meminfo(t, "MemTotal")-400) })
	for _, name := range []string{"guaranteed", "memoryvolume"} {
		n.add(name)
		n.ready(name)
	}
	n.add("hungry")
	p := n.until("hungry", "failed", func(p *pod) bool { return p.Status.Phase == "Failed" })
	c, err := p.container("main")
	if err != nil || c.State.Terminated == nil || c.State.Terminated.Reason != "OOMKilled" || c.State.Terminated.ExitCode != 137 {
		t.Errorf("hungry: %v, want OOMKilled and 137: %s", err, p)
	}
	for _, name := range []string{"guaranteed", "memoryvolume"} {
		if c, err := n.ready(name).container("main"); err != nil || c.RestartCount != 0 {
			t.Errorf("%s, which took less than it asked for: %v, %+v", name, err, c)
		}
		n.remove(name)
	}
	n.remove("hungry")
}
