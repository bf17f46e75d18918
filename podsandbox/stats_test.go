package podsandbox

import (
	"errors"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"cri-mini/podsandbox/metrics"
	"cri-mini/runtime/spec"
)

func seconds(n uint64) uint64 { return n * uint64(time.Second) }

func everyPod(SandboxStatus) bool              { return true }
func everyContainer(ContainerStatus) bool      { return true }
func (l *life) use(group string, s spec.Stats) { l.world.change(func() { l.world.groups[group] = s }) }

// startIn runs a pod below a cgroup and starts containers in it.
func (l *life) startIn(parent, pod string, containers ...string) {
	l.t.Helper()
	config := podConfig(pod)
	config.Linux.CgroupParent = parent
	id, err := l.pods.Run(l.t.Context(), config, "")
	if err != nil {
		l.t.Fatal(err)
	}
	l.remember(pod, id)
	for _, name := range containers {
		l.create(l.t.Context(), pod+"/"+name, nil)
		l.use(l.group(pod+"/"+name), spec.Stats{})
		if got := l.do([]string{"start", pod + "/" + name}); !strings.HasSuffix(got, "started") {
			l.t.Fatalf("start %s/%s: %s", pod, name, got)
		}
	}
}

func (l *life) theContainer(name string) *Container {
	l.t.Helper()
	c, err := l.pods.Container(l.id(name))
	if err != nil {
		l.t.Fatal(err)
	}
	return c
}

func (l *life) group(name string) string { return l.theContainer(name).Status().Spec.Cgroup }

func (l *life) podStats(name string) SandboxStats {
	l.t.Helper()
	s, err := l.pods.Sandbox(l.id(name))
	if err != nil {
		l.t.Fatal(err)
	}
	stats, err := s.Stats(l.t.Context())
	if err != nil {
		l.t.Fatal(err)
	}
	return stats
}

func TestPodWithAGroupOfItsOwnIsMeasuredThere(t *testing.T) {
	inBubble(t, func(t *testing.T, l *life) {
		const parent = "/kubepods/pod-a"
		l.startIn(parent, "a", "web")
		l.use(l.group("a/web"), spec.Stats{CPU: spec.CPU{Nanos: 5}, Processes: 1})
		own := spec.Stats{CPU: spec.CPU{Nanos: 70}, Processes: 4, Memory: &spec.Memory{Usage: 9}, CPUPressure: &spec.Pressure{}}
		l.use(parent, own)
		l.world.interfaces[l.id("a")] = []spec.Interface{{Name: "net1", RxBytes: 1}, {Name: "eth0", RxBytes: 2}, {Name: "net2"}}
		got := l.podStats("a")
		own.At = got.Usage.At
		if !reflect.DeepEqual(got.Usage, own) {
			t.Errorf("the pod uses %+v, want %+v", got.Usage, own)
		}
		if got.Default == nil || got.Default.Name != "eth0" || len(got.Others) != 2 || got.Others[0].Name != "net1" || got.Others[1].Name != "net2" {
			t.Errorf("interfaces %+v and %+v", got.Default, got.Others)
		}
		if len(got.Containers) != 1 || got.Containers[0].Usage.CPU.Nanos != 5 {
			t.Errorf("containers %+v", got.Containers)
		}
		// The second attempt at the same pod is no other pod.
		config := podConfig("a")
		config.Metadata.Attempt, config.Linux.CgroupParent = 1, parent
		if _, err := l.pods.Run(t.Context(), config, ""); err != nil {
			t.Fatal(err)
		}
		if got := l.podStats("a"); got.Usage.CPU.Nanos != 70 {
			t.Errorf("beside a second attempt: %+v", got.Usage)
		}
		// Gone under our feet, as kubelets do with pods that end.
		l.world.change(func() { delete(l.world.groups, parent) })
		if got := l.podStats("a"); got.Usage.CPU.Nanos != 5 || got.Usage.Processes != 1 {
			t.Errorf("without the group: %+v, want the sum of the containers", got.Usage)
		}
	})
}

