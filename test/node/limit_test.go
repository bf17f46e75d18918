package node

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"cri-mini/internal/enclosure"
)

// These tests prove limits by what they do, not by what a file says. `make
// test-node` runs them, all whose names begin with TestLimit, where all
// controllers are.

// needController skips where the limit cannot be set. That it then is refused
// is tested elsewhere.
func needController(t *testing.T, names ...string) {
	t.Helper()
	text := readFile(t, filepath.Join(enclosure.CgroupRoot, "cgroup.controllers"))
	for _, name := range names {
		if !strings.Contains(" "+strings.TrimSpace(text)+" ", " "+name+" ") {
			t.Skipf("cgroup controller %s is missing", name)
		}
	}
}

// limited is the config of a container with limits.
func limited(name string, r *criapi.LinuxContainerResources, args ...string) *criapi.ContainerConfig {
	config := containerConfig(name, args...)
	config.Linux.Resources = r
	return config
}

// group is the folder of the container's cgroup.
func (c *container) group() string {
	c.d.t.Helper()
	text := readFile(c.d.t, fmt.Sprintf("/proc/%d/cgroup", c.pid()))
	_, path, ok := strings.Cut(strings.TrimSpace(text), "0::")
	if !ok {
		c.d.t.Fatalf("no cgroup v2 in %q", text)
	}
	return filepath.Join(enclosure.CgroupRoot, path)
}

// figure reads a file of one number, or the line of a key.
func figure(t *testing.T, group, file, key string) int64 {
	t.Helper()
	for rows := bufio.NewScanner(strings.NewReader(readFile(t, filepath.Join(group, file)))); rows.Scan(); {
		fields := strings.Fields(rows.Text())
		if key == "" || fields[0] == key {
			n, err := strconv.ParseInt(fields[len(fields)-1], 10, 64)
			if err != nil {
				t.Fatalf("%s: %v", file, err)
			}
			return n
		}
	}
	t.Fatalf("%s: no %s", file, key)
	return 0
}

// usage is how much processor time a group took per second of a while.
func usage(t *testing.T, while time.Duration, groups ...string) []float64 {
	t.Helper()
	begun := time.Now()
	var before, shares []float64
	for _, g := range groups {
		before = append(before, float64(figure(t, g, "cpu.stat", "usage_usec")))
	}
	time.Sleep(while)
	took := float64(time.Since(begun).Microseconds())
	for i, g := range groups {
		shares = append(shares, (float64(figure(t, g, "cpu.stat", "usage_usec"))-before[i])/took)
	}
	return shares
}

func (c *container) update(r *criapi.LinuxContainerResources) {
	c.d.t.Helper()
	if _, err := c.d.UpdateContainerResources(c.d.context(), &criapi.UpdateContainerResourcesRequest{ContainerId: c.id, Linux: r}); err != nil {
		c.d.t.Fatalf("update: %v", err)
	}
}

func TestLimitQuotaThrottlesAndFollowsAnUpdateUpAndDown(t *testing.T) {
	needController(t, "cpu")
	d := ready(t)
	p := d.runPod("quota")
	c := p.run(limited("burner", &criapi.LinuxContainerResources{CpuPeriod: 100000, CpuQuota: 20000}, "actor", "burn"))
	group := c.group()
	throttled := func() int64 { return figure(t, group, "cpu.stat", "nr_throttled") }
	eventually(t, "the burner is throttled", func() bool { return throttled() > 5 })
	if share := usage(t, 5*time.Second, group)[0]; share > 0.2*1.2 {
		t.Errorf("used %.3f of a processor, the quota is 0.2", share)
	}
	c.update(&criapi.LinuxContainerResources{CpuPeriod: 100000, CpuQuota: -1})
	time.Sleep(300 * time.Millisecond) // of the old period
	before := throttled()
	time.Sleep(2 * time.Second)
	if after := throttled(); after != before {
		t.Errorf("throttled %d times without a quota", after-before)
	}
	c.update(&criapi.LinuxContainerResources{CpuPeriod: 100000, CpuQuota: 10000})
	eventually(t, "the burner is throttled again", func() bool { return throttled() > before+5 })
	if share := usage(t, 5*time.Second, group)[0]; share > 0.1*1.2 {
		t.Errorf("used %.3f of a processor, the quota is 0.1 by now", share)
	}
	if c.status().State != criapi.ContainerState_CONTAINER_RUNNING {
		t.Error("the updates ended the container")
	}
}

