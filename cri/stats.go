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
	return &criapi.ContainerStatsResponse{Stats: s.containerStats(c.Status(), stats)}, nil
}

func (s *Server) ListContainerStats(_ context.Context, r *criapi.ListContainerStatsRequest) (*criapi.ListContainerStatsResponse, error) {
	answer := &criapi.ListContainerStatsResponse{}
	for _, c := range s.Pods.Containers() {
		status := c.Status()
		if status.State != criapi.ContainerState_CONTAINER_RUNNING || !statsMatch(r.Filter, status) {
			continue
		}
		stats, err := c.Stats()
		if err != nil {
			if c.Status().State != criapi.ContainerState_CONTAINER_RUNNING {
				continue // it ended while we looked
			}
			return nil, rpcError(err)
		}
		answer.Stats = append(answer.Stats, s.containerStats(status, stats))
	}
	return answer, nil
}

func (s *Server) containerStats(c podsandbox.ContainerStatus, u spec.Stats) *criapi.ContainerStats {
	at := u.At.UnixNano()
	stats := &criapi.ContainerStats{
		Attributes: &criapi.ContainerAttributes{
			Id:          c.ID,
			Metadata:    c.Config.GetMetadata(),
			Labels:      c.Config.GetLabels(),
			Annotations: c.Config.GetAnnotations(),
		},
		Cpu: &criapi.CpuUsage{Timestamp: at, UsageCoreNanoSeconds: number(u.CPUNanos)},
		Memory: &criapi.MemoryUsage{
			Timestamp:       at,
			WorkingSetBytes: number(u.WorkingSet),
			UsageBytes:      number(u.MemoryUsage),
			RssBytes:        number(u.RSS),
			PageFaults:      number(u.PageFaults),
			MajorPageFaults: number(u.MajorFaults),
			AvailableBytes:  left(u.MemoryLimit, u.WorkingSet),
		},
		Swap: &criapi.SwapUsage{
			Timestamp:          at,
			SwapUsageBytes:     number(u.SwapUsage),
			SwapAvailableBytes: left(u.SwapLimit, u.SwapUsage),
		},
	}
	if u.WritableUsed != nil {
		stats.WritableLayer = &criapi.FilesystemUsage{
			Timestamp:  at,
			FsId:       &criapi.FilesystemIdentifier{Mountpoint: s.Node.Root},
			UsedBytes:  number(u.WritableUsed),
			InodesUsed: number(u.WritableFile),
		}
	}
	return stats
}

func number(n *uint64) *criapi.UInt64Value {
	if n == nil {
		return nil
	}
	return &criapi.UInt64Value{Value: *n}
}

func left(limit, used *uint64) *criapi.UInt64Value {
	if limit == nil || used == nil {
		return nil
	}
	if *used > *limit {
		return &criapi.UInt64Value{}
	}
	return &criapi.UInt64Value{Value: *limit - *used}
}