func TestPodsInACommonGroupAreSumsOfTheirContainers(t *testing.T) {
	for name, parents := range map[string][2]string{
		"one for all":         {"", ""},
		"the same":            {"/shared", "/shared"},
		"one below the other": {"/shared", "/shared/below"},
		"the root":            {"/", "/"},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, l *life) {
				l.startIn(parents[0], "a", "web", "log")
				l.startIn(parents[1], "b", "web")
				for _, group := range []string{"/cri-mini", "/shared", "/"} {
					l.use(group, spec.Stats{CPU: spec.CPU{Nanos: 1e6}})
				}
				l.use(l.group("a/web"), spec.Stats{CPU: spec.CPU{Nanos: 10, UserNanos: 6, SystemNanos: 4}, Processes: 2,
					Memory: &spec.Memory{Usage: 30, WorkingSet: 20, RSS: 10, Limit: 100, PageFaults: 3, MajorPageFaults: 1}})
				l.use(l.group("a/log"), spec.Stats{CPU: spec.CPU{Nanos: 5, UserNanos: 5}, Processes: 1,
					Memory: &spec.Memory{Usage: 3, WorkingSet: 2, RSS: 1, Limit: 50, PageFaults: 4}})
				l.use(l.group("b/web"), spec.Stats{CPU: spec.CPU{Nanos: 7}})
				got := l.podStats("a").Usage
				want := spec.Stats{At: got.At, CPU: spec.CPU{Nanos: 15, UserNanos: 11, SystemNanos: 4}, Processes: 3,
					Memory: &spec.Memory{Usage: 33, WorkingSet: 22, RSS: 11, Limit: 150, PageFaults: 7, MajorPageFaults: 1}}
				if !reflect.DeepEqual(got, want) {
					t.Errorf("pod a uses %+v, want %+v", got, want)
				}
			})
		})
	}
}

func TestUseOfAPodDoesNotShrinkWhenAContainerGoes(t *testing.T) {
	inBubble(t, func(t *testing.T, l *life) {
		l.startIn("", "a", "web", "log")
		l.use(l.group("a/web"), spec.Stats{CPU: spec.CPU{Nanos: seconds(9)}})
		l.use(l.group("a/log"), spec.Stats{CPU: spec.CPU{Nanos: seconds(1)}})
		check := func(when string) {
			t.Helper()
			if got := l.podStats("a").Usage.CPU.Nanos; got != seconds(10) {
				t.Errorf("%s the pod has used %d ns, want 10 s", when, got)
			}
		}
		check("at first")
		l.do([]string{"stop", "a/web", "1s"})
		check("after the end of a container")
		group := l.group("a/web")
		l.do([]string{"remove", "a/web"})
		l.world.change(func() { delete(l.world.groups, group) })
		check("after its removal")
	})
}

func TestUnlimitedContainerMakesAnUnlimitedPod(t *testing.T) {
	limited, unlimited := spec.Stats{Memory: &spec.Memory{Limit: 10}}, spec.Stats{Memory: &spec.Memory{}}
	if got := total([]spec.Stats{limited, unlimited}).Memory.Limit; got != 0 {
		t.Errorf("limit %d, want none", got)
	}
	if got := total([]spec.Stats{limited, limited}).Memory.Limit; got != 20 {
		t.Errorf("limit %d, want 20", got)
	}
	if got := total(nil); got.Memory != nil {
		t.Errorf("of nothing %+v", got)
	}
}

func TestStatsOfOneThatCannotBeMeasuredHideNoOther(t *testing.T) {
	inBubble(t, func(t *testing.T, l *life) {
		l.startIn("", "a", "web")
		l.startIn("", "b", "web")
		l.startIn("", "c")
		l.world.change(func() { delete(l.world.groups, l.group("a/web")) })
		list, err := l.pods.ContainerStats(t.Context(), everyContainer)
		if err != nil || len(list) != 1 || list[0].Status.Sandbox != l.id("b") {
			t.Errorf("containers %+v, %v; want that of b", list, err)
		}
		pods, err := l.pods.SandboxStats(t.Context(), everyPod)
		if err != nil || len(pods) != 3 {
			t.Errorf("%d pods, %v; want 3", len(pods), err)
		}
		l.do([]string{"stop", "b"})
		pods, err = l.pods.SandboxStats(t.Context(), everyPod)
		if err != nil || len(pods) != 2 {
			t.Errorf("%d pods, %v; want those that run", len(pods), err)
		}
		l.world.change(func() { l.world.fail["Interfaces"] = errors.New("no such namespace") })
		if pods, err = l.pods.SandboxStats(t.Context(), everyPod); err != nil || len(pods) != 0 {
			t.Errorf("%d pods, %v; want none of those whose network cannot be read", len(pods), err)
		}
	})
}

