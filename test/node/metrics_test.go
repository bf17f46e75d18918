package node

import (
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"cri-mini/internal/enclosure"
)

// cadvisors are the metrics that suites and dashboards ask for, with what they
// need to be measured. Newer ones of the upstream suite want all 56.
var cadvisors = map[string]string{
	"container_blkio_device_usage_total":               "io traffic",
	"container_cpu_cfs_periods_total":                  "cpu",
	"container_cpu_cfs_throttled_periods_total":        "cpu",
	"container_cpu_cfs_throttled_seconds_total":        "cpu",
	"container_cpu_system_seconds_total":               "",
	"container_cpu_usage_seconds_total":                "",
	"container_cpu_user_seconds_total":                 "",
	"container_file_descriptors":                       "",
	"container_fs_inodes_free":                         "",
	"container_fs_inodes_total":                        "",
	"container_fs_limit_bytes":                         "",
	"container_fs_reads_bytes_total":                   "io traffic",
	"container_fs_reads_total":                         "io traffic",
	"container_fs_usage_bytes":                         "",
	"container_fs_writes_bytes_total":                  "io traffic",
	"container_fs_writes_total":                        "io traffic",
	"container_hugetlb_max_usage_bytes":                "hugetlb",
	"container_hugetlb_usage_bytes":                    "hugetlb",
	"container_last_seen":                              "",
	"container_memory_cache":                           "memory",
	"container_memory_failcnt":                         "memory",
	"container_memory_failures_total":                  "memory",
	"container_memory_kernel_usage":                    "memory",
	"container_memory_mapped_file":                     "memory",
	"container_memory_max_usage_bytes":                 "memory",
	"container_memory_rss":                             "memory",
	"container_memory_swap":                            "memory swap",
	"container_memory_usage_bytes":                     "memory",
	"container_memory_working_set_bytes":               "memory",
	"container_network_receive_bytes_total":            "",
	"container_network_receive_errors_total":           "",
	"container_network_receive_packets_dropped_total":  "",
	"container_network_receive_packets_total":          "",
	"container_network_transmit_bytes_total":           "",
	"container_network_transmit_errors_total":          "",
	"container_network_transmit_packets_dropped_total": "",
	"container_network_transmit_packets_total":         "",
	"container_oom_events_total":                       "memory",
	"container_pressure_cpu_stalled_seconds_total":     "pressure",
	"container_pressure_cpu_waiting_seconds_total":     "pressure",
	"container_pressure_io_stalled_seconds_total":      "pressure",
	"container_pressure_io_waiting_seconds_total":      "pressure",
	"container_pressure_memory_stalled_seconds_total":  "pressure",
	"container_pressure_memory_waiting_seconds_total":  "pressure",
	"container_processes":                              "",
	"container_sockets":                                "",
	"container_spec_cpu_period":                        "cpu",
	"container_spec_cpu_quota":                         "cpu",
	"container_spec_cpu_shares":                        "cpu",
	"container_spec_memory_limit_bytes":                "memory",
	"container_spec_memory_reservation_limit_bytes":    "memory",
	"container_spec_memory_swap_limit_bytes":           "memory swap",
	"container_start_time_seconds":                     "",
	"container_threads":                                "",
	"container_threads_max":                            "pids",
	"container_ulimits_soft":                           "",
}

// measured tells what the machine measures of a container. Traffic shows only
// when there was some, and swap only where the kernel has it.
func measured(t *testing.T) map[string]bool {
	m := map[string]bool{"": true}
	for _, c := range strings.Fields(readFile(t, enclosure.CgroupRoot+"/cgroup.controllers")) {
		m[c] = true
	}
	_, err := os.Stat("/proc/pressure/cpu")
	m["pressure"] = err == nil
	return m
}

func (d *daemon) descriptors() map[string][]string {
	d.t.Helper()
	answer, err := d.ListMetricDescriptors(d.context(), &criapi.ListMetricDescriptorsRequest{})
	if err != nil {
		d.t.Fatal(err)
	}
	keys := map[string][]string{}
	for _, m := range answer.Descriptors {
		if m.Help == "" || len(m.LabelKeys) == 0 {
			d.t.Errorf("descriptor %v", m)
		}
		keys[m.Name] = m.LabelKeys
	}
	return keys
}

// metrics are those of a pod and its containers.
func (p *pod) metrics() *criapi.PodSandboxMetrics {
	p.d.t.Helper()
	answer, err := p.d.ListPodSandboxMetrics(p.d.context(), &criapi.ListPodSandboxMetricsRequest{})
	if err != nil {
		p.d.t.Fatal(err)
	}
	for _, m := range answer.PodMetrics {
		if m.PodSandboxId == p.id {
			return m
		}
	}
	p.d.t.Fatalf("no metrics of pod %s", p.id)
	return nil
}

