package cri

import (
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protopath"
	"google.golang.org/protobuf/reflect/protorange"
	"google.golang.org/protobuf/reflect/protoreflect"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// wide is a pod with all that can be measured, and its container that runs.
func (w *world) wide(t *testing.T) (pod, container string) {
	t.Helper()
	pod = w.pod(t, "a", func(c *criapi.PodSandboxConfig) {
		c.Linux = &criapi.LinuxPodSandboxConfig{CgroupParent: "/kubepods/pod-a"}
	})
	w.container(t, pod, "made", false)
	container = w.container(t, pod, "runs", true)
	w.pod(t, "b", nil)
	return pod, container
}

func TestStatsOfAContainerHaveEveryField(t *testing.T) {
	w := newWorld(t)
	_, id := w.wide(t)
	var s *criapi.ContainerStats
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		answer, err := w.ContainerStats(t.Context(), &criapi.ContainerStatsRequest{ContainerId: id})
		if err != nil {
			t.Fatal(err)
		}
		if s = answer.Stats; s.WritableLayer != nil || time.Now().After(end) {
			break // it is counted behind the scenes
		}
	}
	at := s.Cpu.GetTimestamp()
	if at == 0 || s.Cpu.UsageNanoCores == nil || s.WritableLayer.GetTimestamp() == 0 {
		t.Fatalf("stats %v", s)
	}
	want := &criapi.ContainerStats{
		Attributes: &criapi.ContainerAttributes{Id: id, Metadata: &criapi.ContainerMetadata{Name: "runs"}, Labels: map[string]string{"part": "runs"}},
		Cpu: &criapi.CpuUsage{Timestamp: at, UsageCoreNanoSeconds: number(5e9), UsageNanoCores: s.Cpu.UsageNanoCores,
			Psi: &criapi.PsiStats{Some: &criapi.PsiData{Avg10: 1.5, Avg60: 2.5, Avg300: 3.5, Total: 4000}, Full: &criapi.PsiData{Total: 1000}}},
		Memory: &criapi.MemoryUsage{Timestamp: at, WorkingSetBytes: number(90), AvailableBytes: number(910), UsageBytes: number(100),
			RssBytes: number(70), PageFaults: number(6), MajorPageFaults: number(2)},
		Swap: &criapi.SwapUsage{Timestamp: at, SwapUsageBytes: number(30), SwapAvailableBytes: number(20)},
		Io:   &criapi.IoUsage{Timestamp: at, Psi: &criapi.PsiStats{Some: &criapi.PsiData{}, Full: &criapi.PsiData{Avg60: 7}}},
		WritableLayer: &criapi.FilesystemUsage{Timestamp: s.WritableLayer.Timestamp, FsId: &criapi.FilesystemIdentifier{Mountpoint: w.server.Node.Root},
			UsedBytes: number(4096), InodesUsed: number(2)},
	}
	if !proto.Equal(s, want) {
		t.Errorf("got %v, want %v", s, want)
	}
	fs, err := w.ImageFsInfo(t.Context(), &criapi.ImageFsInfoRequest{})
	if err != nil || len(fs.ContainerFilesystems) != 1 || len(fs.ImageFilesystems) != 1 {
		t.Fatalf("file systems %v, %v", fs, err)
	}
	if f := fs.ContainerFilesystems[0]; f.Timestamp == 0 || f.FsId.Mountpoint != w.server.Node.Root || f.UsedBytes.Value != 4096 || f.InodesUsed.Value != 2 {
		t.Errorf("file system of containers %v", f)
	}
	bytes, inodes := w.server.Images.Usage()
	if f := fs.ImageFilesystems[0]; f.Timestamp == 0 || f.FsId.Mountpoint != w.server.Node.Root || bytes == 0 || f.UsedBytes.Value != bytes || f.InodesUsed.Value != inodes {
		t.Errorf("file system of images %v", f)
	}
}