func TestRateIsThatOfTheLatestWindow(t *testing.T) {
	start := time.Unix(1000, 0)
	var r rate
	if got := r.observe(sample{start, seconds(100)}); got != nil {
		t.Errorf("from one sample: %d", *got)
	}
	for _, step := range []struct {
		at   time.Duration
		used uint64
		want uint64
	}{
		{500 * time.Millisecond, seconds(101), 2e9}, // too early for a window of its own
		{10 * time.Second, seconds(110), 1e9},
		{10*time.Second + 1, seconds(110), 999999999}, // still the same window
		{20 * time.Second, seconds(110), 0},
		{21 * time.Second, seconds(114), 4e9},
	} {
		got := r.observe(sample{start.Add(step.at), step.used})
		if got == nil || *got != step.want {
			t.Errorf("after %s: %v, want %d", step.at, got, step.want)
		}
	}
	if got := r.observe(sample{start.Add(30 * time.Second), 5}); got != nil {
		t.Errorf("after the count began anew: %d", *got)
	}
	if got := r.observe(sample{start.Add(31 * time.Second), 5 + seconds(2)}); got == nil || *got != 2e9 {
		t.Errorf("and then: %v", got)
	}
}

// Two look at the same time: who looked first may be second here.
func TestRateIsKnownToWhoWasOvertaken(t *testing.T) {
	start := time.Unix(1000, 0)
	r := rate{base: sample{at: start}, last: sample{at: start}}
	for _, step := range []struct {
		at   time.Duration
		used uint64
	}{{10 * time.Second, seconds(10)}, {9 * time.Second, seconds(9)}, {20 * time.Second, seconds(20)}} {
		if got := r.observe(sample{start.Add(step.at), step.used}); got == nil || *got != 1e9 {
			t.Errorf("after %s: %v, want a processor", step.at, got)
		}
	}
}

func TestStartedContainerHasARateAtOnce(t *testing.T) {
	inBubble(t, func(t *testing.T, l *life) {
		l.startIn("", "a", "web")
		time.Sleep(2 * time.Second)
		l.use(l.group("a/web"), spec.Stats{CPU: spec.CPU{Nanos: seconds(1)}})
		for name, got := range map[string]*uint64{"container": l.podStats("a").Containers[0].NanoCores, "pod": l.podStats("a").NanoCores} {
			if got == nil || *got < 49e7 || *got > 51e7 {
				t.Errorf("half a processor is shown for the %s as %v", name, got)
			}
		}
	})
}

func TestWritableLayersAreCountedInTheBackground(t *testing.T) {
	inBubble(t, func(t *testing.T, l *life) {
		figure := func() *spec.DiskUsage {
			t.Helper()
			synctest.Wait()
			stats, err := l.theContainer("a/web").Stats()
			if err != nil {
				t.Fatal(err)
			}
			return stats.Writable
		}
		counts := func(when string, want int) {
			t.Helper()
			synctest.Wait()
			if got := l.world.counts(); got != want {
				t.Errorf("%s %d counts, want %d", when, got, want)
			}
		}
		hold := make(chan struct{})
		l.world.change(func() { l.world.block["Writable"] = hold })
		l.startIn("", "a", "web")
		counts("after the start", 1)
		if u := figure(); u != nil { // asking does not count, and does not wait
			t.Errorf("before it was counted: %+v", *u)
		}
		l.world.change(func() { l.world.layers[l.id("a/web")] = spec.DiskUsage{Bytes: 4096, Inodes: 1} })
		l.world.change(func() { delete(l.world.block, "Writable") })
		close(hold)
		synctest.Wait()
		first := figure()
		if first == nil || first.Bytes != 4096 || first.Inodes != 1 {
			t.Fatalf("after the count: %+v", first)
		}

		time.Sleep(settle / 2)
		counts("of an idle container after a moment", 1)
		time.Sleep(2 * time.Minute)
		counts("of an idle container, when all is on the disk,", 2)
		if u := figure(); u.Bytes != 4096 || !u.At.After(first.At) {
			t.Errorf("an unchanged layer is shown as %+v, before %+v", u, first)
		}
		l.use(l.group("a/web"), spec.Stats{CPU: spec.CPU{Nanos: 1}})
		time.Sleep(usagePace)
		counts("after it did something", 3)
		time.Sleep(2 * settle)
		counts("and when that is on the disk", 4)
		time.Sleep(recount)
		counts("after a long time", 5)

		// What cannot be counted to its end is at least so much.
		l.world.change(func() { l.world.fail["Writable"] = errors.New("a folder was moved") })
		l.world.change(func() { l.world.layers[l.id("a/web")] = spec.DiskUsage{Bytes: 5000} })
		l.use(l.group("a/web"), spec.Stats{CPU: spec.CPU{Nanos: 2}})
		time.Sleep(usagePace)
		if u := figure(); u.Bytes != 5000 {
			t.Errorf("a lower bound above the old figure is shown as %+v", u)
		}
		l.world.change(func() { l.world.layers[l.id("a/web")] = spec.DiskUsage{Bytes: 10} })
		time.Sleep(usagePace)
		if u := figure(); u.Bytes != 5000 {
			t.Errorf("a lower bound below the old figure is shown as %+v", u)
		}
		l.world.change(func() { delete(l.world.fail, "Writable") })

		if got := l.pods.WritableUsage(); got.Bytes != 5000 {
			t.Errorf("all layers together: %+v", got)
		}
		l.world.change(func() { l.world.block["Writable"] = make(chan struct{}) })
		time.Sleep(usagePace)
		synctest.Wait()
		before := l.world.counts()
		l.do([]string{"stop", "a/web", "1s"}) // ends the count that is at work
		l.use(l.group("a/web"), spec.Stats{CPU: spec.CPU{Nanos: 3}})
		time.Sleep(2 * recount)
		counts("after the end of the container", before)
	})
}