func TestLimitSharesDivideABusyProcessor(t *testing.T) {
	needController(t, "cpu", "cpuset")
	d := ready(t)
	p := d.runPod("shares")
	run := func(name string, shares int64) string {
		c := p.run(limited(name, &criapi.LinuxContainerResources{CpuShares: shares, CpusetCpus: "0"}, "actor", "burn"))
		return c.group()
	}
	much, little := run("much", 4096), run("little", 512)
	want := float64(figure(t, much, "cpu.weight", "")) / float64(figure(t, little, "cpu.weight", ""))
	if want < 2 {
		t.Fatalf("weights differ by %.1f, want more", want)
	}
	// An emulated machine on a busy host stands still at times, and whoever runs
	// then is charged for it. Some looks are without that.
	for range 8 {
		shares := usage(t, 10*time.Second, much, little)
		got := shares[0] / shares[1]
		t.Logf("shares of the processor %.3f, ratio %.1f; the weights' is %.1f", shares, got, want)
		if got >= want/2 && got <= want*2 {
			return
		}
	}
	t.Error("the shares are never those of the weights")
}

func TestLimitCpusetPinsAndFollowsAnUpdate(t *testing.T) {
	needController(t, "cpuset")
	d := ready(t)
	p := d.runPod("cpuset")
	c := p.run(limited("pinned", &criapi.LinuxContainerResources{CpusetCpus: "1", CpusetMems: "0"}, "sleep", "1000"))
	for _, want := range []string{"1", "0", "0-1"} {
		if want != "1" {
			c.update(&criapi.LinuxContainerResources{CpusetCpus: want})
		}
		for who, text := range map[string]string{
			"an exec":           c.exec("cat", "/proc/self/status"),
			"the first process": readFile(t, fmt.Sprintf("/proc/%d/status", c.pid())),
		} {
			if !strings.Contains(text, "\nCpus_allowed_list:\t"+want+"\n") {
				t.Errorf("cpuset %s: %s may run elsewhere: %s", want, who, text)
			}
		}
	}
}

const mib = 1 << 20

func TestLimitOfMemoryKillsAndIsSaidToHave(t *testing.T) {
	needController(t, "memory")
	d := ready(t)
	p := d.runPod("oom")
	whole := map[string]string{"memory.oom.group": "1"} // as the kubelet asks for
	for name, c := range map[string]struct {
		unified map[string]string
		args    []string
	}{
		"first process":            {nil, []string{"actor", "eat", "200", "0s"}},
		"child, whole group":       {whole, []string{"sh", "-c", "actor eat 200 0s; sleep 1000"}},
		"child, its end passed on": {nil, []string{"sh", "-c", "actor eat 200 0s; exit $?"}},
	} {
		t.Run(name, func(t *testing.T) {
			d.enter(t)
			r := &criapi.LinuxContainerResources{MemoryLimitInBytes: 32 * mib, MemorySwapLimitInBytes: 32 * mib, Unified: c.unified}
			if s := p.run(limited(strings.Fields(name)[0]+fmt.Sprint(len(name)), r, c.args...)).exited(); s.ExitCode != 137 || s.Reason != "OOMKilled" {
				t.Errorf("exit code %d, reason %q; want 137, OOMKilled", s.ExitCode, s.Reason)
			}
		})
	}
	t.Run("an exec, and the container lives", func(t *testing.T) {
		d.enter(t)
		c := p.run(limited("lives", &criapi.LinuxContainerResources{MemoryLimitInBytes: 32 * mib, MemorySwapLimitInBytes: 32 * mib}, "sleep", "1000"))
		if code, out := c.tryExec("actor", "eat", "200", "0s"); code != 137 {
			t.Errorf("exit code %d, %q; want 137", code, out)
		}
		c.stop(0)
		if s := c.exited(); s.Reason == "OOMKilled" && s.ExitCode != 137 {
			t.Errorf("exit code %d, reason %q", s.ExitCode, s.Reason)
		}
	})
}

