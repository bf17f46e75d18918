package cgroup

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// kubeletBestEffort is what a kubelet sends for a container without requests
// and limits.
func kubeletBestEffort() Resources {
	return Resources{
		CPUPeriod: 100000, CPUShares: 2,
		HugepageLimits: []HugepageLimit{{"2MB", 0}, {"1GB", 0}},
		Unified:        map[string]string{"memory.low": "0", "memory.min": "0", "memory.oom.group": "1", "memory.swap.max": "0", "memory.high": "max"},
	}
}

// everyFile is a fresh group of a machine with all controllers.
var everyFile = map[string]string{
	"cgroup.controllers": "cpu cpuset hugetlb io memory pids",
	"cpu.max":            "max 100000", "cpu.weight": "100", "cpuset.cpus": "", "cpuset.mems": "",
	"memory.max": "max", "memory.swap.max": "max", "memory.high": "max", "memory.low": "0", "memory.min": "0",
	"memory.oom.group": "0", "pids.max": "max", "io.max": "",
	"hugetlb.2MB.max": "max", "hugetlb.2MB.rsvd.max": "max", "hugetlb.1GB.max": "max",
}

const fakeGroup = "/pod/container"

// fake is a directory tree that looks like cgroup2 to code that reads and
// writes limits.
func fake(t *testing.T, controllers string, files map[string]string) (Root, *Group) {
	t.Helper()
	root := Root{Path: t.TempDir()}
	g := root.group(fakeGroup)
	if err := os.MkdirAll(g.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	put := func(name, text string) {
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	put(root.Path+"/cgroup.controllers", controllers)
	put(root.Path+"/cgroup.subtree_control", "")
	put(root.Path+"/pod/cgroup.subtree_control", controllers)
	for name, text := range files {
		put(g.file(name), text)
	}
	return root, g
}

func values(t *testing.T, g *Group) map[string]string {
	t.Helper()
	got := map[string]string{}
	names, err := filepath.Glob(g.dir + "/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		got[filepath.Base(name)] = string(text)
	}
	return got
}

func TestLimitsBecomeFileValues(t *testing.T) {
	for name, c := range map[string]struct {
		res  Resources
		want map[string]string // what differs from a fresh group
	}{
		"nothing":                {Resources{}, nil},
		"best effort":            {kubeletBestEffort(), map[string]string{"cpu.weight": "1", "memory.oom.group": "1", "memory.swap.max": "0", "hugetlb.2MB.max": "0", "hugetlb.2MB.rsvd.max": "0", "hugetlb.1GB.max": "0"}},
		"burstable":              {Resources{CPUShares: 102, CPUPeriod: 100000, CPUQuota: 20000, MemoryLimit: 67108864}, map[string]string{"cpu.weight": "17", "cpu.max": "20000 100000", "memory.max": "67108864"}},
		"default shares":         {Resources{CPUShares: 1024}, map[string]string{"cpu.weight": "100"}},
		"most shares":            {Resources{CPUShares: 262144}, map[string]string{"cpu.weight": "10000"}},
		"quota keeps the period": {Resources{CPUQuota: 5000}, map[string]string{"cpu.max": "5000"}},
		"period keeps the quota": {Resources{CPUPeriod: 50000}, map[string]string{"cpu.max": "max 50000"}},
		"quota taken off":        {Resources{CPUQuota: -1, CPUPeriod: 100000}, nil},
		"cpuset":                 {Resources{CpusetCpus: "0-1", CpusetMems: "0"}, map[string]string{"cpuset.cpus": "0-1", "cpuset.mems": "0"}},
		"no swap":                {Resources{MemoryLimit: 100, MemorySwapLimit: 100}, map[string]string{"memory.max": "100", "memory.swap.max": "0"}},
		"some swap":              {Resources{MemoryLimit: 100, MemorySwapLimit: 150}, map[string]string{"memory.max": "100", "memory.swap.max": "50"}},
		"swap without limit":     {Resources{MemoryLimit: 100, MemorySwapLimit: -1}, map[string]string{"memory.max": "100"}},
		"pids":                   {Resources{PidsLimit: 64}, map[string]string{"pids.max": "64"}},
		"unified is last":        {Resources{MemoryLimit: 100, Unified: map[string]string{"memory.max": "200\n"}}, map[string]string{"memory.max": "200"}},
	} {
		root, g := fake(t, "cpu cpuset hugetlb io memory pids", everyFile)
		res := c.res
		res.AllowAllDevices = true
		if _, err := root.Create(fakeGroup, res); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		want := maps.Clone(everyFile)
		maps.Copy(want, c.want)
		if got := values(t, g); !maps.Equal(got, overwritten(want)) {
			t.Errorf("%s: files %v, want %v", name, got, want)
		}
	}
}

// overwritten accounts for the one way in which the tree is not a cgroup: a
// short value leaves the end of a longer one.
func overwritten(want map[string]string) map[string]string {
	for file, fresh := range everyFile {
		if v := want[file]; len(v) < len(fresh) {
			want[file] = v + fresh[len(v):]
		}
	}
	return want
}

func TestNoLimitAskedForNeedsNoController(t *testing.T) {
	none := map[string]string{"cgroup.controllers": ""}
	for name, res := range map[string]Resources{
		"best effort": kubeletBestEffort(),
		"no limits":   {CPUQuota: -1, MemoryLimit: -1, MemorySwapLimit: -1, PidsLimit: -1},
		"shares":      {CPUShares: 1024},
	} {
		res.AllowAllDevices = true
		root, g := fake(t, "", none)
		if _, err := root.Create(fakeGroup, res); err != nil {
			t.Errorf("%s without any controller: %v", name, err)
		}
		if got := values(t, g); !maps.Equal(got, none) {
			t.Errorf("%s: wrote %v", name, got)
		}
	}
	// And on this machine, whatever it has.
	g := create(t, ownPlace(t), kubeletBestEffort())
	remove(t, g)
}

func TestALimitWithoutItsControllerIsNamed(t *testing.T) {
	for want, res := range map[string]Resources{
		"cpu_shares 512: cgroup controller cpu is missing":                   {CPUShares: 512},
		"cpu_quota 20000: cgroup controller cpu is missing":                  {CPUQuota: 20000, CPUPeriod: 100000},
		`cpuset_cpus "0": cgroup controller cpuset is missing`:               {CpusetCpus: "0"},
		`cpuset_mems "0": cgroup controller cpuset is missing`:               {CpusetMems: "0"},
		"memory_limit_in_bytes 15: cgroup controller memory is missing":      {MemoryLimit: 15},
		"memory_swap_limit_in_bytes 30: cgroup controller memory is missing": {MemorySwapLimit: 30},
		"pids_limit 5: cgroup controller pids is missing":                    {PidsLimit: 5},
		"hugepage_limits[2MB] 2097152: cgroup controller hugetlb is missing": {HugepageLimits: []HugepageLimit{{"2MB", 2097152}}},
		`unified[memory.max] "0": cgroup controller memory is missing`:       {Unified: map[string]string{"memory.max": "0"}},
		`unified[io.max] "8:0 rbps=1": cgroup controller io is missing`:      {Unified: map[string]string{"io.max": "8:0 rbps=1"}},
	} {
		root := Root{Path: t.TempDir()}
		if err := os.WriteFile(root.Path+"/cgroup.controllers", nil, 0o644); err != nil {
			t.Fatal(err)
		}
		_, err := root.Create("/pod/x", res)
		var missing *ErrControllerMissing
		if !errors.As(err, &missing) || err.Error() != "cgroup /pod/x: "+want {
			t.Errorf("error %v, want %s", err, want)
		}
		if _, err := os.Stat(root.Path + "/pod"); err == nil {
			t.Errorf("%s: left a group behind", want)
		}
	}
}

func TestBadValuesAreNamed(t *testing.T) {
	for want, res := range map[string]Resources{
		"cpu_shares -1: below 0": {CPUShares: -1},
		"cpu_period -1: below 0": {CPUPeriod: -1},
		"memory_swap_limit_in_bytes 5: below memory_limit_in_bytes 6, which it includes": {MemoryLimit: 6, MemorySwapLimit: 5},
		`hugepage_limits "../x": want a page size like 2MB`:                              {HugepageLimits: []HugepageLimit{{"../x", 0}}},
		`unified[cgroup.procs] "1": not a file of a cgroup controller`:                   {Unified: map[string]string{"cgroup.procs": "1"}},
		`unified[memory.max/../cpu.max] "1": not a file of a cgroup controller`:          {Unified: map[string]string{"memory.max/../cpu.max": "1"}},
		`unified[../../x] "1": not a file of a cgroup controller`:                        {Unified: map[string]string{"../../x": "1"}},
		`unified[memory.max] "": value of 0 bytes`:                                       {Unified: map[string]string{"memory.max": " "}},
		`unified[memory.nonsense] "1": memory.nonsense: no such file or directory`:       {Unified: map[string]string{"memory.nonsense": "1"}},
		"hugepage_limits[16GB] 1: hugetlb.16GB.max: no such file or directory":           {HugepageLimits: []HugepageLimit{{"16GB", 1}}},
		"memory_swap_limit_in_bytes 9: memory.max is max":                                {MemorySwapLimit: 9},
	} {
		_, g := fake(t, "memory hugetlb", everyFile)
		err := g.Update(res)
		if err == nil || err.Error() != "cgroup "+fakeGroup+": "+want {
			t.Errorf("error %v, want %s", err, want)
		}
		var limit *ErrLimit
		if !errors.As(err, &limit) || !limit.Refused() {
			t.Errorf("%v is not told as a bad limit", err)
		}
	}
}

func TestFailedUpdateBringsTheOldLimitsBack(t *testing.T) {
	_, g := fake(t, "", everyFile)
	if err := os.Remove(g.file("pids.max")); err != nil {
		t.Fatal(err)
	}
	// Can be read and opened for writing, but not written.
	if err := os.Symlink("/proc/version", g.file("pids.max")); err != nil {
		t.Fatal(err)
	}
	before := values(t, g)
	err := g.Update(Resources{CPUShares: 777, CpusetCpus: "1", MemoryLimit: 4096, PidsLimit: 7})
	if err == nil || !strings.Contains(err.Error(), "pids_limit 7: pids.max: ") {
		t.Fatalf("Update: %v, want one that names pids_limit", err)
	}
	after := values(t, g)
	after["memory.max"] = after["memory.max"][:3] // see overwritten
	after["cpuset.cpus"] = strings.Trim(after["cpuset.cpus"], "\n")
	if !maps.Equal(before, after) {
		t.Fatalf("after the failed update: %v, want %v", after, before)
	}
}

// Whichever of the writes fails, all that were made before are taken back.
func TestAnyWriteOfAnUpdateMayFail(t *testing.T) {
	// Old and new values are of one length: see overwritten.
	old := map[string]string{
		"cgroup.controllers": "cpu cpuset hugetlb io memory pids",
		"cpu.max":            "max 100000", "cpu.weight": "100", "cpuset.cpus": "0", "cpuset.mems": "0",
		"memory.max": "max", "memory.swap.max": "max", "memory.high": "max", "memory.low": "0", "pids.max": "max",
		"hugetlb.2MB.max": "max", "hugetlb.2MB.rsvd.max": "max", "hugetlb.1GB.max": "max", "hugetlb.1GB.rsvd.max": "max",
	}
	res := Resources{
		CPUShares: 2048, CPUQuota: 200, CPUPeriod: 200000, CpusetCpus: "1", CpusetMems: "1", MemoryLimit: 512, MemorySwapLimit: 1024, PidsLimit: 777,
		HugepageLimits: []HugepageLimit{{"2MB", 123}, {"1GB", 456}}, Unified: map[string]string{"memory.high": "999", "memory.low": "1"},
	}
	settings, err := res.settings()
	if err != nil {
		t.Fatal(err)
	}
	if len(settings) != len(old)-1 {
		t.Fatalf("%d settings for %d files", len(settings), len(old)-1)
	}
	for k, failing := range settings {
		_, g := fake(t, "", old)
		if err := os.Remove(g.file(failing.file)); err != nil {
			t.Fatal(err)
		}
		// Can be read and opened for writing, but not written.
		if err := os.Symlink("/proc/version", g.file(failing.file)); err != nil {
			t.Fatal(err)
		}
		before := values(t, g)
		var limit *ErrLimit
		if err := g.Update(res); !errors.As(err, &limit) || limit.Field != failing.field || limit.Refused() {
			t.Errorf("write %d of %s: %v, want one that names %s and is nobody's fault", k, failing.file, err, failing.field)
		}
		if after := values(t, g); !maps.Equal(before, after) {
			t.Errorf("write %d of %s failed: files %v, want %v", k, failing.file, after, before)
		}
	}
	_, g := fake(t, "", old)
	if err := g.Update(res); err != nil {
		t.Fatal(err)
	}
	for _, s := range settings {
		if got, err := g.read(s.file); err != nil || got == old[s.file] {
			t.Errorf("%s is %q, %v, after an update that went well", s.file, got, err)
		}
	}
}

func TestZeroKeepsTheLimits(t *testing.T) {
	_, g := fake(t, "", everyFile)
	before := values(t, g)
	if err := g.Update(Resources{}); err != nil {
		t.Fatal(err)
	}
	if after := values(t, g); !maps.Equal(before, after) {
		t.Errorf("files %v, want %v", after, before)
	}
}

func TestUpdateDoesNotTouchDevices(t *testing.T) {
	_, g := fake(t, "", everyFile)
	if err := g.Update(Resources{AllowAllDevices: true}); err == nil {
		t.Fatal("an update of devices was silently ignored")
	}
}

// The kernel's own files, with whichever limits this machine has.
func TestKernelTakesTheLimits(t *testing.T) {
	place := ownPlace(t)
	for name, c := range map[string]struct {
		res   Resources
		file  string
		want  string
		other Resources         // also good, but comes together with
		bad   map[string]string // what the kernel refuses
	}{
		"hugetlb": {Resources{HugepageLimits: []HugepageLimit{{"2MB", 4 << 20}}}, "hugetlb.2MB.max", "4194304", Resources{HugepageLimits: []HugepageLimit{{"2MB", 2 << 20}}}, map[string]string{"hugetlb.2MB.rsvd.max": "nonsense"}},
		"memory":  {Resources{MemoryLimit: 64 << 20}, "memory.max", "67108864", Resources{MemoryLimit: 65 << 20}, map[string]string{"memory.high": "nonsense"}},
		"cpu":     {Resources{CPUQuota: 20000, CPUPeriod: 50000}, "cpu.max", "20000 50000", Resources{CPUQuota: -1}, map[string]string{"cpu.weight": "nonsense"}},
		"pids":    {Resources{PidsLimit: 33}, "pids.max", "33", Resources{PidsLimit: 34}, map[string]string{"pids.max": "nonsense"}},
		"cpuset":  {Resources{CpusetCpus: "0"}, "cpuset.cpus", "0", Resources{CpusetCpus: "0-1"}, map[string]string{"cpuset.mems": "nonsense"}},
	} {
		t.Run(name, func(t *testing.T) {
			// Made without limits, so that Update has to enable the controller.
			g := create(t, place+"/"+name, open)
			defer remove(t, g)
			var missing *ErrControllerMissing
			err := g.Update(c.res)
			if errors.As(err, &missing) {
				if slices.Contains(real.Controllers(), missing.Controller) {
					t.Fatalf("%v, but the machine has it", err)
				}
				t.Skip(err)
			}
			if got, readErr := g.read(c.file); err != nil || got != c.want {
				t.Fatalf("%s: %q, %v, %v; want %q", c.file, got, err, readErr, c.want)
			}
			failing := c.other
			failing.Unified = c.bad
			if err := g.Update(failing); !errors.Is(err, unix.EINVAL) {
				t.Fatalf("Update with nonsense: %v, want EINVAL", err)
			}
			if got, err := g.read(c.file); err != nil || got != c.want {
				t.Fatalf("%s after a refused update: %q, %v; want %q", c.file, got, err, c.want)
			}
		})
	}
}

func TestAControllerTheParentCannotGiveSaysWhy(t *testing.T) {
	limits := map[string]Resources{"hugetlb": {HugepageLimits: []HugepageLimit{{"2MB", 2 << 20}}}, "memory": {MemoryLimit: 64 << 20}}
	place := ownPlace(t)
	parent := create(t, place+"/parent", open)
	defer remove(t, parent)
	cmd := start(t, parent, "sleep") // a group with processes cannot share its resources out
	defer cmd.Wait()
	defer parent.Kill()
	for controller, res := range limits {
		_, err := real.Create(parent.Path+"/child", res)
		var missing *ErrControllerMissing
		if !errors.As(err, &missing) {
			t.Fatalf("Create: %v, want a missing controller", err)
		}
		if has := slices.Contains(real.Controllers(), controller); errors.Is(err, unix.EBUSY) != has {
			t.Fatalf("Create: %v, and the machine has %s: %v; want EBUSY where it has", err, controller, has)
		}
		if names, _ := filepath.Glob(parent.dir + "/child"); names != nil {
			t.Fatal("the child was left behind")
		}
	}
}

// A parent with processes must not become threaded for the sake of measuring:
// no program could be born below it.
func TestAProgramCanLiveBelowAGroupWithProcesses(t *testing.T) {
	place := ownPlace(t)
	parent := create(t, place+"/parent", open)
	defer remove(t, parent)
	above := start(t, parent, "sleep")
	defer above.Wait()
	defer parent.Kill()
	child := create(t, parent.Path+"/child", kubeletBestEffort())
	cmd := start(t, child, "burn")
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	if kind, err := parent.read("cgroup.type"); err != nil || kind != "domain" {
		t.Fatalf("the parent is %q, %v; want domain", kind, err)
	}
}

func TestKernelKillsAtTheMemoryLimitAndCountsIt(t *testing.T) {
	g, err := real.Create(ownPlace(t), Resources{MemoryLimit: 24 << 20, MemorySwapLimit: 24 << 20})
	var missing *ErrControllerMissing
	if errors.As(err, &missing) && !slices.Contains(real.Controllers(), "memory") {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer remove(t, g)
	cmd := start(t, g, "eat")
	if err := cmd.Wait(); cmd.ProcessState.Sys().(syscall.WaitStatus).Signal() != unix.SIGKILL {
		t.Fatalf("a program that took 100 MB of 24 ended with %v", err)
	}
	if n, err := g.OOMKills(); err != nil || n == 0 {
		t.Fatalf("OOMKills: %d, %v; want at least 1", n, err)
	}
}