// counts is how often a writable layer was counted.
func (w *world) counts() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.counted
}

func TestMetricsAreThoseOfRunningContainers(t *testing.T) {
	inBubble(t, func(t *testing.T, l *life) {
		l.startIn("", "a", "web", "log")
		l.startIn("", "b")
		l.do([]string{"stop", "b"})
		l.do([]string{"stop", "a/log", "1s"})
		l.use(l.group("a/web"), spec.Stats{CPU: spec.CPU{Nanos: seconds(3)}, Hugetlb: []spec.Hugetlb{{PageSize: "2MB", Usage: 8}}})
		l.world.interfaces[l.id("a")] = []spec.Interface{{Name: "eth0", TxBytes: 12}}
		if _, err := l.pods.Metrics(t.Context()); err != nil {
			t.Fatal(err)
		}
		l.use(l.group("a/web"), spec.Stats{CPU: spec.CPU{Nanos: seconds(3)}, Hugetlb: []spec.Hugetlb{{PageSize: "2MB", Usage: 2}}})
		list, err := l.pods.Metrics(t.Context())
		if err != nil || len(list) != 1 || list[0].ID != l.id("a") || len(list[0].Containers) != 1 {
			t.Fatalf("%+v, %v; want pod a with one container", list, err)
		}
		find := func(all []metrics.Metric, name string) metrics.Metric {
			t.Helper()
			for _, m := range all {
				if m.Name == name {
					return m
				}
			}
			t.Errorf("no %s", name)
			return metrics.Metric{}
		}
		web := list[0].Containers[0].Metrics
		if m := find(web, "container_cpu_usage_seconds_total"); m.Value != 3 ||
			!reflect.DeepEqual(m.Labels, []string{"web", l.id("a/web"), "app", "test", "a", "total"}) {
			t.Errorf("processor time %+v", m)
		}
		if m := find(web, "container_hugetlb_max_usage_bytes"); m.Value != 8 {
			t.Errorf("peak of huge pages %+v", m)
		}
		if m := find(web, "container_threads"); m.Value != 2 {
			t.Errorf("threads %+v", m)
		}
		if m := find(web, "container_fs_limit_bytes"); m.Value != 1<<30 {
			t.Errorf("size of the disk %+v", m)
		}
		if m := find(list[0].Pod, "container_network_transmit_bytes_total"); m.Value != 12 ||
			!reflect.DeepEqual(m.Labels, []string{"", l.id("a"), "", "test", "a", "eth0"}) {
			t.Errorf("network %+v", m)
		}
	})
}

func TestPodInTheNetworkOfTheNodeHasNoInterfaces(t *testing.T) {
	inBubble(t, func(t *testing.T, l *life) {
		config := podConfig("a")
		config.Hostname = ""
		config.Linux.SecurityContext.NamespaceOptions.Network = criapi.NamespaceMode_NODE
		id, err := l.pods.Run(t.Context(), config, "")
		if err != nil {
			t.Fatal(err)
		}
		l.remember("a", id)
		l.world.interfaces[id] = []spec.Interface{{Name: "eth0"}}
		if got := l.podStats("a"); got.Default != nil || got.Others != nil {
			t.Errorf("%+v, %+v", got.Default, got.Others)
		}
		if list, err := l.pods.Metrics(t.Context()); err != nil || len(list) != 1 || len(list[0].Pod) != 0 {
			t.Errorf("%+v, %v; want no metric of the node's network", list, err)
		}
	})
}