func TestStatsOfAPodHaveEveryField(t *testing.T) {
	w := newWorld(t)
	pod, container := w.wide(t)
	answer, err := w.PodSandboxStats(t.Context(), &criapi.PodSandboxStatsRequest{PodSandboxId: pod})
	if err != nil {
		t.Fatal(err)
	}
	s := answer.Stats
	if a := s.Attributes; a.Id != pod || a.Metadata.Name != "a" || a.Labels["app"] != "a" || s.Windows != nil {
		t.Errorf("attributes %v", a)
	}
	l := s.Linux
	if l.Cpu.Timestamp == 0 || l.Cpu.UsageCoreNanoSeconds.Value != 5e9 || l.Cpu.UsageNanoCores == nil || l.Cpu.Psi.Some.Total != 4000 ||
		l.Memory.Timestamp == 0 || l.Memory.AvailableBytes.Value != 910 || l.Io.Timestamp == 0 || l.Io.Psi.Full.Avg60 != 7 ||
		l.Process.Timestamp == 0 || l.Process.ProcessCount.Value != 3 {
		t.Errorf("stats %v", l)
	}
	want := &criapi.NetworkUsage{
		Timestamp:        l.Network.GetTimestamp(),
		DefaultInterface: &criapi.NetworkInterfaceUsage{Name: "eth0", RxBytes: number(1), RxErrors: number(2), TxBytes: number(3), TxErrors: number(4)},
		Interfaces:       []*criapi.NetworkInterfaceUsage{{Name: "net1", RxBytes: number(11), RxErrors: number(0), TxBytes: number(0), TxErrors: number(0)}},
	}
	if want.Timestamp == 0 || !proto.Equal(l.Network, want) {
		t.Errorf("network %v, want %v", l.Network, want)
	}
	if len(l.Containers) != 1 || l.Containers[0].Attributes.Id != container || l.Containers[0].Io == nil {
		t.Errorf("containers %v, want the one that runs", l.Containers)
	}
}

// The kubelet asks for the stats of no pod at all to learn whether we have
// the call.
func TestStatsOfUnknownPodsAreNotFound(t *testing.T) {
	w := newWorld(t)
	w.wide(t)
	for _, id := range []string{"", "none"} {
		if _, err := w.PodSandboxStats(t.Context(), &criapi.PodSandboxStatsRequest{PodSandboxId: id}); status.Code(err) != codes.NotFound {
			t.Errorf("pod %q: %v, want NotFound", id, err)
		}
	}
}

func TestStatsOfPodsAreFilteredAndStreamed(t *testing.T) {
	w, ctx := newWorld(t), t.Context()
	pod, _ := w.wide(t)
	ids := func(list []*criapi.PodSandboxStats) (ids []string) {
		for _, s := range list {
			ids = append(ids, s.Attributes.Id)
		}
		return ids
	}
	for _, c := range []struct {
		filter *criapi.PodSandboxStatsFilter
		want   int
	}{
		{nil, 2},
		{&criapi.PodSandboxStatsFilter{}, 2},
		{&criapi.PodSandboxStatsFilter{Id: pod[:12]}, 1},
		{&criapi.PodSandboxStatsFilter{LabelSelector: map[string]string{"app": "a"}}, 1},
		{&criapi.PodSandboxStatsFilter{Id: pod, LabelSelector: map[string]string{"app": "b"}}, 0},
		{&criapi.PodSandboxStatsFilter{Id: "none"}, 0},
	} {
		list, err := w.ListPodSandboxStats(ctx, &criapi.ListPodSandboxStatsRequest{Filter: c.filter})
		if err != nil || len(list.Stats) != c.want {
			t.Errorf("%v: %v, %v; want %d", c.filter, ids(list.GetStats()), err, c.want)
		}
		stream, err := w.StreamPodSandboxStats(ctx, &criapi.StreamPodSandboxStatsRequest{Filter: c.filter})
		if got := received(t, stream, err, (*criapi.StreamPodSandboxStatsResponse).GetPodSandboxStats); !slices.Equal(ids(got), ids(list.GetStats())) {
			t.Errorf("%v: streamed %v", c.filter, ids(got))
		}
	}
}

func TestStatsOfContainersAreFilteredAndStreamed(t *testing.T) {
	w, ctx := newWorld(t), t.Context()
	a, one := w.wide(t)
	b := w.pod(t, "c", nil)
	two := w.container(t, b, "second", true)
	names := func(list []*criapi.ContainerStats) (ids []string) {
		for _, s := range list {
			ids = append(ids, s.Attributes.Id)
		}
		return ids
	}
	labels := func(part string) map[string]string { return map[string]string{"part": part} }
	for _, c := range []struct {
		filter *criapi.ContainerStatsFilter
		want   []string
	}{
		{nil, []string{one, two}},
		{&criapi.ContainerStatsFilter{}, []string{one, two}},
		{&criapi.ContainerStatsFilter{Id: one}, []string{one}},
		{&criapi.ContainerStatsFilter{Id: two[:12]}, []string{two}},
		{&criapi.ContainerStatsFilter{PodSandboxId: a}, []string{one}},
		{&criapi.ContainerStatsFilter{PodSandboxId: b[:12]}, []string{two}},
		{&criapi.ContainerStatsFilter{LabelSelector: labels("second")}, []string{two}},
		{&criapi.ContainerStatsFilter{LabelSelector: labels("made")}, nil},
		{&criapi.ContainerStatsFilter{Id: one, PodSandboxId: b}, nil},
		{&criapi.ContainerStatsFilter{PodSandboxId: a, LabelSelector: labels("second")}, nil},
		{&criapi.ContainerStatsFilter{Id: "none"}, nil},
	} {
		list, err := w.ListContainerStats(ctx, &criapi.ListContainerStatsRequest{Filter: c.filter})
		if got := names(list.GetStats()); err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%v: %v, %v; want %v", c.filter, got, err, c.want)
		}
		stream, err := w.StreamContainerStats(ctx, &criapi.StreamContainerStatsRequest{Filter: c.filter})
		if got := names(received(t, stream, err, (*criapi.StreamContainerStatsResponse).GetContainerStats)); !slices.Equal(got, c.want) {
			t.Errorf("%v: streamed %v, want %v", c.filter, got, c.want)
		}
	}
}