func TestLimitOfMemoryFollowsAnUpdateUpAndDown(t *testing.T) {
	needController(t, "memory")
	d := ready(t)
	p := d.runPod("resize")
	limit := func(size int64) *criapi.LinuxContainerResources {
		return &criapi.LinuxContainerResources{MemoryLimitInBytes: size, MemorySwapLimitInBytes: size}
	}
	c := p.run(limited("sleeper", limit(32*mib), "sleep", "1000"))
	for _, step := range []struct {
		size int64
		code int32
	}{{32 * mib, 137}, {160 * mib, 0}, {48 * mib, 137}} {
		c.update(limit(step.size))
		if code, out := c.tryExec("actor", "eat", "100", "0s"); code != step.code {
			t.Errorf("100 MiB with a limit of %d: exit code %d, %q; want %d", step.size/mib, code, out, step.code)
		}
	}
	if s := c.status(); s.State != criapi.ContainerState_CONTAINER_RUNNING || s.Resources.GetLinux().GetMemoryLimitInBytes() != 48*mib {
		t.Errorf("state %s, resources %v; want running with the last limit", s.State, s.Resources)
	}
}

func TestLimitHighHoldsMemoryBackWithoutKilling(t *testing.T) {
	needController(t, "memory")
	d := ready(t)
	p := d.runPod("high")
	r := &criapi.LinuxContainerResources{Unified: map[string]string{"memory.high": fmt.Sprint(24 * mib), "memory.swap.max": "0"}}
	c := p.run(limited("eater", r, "actor", "eat", "200", "0s"))
	group := c.group()
	eventually(t, "the eater is held back", func() bool { return figure(t, group, "memory.events", "high") > 5 })
	time.Sleep(time.Second)
	if used := figure(t, group, "memory.current", ""); used > 100*mib {
		t.Errorf("uses %d MiB, memory.high is 24", used/mib)
	}
	if kills := figure(t, group, "memory.events", "oom_kill"); kills != 0 || c.status().State != criapi.ContainerState_CONTAINER_RUNNING {
		t.Errorf("%d kills, state %s; want none, running", kills, c.status().State)
	}
	c.stop(0)
}

func TestLimitOfSwapIsWhatMayBeSwapped(t *testing.T) {
	needController(t, "memory")
	if strings.Count(readFile(t, "/proc/swaps"), "\n") < 2 {
		t.Skip("kernel feature missing: swap, none is on")
	}
	d := ready(t)
	p := d.runPod("swap")
	for name, step := range map[string]struct {
		both int64
		code int32
	}{"some": {128 * mib, 0}, "none": {32 * mib, 137}} {
		r := &criapi.LinuxContainerResources{MemoryLimitInBytes: 32 * mib, MemorySwapLimitInBytes: step.both}
		c := p.run(limited(name, r, "actor", "eat", "80", "0s"))
		if s := c.exited(); s.ExitCode != step.code {
			t.Errorf("80 MiB with 32 MiB of memory and %s swap: exit code %d, want %d", name, s.ExitCode, step.code)
		}
	}
}

func TestLimitOfFourMiBIsEnoughToStart(t *testing.T) {
	needController(t, "memory")
	d := ready(t)
	p := d.runPod("small")
	c := p.run(limited("small", &criapi.LinuxContainerResources{MemoryLimitInBytes: 4 * mib, MemorySwapLimitInBytes: 4 * mib}, "sleep", "1000"))
	if got := c.exec("echo", "lives"); got != "lives\n" {
		t.Errorf("exec says %q", got)
	}
	group := c.group()
	t.Logf("peak %d KiB", figure(t, group, "memory.peak", "")>>10)
	if kills := figure(t, group, "memory.events", "oom_kill"); kills != 0 {
		t.Errorf("%d kills", kills)
	}
}

func TestLimitOfPidsStopsAForkBomb(t *testing.T) {
	needController(t, "pids")
	d := ready(t)
	p := d.runPod("bomb")
	c := p.run(limited("bomb", &criapi.LinuxContainerResources{Unified: map[string]string{"pids.max": "30"}}, "sh", "-c", "actor bomb 300; sleep 1000"))
	eventually(t, "the bomb is stopped", func() bool { return strings.Contains(readFile(t, c.log), "stopped after ") })
	group := c.group()
	if n, stopped := figure(t, group, "pids.current", ""), figure(t, group, "pids.events", "max"); n > 30 || stopped == 0 {
		t.Errorf("%d processes, stopped %d times; want at most 30, and more than 0", n, stopped)
	}
	d.wholeLife("beside")
}