// metric is the value of one of a container's.
func (c *container) metric(name string) uint64 {
	c.d.t.Helper()
	answer, err := c.d.ListPodSandboxMetrics(c.d.context(), &criapi.ListPodSandboxMetricsRequest{})
	if err != nil {
		c.d.t.Fatal(err)
	}
	for _, p := range answer.PodMetrics {
		for _, one := range p.ContainerMetrics {
			for _, m := range one.Metrics {
				if one.ContainerId == c.id && m.Name == name {
					return m.Value.Value
				}
			}
		}
	}
	c.d.t.Fatalf("container %s has no %s", c.id, name)
	return 0
}

func TestMetricDescriptorsAreThoseThatSuitesKnow(t *testing.T) {
	d := start(t)
	got := d.descriptors()
	for name := range cadvisors {
		if got[name] == nil {
			t.Errorf("no descriptor of %s", name)
		}
	}
	if len(got) != len(cadvisors) || len(cadvisors) != 56 {
		t.Errorf("%d descriptors, want 56: %v", len(got), slices.Sorted(maps.Keys(got)))
	}
}

func TestMetricsOfAContainerAreThereWithTheLabelsOfTheirDescriptors(t *testing.T) {
	d := ready(t)
	have := measured(t)
	p := d.runPod("shop")
	defer p.remove()
	config := containerConfig("web", "sh", "-c", "nc -l -p 80 & exec sleep 1000")
	resources := &criapi.LinuxContainerResources{CpuPeriod: 100000, HugepageLimits: []*criapi.HugepageLimit{{PageSize: "2MB"}}}
	if have["cpu"] {
		resources.CpuQuota, resources.CpuShares = 20000, 1024
	}
	if have["memory"] {
		resources.MemoryLimitInBytes, resources.MemorySwapLimitInBytes = 64<<20, 64<<20
	}
	config.Linux.Resources = resources
	began := time.Now()
	c := p.run(config)
	c.exec("sh", "-c", "for i in 1 2 3 4 5 6 7 8 9 10; do echo hi >> /inode_test_file_$i; done")

	keys := d.descriptors()
	m := p.metrics()
	if len(m.ContainerMetrics) != 1 || m.ContainerMetrics[0].ContainerId != c.id {
		t.Fatalf("metrics of containers %v", m.ContainerMetrics)
	}
	found := map[string]*criapi.Metric{}
	series := map[string]bool{}
	for _, m := range slices.Concat(m.Metrics, m.ContainerMetrics[0].Metrics) {
		found[m.Name] = m
		if len(m.LabelValues) != len(keys[m.Name]) || m.Value == nil {
			t.Errorf("%v has other labels than %q", m, keys[m.Name])
		}
		one := m.Name + strings.Join(m.LabelValues, "\x00")
		if series[one] {
			t.Errorf("%s %q is there twice", m.Name, m.LabelValues)
		}
		series[one] = true
	}
	for name, need := range cadvisors {
		controller, more, _ := strings.Cut(need, " ")
		switch _, there := found[name]; {
		case !have[controller] && there:
			t.Errorf("%s without the controller %s", name, controller)
		case have[controller] && !there && more == "":
			t.Errorf("no %s", name)
		}
	}
	label := func(name, key string) string {
		return found[name].LabelValues[slices.Index(keys[name], key)]
	}
	for key, want := range map[string]string{"container": "web", "id": c.id, "image": shell, "namespace": "default", "pod": "shop"} {
		if got := label("container_last_seen", key); got != want {
			t.Errorf("label %s is %q, want %q", key, got, want)
		}
	}
	if got := label("container_network_receive_bytes_total", "interface"); got != "eth0" {
		t.Errorf("interface %q", got)
	}
	if got := label("container_ulimits_soft", "ulimit"); got != "max_open_files" {
		t.Errorf("ulimit %q", got)
	}
	if at := found["container_start_time_seconds"].Value.Value; at < uint64(began.Unix())-1 || at > uint64(time.Now().Unix()) {
		t.Errorf("started at %d, now it is %d", at, time.Now().Unix())
	}
	for name, want := range map[string]uint64{
		"container_spec_cpu_quota": 20000, "container_spec_cpu_period": 100000, "container_spec_cpu_shares": 1024,
		"container_spec_memory_limit_bytes": 64 << 20,
	} {
		if one, there := found[name]; there && one.Value.Value != want {
			t.Errorf("%s is %d, want %d", name, one.Value.Value, want)
		}
	}
	eventually(t, "its socket", func() bool { return c.metric("container_sockets") == 1 })
	if n := c.metric("container_processes"); n != 2 {
		t.Errorf("%d processes, want 2", n)
	}
}