// Messages for Windows are in no answer, wherever they could be.
func TestNoAnswerHoldsWhatIsForWindows(t *testing.T) {
	w, ctx := newWorld(t), t.Context()
	pod, container := w.wide(t)
	answers := map[string]proto.Message{}
	var err error
	if answers["ContainerStats"], err = w.ContainerStats(ctx, &criapi.ContainerStatsRequest{ContainerId: container}); err != nil {
		t.Fatal(err)
	}
	if answers["ListContainerStats"], err = w.ListContainerStats(ctx, &criapi.ListContainerStatsRequest{}); err != nil {
		t.Fatal(err)
	}
	if answers["PodSandboxStats"], err = w.PodSandboxStats(ctx, &criapi.PodSandboxStatsRequest{PodSandboxId: pod}); err != nil {
		t.Fatal(err)
	}
	if answers["ListPodSandboxStats"], err = w.ListPodSandboxStats(ctx, &criapi.ListPodSandboxStatsRequest{}); err != nil {
		t.Fatal(err)
	}
	if answers["ContainerStatus"], err = w.ContainerStatus(ctx, &criapi.ContainerStatusRequest{ContainerId: container}); err != nil {
		t.Fatal(err)
	}
	if answers["PodSandboxStatus"], err = w.PodSandboxStatus(ctx, &criapi.PodSandboxStatusRequest{PodSandboxId: pod}); err != nil {
		t.Fatal(err)
	}
	seen := 0
	for call, answer := range answers {
		if err := protorange.Range(answer.ProtoReflect(), func(v protopath.Values) error {
			seen++
			if m, is := v.Index(-1).Value.Interface().(protoreflect.Message); is && strings.HasPrefix(string(m.Descriptor().Name()), "Windows") {
				t.Errorf("%s holds a %s at %s", call, m.Descriptor().Name(), v.Path)
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	if seen < 100 {
		t.Errorf("only %d values were looked at", seen)
	}
}

func TestMetricsAreListedAndStreamedWithTheirDescriptors(t *testing.T) {
	w, ctx := newWorld(t), t.Context()
	pod, container := w.wide(t)
	descriptors, err := w.ListMetricDescriptors(ctx, &criapi.ListMetricDescriptorsRequest{})
	if err != nil || len(descriptors.Descriptors) < 50 {
		t.Fatalf("%d descriptors, %v", len(descriptors.GetDescriptors()), err)
	}
	labels := map[string]int{}
	for _, d := range descriptors.Descriptors {
		if d.Help == "" {
			t.Errorf("%s has no help", d.Name)
		}
		labels[d.Name] = len(d.LabelKeys)
	}
	list, err := w.ListPodSandboxMetrics(ctx, &criapi.ListPodSandboxMetricsRequest{})
	if err != nil || len(list.PodMetrics) != 2 {
		t.Fatalf("%v, %v; want two pods", list, err)
	}
	first := list.PodMetrics[0]
	if first.PodSandboxId != pod || len(first.Metrics) == 0 || len(first.ContainerMetrics) != 1 || first.ContainerMetrics[0].ContainerId != container {
		t.Fatalf("metrics %v", first)
	}
	kinds := map[string]criapi.MetricType{}
	for _, m := range slices.Concat(first.Metrics, first.ContainerMetrics[0].Metrics) {
		if n, known := labels[m.Name]; !known || n != len(m.LabelValues) || m.Value == nil {
			t.Errorf("%v; its descriptor has %d labels", m, n)
		}
		if stored := m.Name == "container_fs_usage_bytes"; stored != (m.Timestamp != 0) {
			t.Errorf("%s has time %d", m.Name, m.Timestamp)
		}
		kinds[m.Name] = m.MetricType
	}
	if kinds["container_processes"] != criapi.MetricType_GAUGE || kinds["container_cpu_usage_seconds_total"] != criapi.MetricType_COUNTER {
		t.Errorf("types %v", kinds)
	}
	stream, err := w.StreamPodSandboxMetrics(ctx, &criapi.StreamPodSandboxMetricsRequest{})
	got := received(t, stream, err, (*criapi.StreamPodSandboxMetricsResponse).GetPodSandboxMetrics)
	if len(got) != 2 || got[0].PodSandboxId != pod || len(got[0].Metrics) != len(first.Metrics) {
		t.Errorf("streamed %v", got)
	}
}
