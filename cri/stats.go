package cri

import (
	"context"

	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"cri-mini/podsandbox"
	"cri-mini/runtime/spec"
)

func (s *Server) ContainerStats(_ context.Context, r *criapi.ContainerStatsRequest) (*criapi.ContainerStatsResponse, error) {
	c, err := s.Pods.Container(r.ContainerId)
	if err != nil {
		return nil, rpcError(err)
	}
	stats, err := c.Stats()
	if err != nil {
		return nil, rpcError(err)
	}
	return &criapi.ContainerStatsResponse{Stats: s.containerStats(stats)}, nil
}

func (s *Server) ListContainerStats(ctx context.Context, r *criapi.ListContainerStatsRequest) (*criapi.ListContainerStatsResponse, error) {
	list, err := s.Pods.ContainerStats(ctx, func(c podsandbox.ContainerStatus) bool { return statsMatch(r.Filter, c) })
	if err != nil {
		return nil, rpcError(err)
	}
	answer := &criapi.ListContainerStatsResponse{}
	for _, c := range list {
		answer.Stats = append(answer.Stats, s.containerStats(c))
	}
	return answer, nil
}

func (s *Server) PodSandboxStats(ctx context.Context, r *criapi.PodSandboxStatsRequest) (*criapi.PodSandboxStatsResponse, error) {
	pod, err := s.Pods.Sandbox(r.PodSandboxId)
	if err != nil {
		return nil, rpcError(err) // also for no id at all: so the kubelet asks whether we have this call
	}
	stats, err := pod.Stats(ctx)
	if err != nil {
		return nil, rpcError(err)
	}
	return &criapi.PodSandboxStatsResponse{Stats: s.podStats(stats)}, nil
}

func (s *Server) ListPodSandboxStats(ctx context.Context, r *criapi.ListPodSandboxStatsRequest) (*criapi.ListPodSandboxStatsResponse, error) {
	list, err := s.Pods.SandboxStats(ctx, func(p podsandbox.SandboxStatus) bool { return podStatsMatch(r.Filter, p) })
	if err != nil {
		return nil, rpcError(err)
	}
	answer := &criapi.ListPodSandboxStatsResponse{}
	for _, p := range list {
		answer.Stats = append(answer.Stats, s.podStats(p))
	}
	return answer, nil
}

func (s *Server) containerStats(c podsandbox.ContainerStats) *criapi.ContainerStats {
	stats := &criapi.ContainerStats{
		Attributes: &criapi.ContainerAttributes{
			Id:          c.Status.ID,
			Metadata:    c.Status.Config.GetMetadata(),
			Labels:      c.Status.Config.GetLabels(),
			Annotations: c.Status.Config.GetAnnotations(),
		},
		Cpu:    cpuUsage(c.Usage, c.NanoCores),
		Memory: memoryUsage(c.Usage),
		Swap:   swapUsage(c.Usage),
		Io:     ioUsage(c.Usage),
	}
	if w := c.Writable; w != nil {
		stats.WritableLayer = &criapi.FilesystemUsage{
			Timestamp:  w.At.UnixNano(),
			FsId:       &criapi.FilesystemIdentifier{Mountpoint: s.mountpoint()},
			UsedBytes:  number(w.Bytes),
			InodesUsed: number(w.Inodes),
		}
	}
	return stats
}

func (s *Server) podStats(p podsandbox.SandboxStats) *criapi.PodSandboxStats {
	linux := &criapi.LinuxPodSandboxStats{
		Cpu:     cpuUsage(p.Usage, p.NanoCores),
		Memory:  memoryUsage(p.Usage),
		Io:      ioUsage(p.Usage),
		Process: &criapi.ProcessUsage{Timestamp: p.Usage.At.UnixNano(), ProcessCount: number(p.Usage.Processes)},
	}
	if p.Default != nil {
		linux.Network = &criapi.NetworkUsage{Timestamp: p.Usage.At.UnixNano(), DefaultInterface: interfaceUsage(*p.Default)}
		for _, i := range p.Others {
			linux.Network.Interfaces = append(linux.Network.Interfaces, interfaceUsage(i))
		}
	}
	for _, c := range p.Containers {
		linux.Containers = append(linux.Containers, s.containerStats(c))
	}
	return &criapi.PodSandboxStats{
		Attributes: &criapi.PodSandboxAttributes{
			Id:          p.Status.ID,
			Metadata:    p.Status.Config.GetMetadata(),
			Labels:      p.Status.Config.GetLabels(),
			Annotations: p.Status.Config.GetAnnotations(),
		},
		Linux: linux,
	}
}

func cpuUsage(u spec.Stats, nanoCores *uint64) *criapi.CpuUsage {
	c := &criapi.CpuUsage{Timestamp: u.At.UnixNano(), UsageCoreNanoSeconds: number(u.CPU.Nanos), Psi: psi(u.CPUPressure)}
	if nanoCores != nil {
		c.UsageNanoCores = number(*nanoCores)
	}
	return c
}

// memoryUsage has a time and nothing else where memory is not measured.
func memoryUsage(u spec.Stats) *criapi.MemoryUsage {
	usage := &criapi.MemoryUsage{Timestamp: u.At.UnixNano(), Psi: psi(u.MemoryPressure)}
	m := u.Memory
	if m == nil {
		return usage
	}
	usage.WorkingSetBytes, usage.UsageBytes, usage.RssBytes = number(m.WorkingSet), number(m.Usage), number(m.RSS)
	usage.PageFaults, usage.MajorPageFaults = number(m.PageFaults), number(m.MajorPageFaults)
	if m.Limit != 0 {
		usage.AvailableBytes = left(m.Limit, m.WorkingSet)
	}
	return usage
}

func swapUsage(u spec.Stats) *criapi.SwapUsage {
	usage := &criapi.SwapUsage{Timestamp: u.At.UnixNano()}
	if u.Swap == nil {
		return usage
	}
	usage.SwapUsageBytes = number(u.Swap.Usage)
	if u.Swap.Limited {
		usage.SwapAvailableBytes = left(u.Swap.Limit, u.Swap.Usage)
	}
	return usage
}

func ioUsage(u spec.Stats) *criapi.IoUsage {
	return &criapi.IoUsage{Timestamp: u.At.UnixNano(), Psi: psi(u.IOPressure)}
}

func psi(p *spec.Pressure) *criapi.PsiStats {
	if p == nil {
		return nil
	}
	data := func(t spec.PressureTime) *criapi.PsiData {
		return &criapi.PsiData{Total: t.Nanos, Avg10: t.Avg10, Avg60: t.Avg60, Avg300: t.Avg300}
	}
	return &criapi.PsiStats{Full: data(p.Full), Some: data(p.Some)}
}

func interfaceUsage(i spec.Interface) *criapi.NetworkInterfaceUsage {
	return &criapi.NetworkInterfaceUsage{
		Name:    i.Name,
		RxBytes: number(i.RxBytes), RxErrors: number(i.RxErrors),
		TxBytes: number(i.TxBytes), TxErrors: number(i.TxErrors),
	}
}

func number(n uint64) *criapi.UInt64Value { return &criapi.UInt64Value{Value: n} }

// left is what remains of a limit.
func left(limit, used uint64) *criapi.UInt64Value { return number(limit - min(used, limit)) }
