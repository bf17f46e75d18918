package cri

import (
	"google.golang.org/protobuf/proto"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// The streaming forms of the lists. Each sends what its list gives, taken at
// one moment, so that every item comes exactly once however long the client
// takes to read.

const (
	// batchSize is the bytes of one message, far from what a client refuses,
	// so that an item a little larger than usual still fits.
	batchSize = 1 << 20
	// itemOverhead is tag and length of an item inside its message.
	itemOverhead = 8
)

func (s *Server) StreamPodSandboxes(r *criapi.StreamPodSandboxesRequest, stream criapi.RuntimeService_StreamPodSandboxesServer) error {
	list, err := s.ListPodSandbox(stream.Context(), &criapi.ListPodSandboxRequest{Filter: r.Filter})
	if err != nil {
		return err
	}
	return inBatches(list.Items, func(batch []*criapi.PodSandbox) error {
		return stream.Send(&criapi.StreamPodSandboxesResponse{PodSandboxes: batch})
	})
}

func (s *Server) StreamContainers(r *criapi.StreamContainersRequest, stream criapi.RuntimeService_StreamContainersServer) error {
	list, err := s.ListContainers(stream.Context(), &criapi.ListContainersRequest{Filter: r.Filter})
	if err != nil {
		return err
	}
	return inBatches(list.Containers, func(batch []*criapi.Container) error {
		return stream.Send(&criapi.StreamContainersResponse{Containers: batch})
	})
}

func (s *Server) StreamContainerStats(r *criapi.StreamContainerStatsRequest, stream criapi.RuntimeService_StreamContainerStatsServer) error {
	list, err := s.ListContainerStats(stream.Context(), &criapi.ListContainerStatsRequest{Filter: r.Filter})
	if err != nil {
		return err
	}
	return inBatches(list.Stats, func(batch []*criapi.ContainerStats) error {
		return stream.Send(&criapi.StreamContainerStatsResponse{ContainerStats: batch})
	})
}

func (s *Server) StreamPodSandboxStats(r *criapi.StreamPodSandboxStatsRequest, stream criapi.RuntimeService_StreamPodSandboxStatsServer) error {
	list, err := s.ListPodSandboxStats(stream.Context(), &criapi.ListPodSandboxStatsRequest{Filter: r.Filter})
	if err != nil {
		return err
	}
	return inBatches(list.Stats, func(batch []*criapi.PodSandboxStats) error {
		return stream.Send(&criapi.StreamPodSandboxStatsResponse{PodSandboxStats: batch})
	})
}

func (s *Server) StreamPodSandboxMetrics(_ *criapi.StreamPodSandboxMetricsRequest, stream criapi.RuntimeService_StreamPodSandboxMetricsServer) error {
	list, err := s.ListPodSandboxMetrics(stream.Context(), &criapi.ListPodSandboxMetricsRequest{})
	if err != nil {
		return err
	}
	return inBatches(list.PodMetrics, func(batch []*criapi.PodSandboxMetrics) error {
		return stream.Send(&criapi.StreamPodSandboxMetricsResponse{PodSandboxMetrics: batch})
	})
}

func (s *Server) StreamImages(r *criapi.StreamImagesRequest, stream criapi.ImageService_StreamImagesServer) error {
	list, err := s.ListImages(stream.Context(), &criapi.ListImagesRequest{Filter: r.Filter})
	if err != nil {
		return err
	}
	return inBatches(list.Images, func(batch []*criapi.Image) error {
		return stream.Send(&criapi.StreamImagesResponse{Images: batch})
	})
}

// inBatches sends items in their order. A message is never empty, and larger
// than batchSize only when its one item is.
func inBatches[T proto.Message](items []T, send func([]T) error) error {
	for len(items) > 0 {
		n, size := 0, 0
		for _, item := range items {
			size += proto.Size(item) + itemOverhead
			if n > 0 && size > batchSize {
				break
			}
			n++
		}
		if err := send(items[:n]); err != nil {
			return err
		}
		items = items[n:]
	}
	return nil
}