func TestLimitOfHugePagesHoldsAndFollowsAnUpdate(t *testing.T) {
	needController(t, "hugetlb")
	const pool = "/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages"
	if text, err := os.ReadFile(pool); err != nil || figure(t, filepath.Dir(pool), filepath.Base(pool), "") < 4 {
		t.Skipf("kernel feature missing: 4 free huge pages of 2 MiB (there are %q)", strings.TrimSpace(string(text)))
	}
	d := ready(t)
	p := d.runPod("huge")
	c := p.run(limited("huge", &criapi.LinuxContainerResources{HugepageLimits: []*criapi.HugepageLimit{{PageSize: "2MB", Limit: 4 * mib}}}, "sleep", "1000"))
	if got := c.exec("actor", "huge", "4"); got != "stopped after 2\n" {
		t.Errorf("with a limit of 2 pages: %q", got)
	}
	c.update(&criapi.LinuxContainerResources{HugepageLimits: []*criapi.HugepageLimit{{PageSize: "2MB", Limit: 6 * mib}}})
	if got := c.exec("actor", "huge", "4"); got != "stopped after 3\n" {
		t.Errorf("with a limit of 3 pages: %q", got)
	}
}

func TestLimitOfIOHoldsWritesBackAndFollowsAnUpdate(t *testing.T) {
	needController(t, "io")
	d := ready(t)
	var st unix.Stat_t
	if err := unix.Stat(d.dir, &st); err != nil {
		t.Fatal(err)
	}
	device := fmt.Sprintf("%d:%d", unix.Major(st.Dev), unix.Minor(st.Dev))
	if _, err := os.Stat("/sys/dev/block/" + device); err != nil {
		t.Skip("kernel feature missing: a block device under the folder of the tests")
	}
	limit := func(to string) *criapi.LinuxContainerResources {
		return &criapi.LinuxContainerResources{Unified: map[string]string{"io.max": device + " wbps=" + to}}
	}
	p := d.runPod("io")
	const rate, size = 1 * mib, 8
	c := p.run(limited("writer", limit(fmt.Sprint(rate)), "sleep", "1000"))
	group := c.group()
	took := func() time.Duration {
		begun, before := time.Now(), written(t, group, device)
		if got := c.exec("actor", "write", "/file", fmt.Sprint(size)); got != "written\n" {
			t.Fatalf("writer says %q", got)
		}
		if got := written(t, group, device) - before; got < size*mib || got > 2*size*mib {
			t.Errorf("%d bytes are counted for a write of %d", got, size*mib)
		}
		return time.Since(begun)
	}
	if got := took(); got < size/2*time.Second {
		t.Errorf("%d MiB took %s with a limit of 1 MiB in a second", size, got)
	}
	c.update(limit("max"))
	if got := took(); got > size/2*time.Second {
		t.Errorf("%d MiB took %s without a limit", size, got)
	}
}

// written is what a group has written to a device.
func written(t *testing.T, group, device string) int64 {
	t.Helper()
	for line := range strings.Lines(readFile(t, filepath.Join(group, "io.stat"))) {
		fields := strings.Fields(line)
		for _, f := range fields {
			if number, ok := strings.CutPrefix(f, "wbytes="); ok && fields[0] == device {
				n, err := strconv.ParseInt(number, 10, 64)
				if err != nil {
					t.Fatal(err)
				}
				return n
			}
		}
	}
	return 0
}

// A node can be made, for the default capabilities have CAP_MKNOD, and any image
// may hold one. Opening it is what the filter decides.
func TestLimitOnlyGivenDevicesOpen(t *testing.T) {
	d := ready(t)
	p := d.runPod("devices")
	const denied = "operation not permitted"
	for name, step := range map[string]struct{ permissions, read, write string }{
		"none":  {"", denied, denied},
		"read":  {"r", "<nil>", denied},
		"write": {"w", denied, "<nil>"},
		"all":   {"rwm", "<nil>", "<nil>"},
	} {
		config := containerConfig(name, "actor", "device")
		config.Linux.SecurityContext.Capabilities = &criapi.Capability{AddCapabilities: []string{"SYSLOG"}} // which reading needs besides
		if step.permissions != "" {
			config.Devices = []*criapi.Device{{HostPath: "/dev/kmsg", ContainerPath: "/dev/given", Permissions: step.permissions}}
		}
		c := p.run(config)
		s := c.exited()
		want := fmt.Sprintf("0 %s\n1 %s\n", step.read, step.write)
		got := ""
		for _, line := range readLog(t, c.log) {
			got += line.text + "\n"
		}
		if s.ExitCode != 0 || got != want {
			t.Errorf("permissions %q: exit code %d, %q; want %q", step.permissions, s.ExitCode, got, want)
		}
	}
}
