package cgroup

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"

	"github.com/containerd/cgroups/v3/cgroup2"
)

var usedFiles = map[string]string{
	"cpu.stat":       "usage_usec 5000\nuser_usec 3000\nsystem_usec 2000\nnr_periods 7\nnr_throttled 2\nthrottled_usec 900\n",
	"memory.current": "1000000\n", "memory.max": "2000000\n",
	"memory.stat":         "anon 300000\nfile 600000\ninactive_file 400000\npgfault 12\npgmajfault 3\n",
	"memory.swap.current": "77\n", "memory.swap.max": "0\n",
	"memory.events": "low 0\nhigh 0\nmax 9\noom 4\noom_kill 3\noom_group_kill 0\n",
	"pids.current":  "5\n", "pids.max": "max\n",
	"io.stat":         "8:0 rbytes=10 wbytes=20 rios=1 wios=2 dbytes=0 dios=0\n8:16 rbytes=5 wbytes=0 rios=1 wios=0\n",
	"cpu.pressure":    "some avg10=1.50 avg60=2.00 avg300=3.00 total=400\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=100\n",
	"memory.pressure": "some avg10=0.00 avg60=0.00 avg300=0.00 total=0\nfull avg10=0.25 avg60=0.00 avg300=0.00 total=9\n",
	"io.pressure":     "some avg10=0.00 avg60=0.00 avg300=0.00 total=1\n",
}

func TestStatsAgreeWithTheLibrary(t *testing.T) {
	root, g := fake(t, "", usedFiles)
	got, err := g.Stats()
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
	want := Stats{
		Time: got.Time,
		CPU: CPUStats{
			UsageNanos: lib.CPU.UsageUsec * 1000, UserNanos: lib.CPU.UserUsec * 1000, SystemNanos: lib.CPU.SystemUsec * 1000,
			Periods: lib.CPU.NrPeriods, Throttled: lib.CPU.NrThrottled, ThrottledNanos: lib.CPU.ThrottledUsec * 1000,
		},
		Memory: &MemoryStats{
			Usage: lib.Memory.Usage, WorkingSet: lib.Memory.Usage - lib.Memory.InactiveFile, RSS: lib.Memory.Anon,
			Limit: lib.Memory.UsageLimit, PageFaults: lib.Memory.Pgfault, MajorPageFaults: lib.Memory.Pgmajfault,
		},
		Swap:           &SwapStats{Usage: lib.Memory.SwapUsage, Limit: lib.Memory.SwapLimit, Limited: true},
		Pids:           &PidsStats{Current: lib.Pids.Current}, // the library says 2^64-1 for max
		IO:             &IOStats{ReadBytes: 15, WriteBytes: 20, Reads: 2, Writes: 2},
		CPUPressure:    &Pressure{Some: PressureTime{1.5, 2, 3, 400000}, Full: PressureTime{TotalNanos: 100000}},
		MemoryPressure: &Pressure{Full: PressureTime{Avg10: 0.25, TotalNanos: 9000}},
		IOPressure:     &Pressure{Some: PressureTime{TotalNanos: 1000}},
	}
	if want.Memory.WorkingSet != 600000 || want.CPU.UsageNanos != 5000000 {
		t.Fatalf("the library read other numbers than were written: %+v", want)
	}
	if !reflect.DeepEqual(got, want) {
		t.Fatalf("got %+v, want %+v", got, want)
	}
	if n, err := g.OOMKills(); n != 3 || err != nil {
		t.Fatalf("OOMKills: %d, %v; want 3", n, err)
	}
}

func TestStatsWithoutControllersHaveNoParts(t *testing.T) {
	_, g := fake(t, "", map[string]string{"cpu.stat": "usage_usec 1\n"})
	got, err := g.Stats()
	want := Stats{Time: got.Time, CPU: CPUStats{UsageNanos: 1000}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Fatalf("got %+v, %v; want %+v", got, err, want)
	}
}

func TestWorkingSetIsNeverBelowZero(t *testing.T) {
	_, g := fake(t, "", usedFiles)
	if err := os.WriteFile(filepath.Join(g.dir, "memory.current"), []byte("5"), 0o644); err != nil {
		t.Fatal(err)
	}
	if got, err := g.Stats(); err != nil || got.Memory.WorkingSet != 0 {
		t.Fatalf("working set %d, %v; want 0", got.Memory.WorkingSet, err)
	}
}

func TestBrokenNumbersAreErrors(t *testing.T) {
	_, g := fake(t, "", usedFiles)
	if err := os.WriteFile(g.file("pids.current"), []byte("many"), 0o644); err != nil {
		t.Fatal(err)
	}
	if got, err := g.Stats(); err == nil {
		t.Fatalf("stats %+v of a file without a number", got)
	}
}

func TestKernelCountsWhatAProgramUsed(t *testing.T) {
	g := create(t, ownPlace(t), open)
	defer remove(t, g)
	if err := start(t, g, "burn").Wait(); err != nil {
		t.Fatal(err)
	}
	s, err := g.Stats()
	if err != nil {
		t.Fatal(err)
	}
	if s.CPU.UsageNanos < 30e6 {
		t.Errorf("a program that computed for 50 ms used %d ns", s.CPU.UsageNanos)
	}
	for controller, measured := range map[string]bool{
		"memory": s.Memory != nil && s.Memory.PageFaults > 0, "pids": s.Pids != nil, "io": s.IO != nil,
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
			if _, err := g.Stats(); err != nil {
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
			if _, err := g.Stats(); err != nil {
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
