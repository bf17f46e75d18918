package cgroup

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/cgroups/v3/cgroup2"

	"cri-mini/runtime/spec"
)

var usedFiles = map[string]string{
	"cpu.stat":   "usage_usec 5000\nuser_usec 3000\nsystem_usec 2000\nnr_periods 7\nnr_throttled 2\nthrottled_usec 900\n",
	"cpu.weight": "39\n", "cpu.max": "20000 100000\n",
	"memory.current": "1000000\n", "memory.max": "2000000\n", "memory.min": "4096\n", "memory.peak": "1500000\n",
	"memory.stat":         "anon 300000\nfile 600000\nkernel 7000\nkernel_stack 7000\nfile_mapped 5000\ninactive_file 400000\npgfault 12\npgmajfault 3\n",
	"memory.swap.current": "77\n", "memory.swap.max": "0\n",
	"memory.events": "low 0\nhigh 0\nmax 9\noom 4\noom_kill 3\noom_group_kill 0\n",
	"pids.current":  "5\n", "pids.max": "max\n",
	"cgroup.procs": "11\n12\n4000000\n", "cgroup.stat": "nr_descendants 0\nnr_dying_descendants 4\n",
	"io.stat":         "8:0 rbytes=10 wbytes=20 rios=1 wios=2 dbytes=0 dios=0\n8:16 rbytes=5 wbytes=0 rios=1 wios=0\n",
	"cpu.pressure":    "some avg10=1.50 avg60=2.00 avg300=3.00 total=400\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=100\n",
	"memory.pressure": "some avg10=0.00 avg60=0.00 avg300=0.00 total=0\nfull avg10=0.25 avg60=0.00 avg300=0.00 total=9\n",
	"io.pressure":     "some avg10=0.00 avg60=0.00 avg300=0.00 total=1\n",
}

func TestStatsAgreeWithTheLibrary(t *testing.T) {
	root, g := fake(t, "", usedFiles)
	got, err := g.Stats(0)
	if err != nil {
		t.Fatal(err)
	}
	m, err := cgroup2.Load(fakeGroup, cgroup2.WithMountpoint(root.Path))
	if err != nil {
		t.Fatal(err)
	}
	lib, err := m.Stat()
	if err != nil {
		t.Fatal(err)
	}
	kernel, peak := lib.Memory.KernelStack, uint64(1500000) // the file says the same for both
	want := spec.Stats{
		At: got.At,
		CPU: spec.CPU{
			Nanos: lib.CPU.UsageUsec * 1000, UserNanos: lib.CPU.UserUsec * 1000, SystemNanos: lib.CPU.SystemUsec * 1000,
			Bandwidth: &spec.Bandwidth{Periods: lib.CPU.NrPeriods, Throttled: lib.CPU.NrThrottled, ThrottledNanos: lib.CPU.ThrottledUsec * 1000},
			Limits:    &spec.CPULimits{Shares: got.CPU.Limits.Shares, Quota: 20000, Period: 100000},
		},
		Memory: &spec.Memory{
			Usage: lib.Memory.Usage, WorkingSet: lib.Memory.Usage - lib.Memory.InactiveFile, RSS: lib.Memory.Anon,
			Cache: lib.Memory.File, MappedFile: lib.Memory.FileMapped, Kernel: &kernel, Peak: &peak,
			Limit: lib.Memory.UsageLimit, Reservation: 4096, PageFaults: lib.Memory.Pgfault, MajorPageFaults: lib.Memory.Pgmajfault,
			LimitHits: lib.MemoryEvents.Max, OOMKills: lib.MemoryEvents.OomKill,
		},
		Swap:      &spec.Swap{Usage: lib.Memory.SwapUsage, Limit: lib.Memory.SwapLimit, Limited: true},
		Pids:      &spec.Pids{Current: lib.Pids.Current}, // the library says 2^64-1 for max
		Processes: 3,
		IO: []spec.DeviceIO{
			{Major: 8, Minor: 0, ReadBytes: 10, WriteBytes: 20, Reads: 1, Writes: 2},
			{Major: 8, Minor: 16, ReadBytes: 5, Reads: 1},
		},
		CPUPressure:    &spec.Pressure{Some: spec.PressureTime{Avg10: 1.5, Avg60: 2, Avg300: 3, Nanos: 400000}, Full: spec.PressureTime{Nanos: 100000}},
		MemoryPressure: &spec.Pressure{Full: spec.PressureTime{Avg10: 0.25, Nanos: 9000}},
		IOPressure:     &spec.Pressure{Some: spec.PressureTime{Nanos: 1000}},
	}
	if want.Memory.WorkingSet != 600000 || want.CPU.Nanos != 5000000 {
		t.Fatalf("the library read other numbers than were written: %+v", want)
	}
	if !reflect.DeepEqual(got, want) {
		t.Fatalf("got %+v, want %+v", got, want)
	}
	if n, err := g.OOMKills(); n != 3 || err != nil {
		t.Fatalf("OOMKills: %d, %v; want 3", n, err)
	}
	if n, err := g.CPUTime(); n != 5000000 || err != nil {
		t.Fatalf("CPUTime: %d, %v; want 5 ms", n, err)
	}
}

