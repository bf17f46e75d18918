package metrics

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"cri-mini/runtime/spec"
)

var update = flag.Bool("update", false, "write the golden files anew")

func number(n uint64) *uint64 { return &n }

var who = Identity{Container: "web", ID: "c0ffee", Image: "registry.test/web:1", Namespace: "default", Pod: "shop"}

func fullContainer() Container {
	return Container{
		Identity: who,
		Started:  time.Unix(1700000000, 900), Seen: time.Unix(1700000100, 900),
		Usage: spec.Stats{
			CPU: spec.CPU{
				Nanos: 12_900_000_000, UserNanos: 8_100_000_000, SystemNanos: 4_800_000_000,
				Bandwidth: &spec.Bandwidth{Periods: 70, Throttled: 20, ThrottledNanos: 3_999_999_999},
				Limits:    &spec.CPULimits{Shares: 1024, Quota: 20000, Period: 100000},
			},
			Memory: &spec.Memory{
				Usage: 1000, WorkingSet: 900, RSS: 300, Cache: 600, MappedFile: 50, Kernel: number(70), Peak: number(1500),
				Limit: 2000, Reservation: 100, PageFaults: 12, MajorPageFaults: 3, LimitHits: 9, OOMKills: 1,
			},
			Swap:      &spec.Swap{Usage: 77, Limit: 4096, Limited: true},
			Pids:      &spec.Pids{Current: 5, Limit: 100},
			Processes: 3,
			Hugetlb:   []spec.Hugetlb{{PageSize: "1GB"}, {PageSize: "2MB", Usage: 2 << 20}},
			IO: []spec.DeviceIO{
				{Major: 8, Minor: 16, Name: "sdb", ReadBytes: 10, WriteBytes: 20, Reads: 1, Writes: 2},
				{Major: 254, Minor: 3, WriteBytes: 5, Writes: 1},
			},
			CPUPressure:    &spec.Pressure{Some: spec.PressureTime{Nanos: 5_500_000_000}, Full: spec.PressureTime{Nanos: 1_500_000_000}},
			MemoryPressure: &spec.Pressure{Some: spec.PressureTime{Nanos: 6_500_000_000}, Full: spec.PressureTime{Nanos: 2_500_000_000}},
			IOPressure:     &spec.Pressure{Some: spec.PressureTime{Nanos: 7_500_000_000}, Full: spec.PressureTime{Nanos: 3_500_000_000}},
		},
		Inside:       &spec.Inside{Threads: 6, OpenFiles: 30, Sockets: number(4), OpenFilesLimit: 1024},
		Writable:     &spec.DiskUsage{At: time.Unix(1700000090, 5), Bytes: 8192, Inodes: 2},
		Disk:         &spec.FileSystem{Device: "/dev/vda1", Bytes: 1 << 30, FreeBytes: 1 << 29, Inodes: 65536, FreeInodes: 60000},
		HugetlbPeaks: map[string]uint64{"2MB": 6 << 20},
	}
}

func fullPod() Pod {
	p := Pod{Identity: who, Interfaces: []spec.Interface{
		{Name: "eth0", RxBytes: 1, RxPackets: 2, RxErrors: 3, RxDropped: 4, TxBytes: 5, TxPackets: 6, TxErrors: 7, TxDropped: 8},
		{Name: "net1", RxBytes: 11},
	}}
	p.Container, p.ID, p.Image = "", "decaf", ""
	return p
}

// show writes metrics as they will be published.
func show(list []Metric) string {
	labels := map[string][]string{}
	for _, d := range Descriptors() {
		labels[d.Name] = d.Labels
	}
	var b strings.Builder
	for _, m := range list {
		fmt.Fprintf(&b, "%s{", m.Name)
		for i, v := range m.Labels {
			if !slices.Contains([]string{"id", "image", "namespace", "pod"}, labels[m.Name][i]) || i >= len(keys) {
				fmt.Fprintf(&b, " %s=%q", labels[m.Name][i], v)
			}
		}
		fmt.Fprintf(&b, " } %d", m.Value)
		if m.Kind == Gauge {
			b.WriteString(" gauge")
		}
		if !m.At.IsZero() {
			fmt.Fprintf(&b, " at %d", m.At.UnixNano())
		}
		b.WriteString("\n")
	}
	return b.String()
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs; got:\n%s", name, got)
	}
}

func TestMetricsAreWhatTheyWere(t *testing.T) {
	golden(t, "container.golden", show(OfContainer(fullContainer())))
	golden(t, "pod.golden", show(OfPod(fullPod())))
	bare := Container{Identity: who, Started: time.Unix(1700000000, 0), Seen: time.Unix(1700000100, 0),
		Usage: spec.Stats{CPU: spec.CPU{Nanos: 12_900_000_000}, Processes: 1}}
	golden(t, "bare.golden", show(OfContainer(bare)))
}

func TestDescriptorsAreWhatTheyWere(t *testing.T) {
	var b strings.Builder
	for _, d := range Descriptors() {
		fmt.Fprintf(&b, "%s %s\n\t%s\n", d.Name, d.Labels, d.Help)
	}
	golden(t, "descriptors.golden", b.String())
}

// The kubelet drops what has no descriptor, and what has other labels.
func TestEveryMetricHasItsDescriptorAndEveryDescriptorItsMetric(t *testing.T) {
	labels := map[string]int{}
	for _, d := range Descriptors() {
		if _, twice := labels[d.Name]; twice {
			t.Errorf("%s has two descriptors", d.Name)
		}
		if d.Help == "" || !slices.Equal(d.Labels[:len(keys)], keys) {
			t.Errorf("descriptor %+v", d)
		}
		labels[d.Name] = len(d.Labels)
	}
	seen := map[string]bool{}
	for _, m := range slices.Concat(OfContainer(fullContainer()), OfPod(fullPod())) {
		if n, known := labels[m.Name]; !known || n != len(m.Labels) {
			t.Errorf("%s has labels %q, its descriptor %d", m.Name, m.Labels, n)
		}
		series := m.Name + strings.Join(m.Labels, "\x00")
		if seen[series] {
			t.Errorf("%s %q is there twice", m.Name, m.Labels)
		}
		seen[m.Name], seen[series] = true, true
	}
	for name := range labels {
		if !seen[name] {
			t.Errorf("a container that has everything has no %s", name)
		}
	}
}

// Each part of a measurement, left out, takes away its metrics and makes no
// zeros of them.
func TestWhatIsNotMeasuredIsNoMetric(t *testing.T) {
	names := func(c Container) map[string]int {
		n := map[string]int{}
		for _, m := range OfContainer(c) {
			n[m.Name]++
		}
		return n
	}
	all := names(fullContainer())
	for part, gone := range map[string]string{
		"Memory": "container_memory_usage_bytes", "Swap": "container_memory_swap", "Pids": "container_threads_max",
		"Hugetlb": "container_hugetlb_usage_bytes", "IO": "container_fs_reads_total", "CPUPressure": "container_pressure_cpu_waiting_seconds_total",
		"MemoryPressure": "container_pressure_memory_stalled_seconds_total", "IOPressure": "container_pressure_io_waiting_seconds_total",
	} {
		c := fullContainer()
		reflect.ValueOf(&c.Usage).Elem().FieldByName(part).SetZero()
		left := names(c)
		if left[gone] != 0 {
			t.Errorf("%s without %s", gone, part)
		}
		maps.DeleteFunc(left, func(name string, n int) bool { return all[name] == n })
		if len(left) != 0 {
			t.Errorf("without %s others changed: %v", part, left)
		}
	}
	for part, gone := range map[string]string{"Inside": "container_sockets", "Writable": "container_fs_usage_bytes", "Disk": "container_fs_limit_bytes"} {
		c := fullContainer()
		reflect.ValueOf(&c).Elem().FieldByName(part).SetZero()
		if names(c)[gone] != 0 {
			t.Errorf("%s without %s", gone, part)
		}
	}
	c := fullContainer()
	c.Usage.CPU.Limits = nil
	for name := range names(c) {
		if strings.Contains(name, "cfs") || strings.Contains(name, "spec_cpu") {
			t.Errorf("%s without the cpu controller", name)
		}
	}
	c.Usage.Pids = nil
	if names(c)["container_threads"] != 1 {
		t.Error("threads are not counted without the pids controller")
	}
}