func TestStatsWithoutControllersHaveNoParts(t *testing.T) {
	_, g := fake(t, "", map[string]string{"cpu.stat": "usage_usec 1\n"})
	got, err := g.Stats(0)
	want := spec.Stats{At: got.At, CPU: spec.CPU{Nanos: 1000}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Fatalf("got %+v, %v; want %+v", got, err, want)
	}
}

// An older kernel has the controller and not all of its files.
func TestMemoryOfAnOlderKernelHasNoPeak(t *testing.T) {
	_, g := fake(t, "", usedFiles)
	if err := os.Remove(g.file("memory.peak")); err != nil {
		t.Fatal(err)
	}
	if got, err := g.Stats(0); err != nil || got.Memory == nil || got.Memory.Peak != nil {
		t.Fatalf("memory %+v, %v; want all but the peak", got.Memory, err)
	}
}

func TestFilesLongerThanTheBufferAreReadToTheEnd(t *testing.T) {
	_, g := fake(t, "", usedFiles)
	text := strings.Repeat("some_counter_of_a_newer_kernel 12345678\n", 2000) + "anon 777\n"
	if err := os.WriteFile(g.file("memory.stat"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if got, err := g.Stats(0); err != nil || got.Memory.RSS != 777 {
		t.Fatalf("RSS %d, %v; want 777", got.Memory.RSS, err)
	}
}

func TestWorkingSetIsNeverBelowZero(t *testing.T) {
	_, g := fake(t, "", usedFiles)
	if err := os.WriteFile(filepath.Join(g.dir, "memory.current"), []byte("5"), 0o644); err != nil {
		t.Fatal(err)
	}
	if got, err := g.Stats(0); err != nil || got.Memory.WorkingSet != 0 {
		t.Fatalf("working set %d, %v; want 0", got.Memory.WorkingSet, err)
	}
}

func TestBrokenNumbersAreErrors(t *testing.T) {
	_, g := fake(t, "", usedFiles)
	if err := os.WriteFile(g.file("pids.current"), []byte("many"), 0o644); err != nil {
		t.Fatal(err)
	}
	if got, err := g.Stats(0); err == nil {
		t.Fatalf("stats %+v of a file without a number", got)
	}
}

func TestKernelCountsWhatAProgramUsed(t *testing.T) {
	g := create(t, ownPlace(t), open)
	defer remove(t, g)
	if err := start(t, g, "burn").Wait(); err != nil {
		t.Fatal(err)
	}
	s, err := g.Stats(0)
	if err != nil {
		t.Fatal(err)
	}
	if s.CPU.Nanos < 30e6 {
		t.Errorf("a program that computed for 50 ms used %d ns", s.CPU.Nanos)
	}
	for controller, measured := range map[string]bool{
		"memory": s.Memory != nil && s.Memory.PageFaults > 0, "pids": s.Pids != nil, "io": s.IO != nil,
		"cpu": s.CPU.Limits != nil,
	} {
		if has := slices.Contains(real.Controllers(), controller); has != measured {
			t.Errorf("the machine has %s: %v, but measured it: %v", controller, has, measured)
		}
	}
	if n, err := g.OOMKills(); n != 0 || err != nil {
		t.Errorf("OOMKills: %d, %v", n, err)
	}
}

func BenchmarkStats(b *testing.B) {
	g := create(b, ownPlace(b), open)
	defer remove(b, g)
	b.Run("own", func(b *testing.B) {
		for b.Loop() {
			if _, err := g.Stats(0); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("library", func(b *testing.B) {
		m, err := cgroup2.Load(g.Path, cgroup2.WithMountpoint(real.Path))
		if err != nil {
			b.Fatal(err)
		}
		for b.Loop() {
			if _, err := m.StatFiltered(cgroup2.StatCPU | cgroup2.StatMemory | cgroup2.StatPids | cgroup2.StatIO); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkStatsAllFiles(b *testing.B) {
	g, root := &Group{}, Root{Path: b.TempDir()}
	*g = *root.group("/x")
	if err := os.Mkdir(g.dir, 0o755); err != nil {
		b.Fatal(err)
	}
	for name, text := range usedFiles {
		if name == "memory.stat" {
			for i := range 60 {
				text += fmt.Sprintf("some_other_counter_%d %d\n", i, i*123456)
			}
		}
		if err := os.WriteFile(g.file(name), []byte(text), 0o644); err != nil {
			b.Fatal(err)
		}
	}
	b.Run("own", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := g.Stats(0); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("library", func(b *testing.B) {
		b.ReportAllocs()
		m, err := cgroup2.Load(g.Path, cgroup2.WithMountpoint(root.Path))
		if err != nil {
			b.Fatal(err)
		}
		for b.Loop() {
			if _, err := m.StatFiltered(cgroup2.StatCPU | cgroup2.StatMemory | cgroup2.StatPids | cgroup2.StatIO); err != nil {
				b.Fatal(err)
			}
		}
	})
}
