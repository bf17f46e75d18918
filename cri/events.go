package cri

import (
	"context"
	"errors"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"cri-mini/podsandbox"
)

// GetContainerEvents ends only with its client or with us: the kubelet gives
// up on events after a few ends.
func (s *Server) GetContainerEvents(_ *criapi.GetEventsRequest, stream criapi.RuntimeService_GetContainerEventsServer) error {
	events := s.Pods.Subscribe()
	defer events.Close()
	for {
		e, err := events.Next(stream.Context())
		if errors.Is(err, errStopping) {
			return errStopping // without our words around that of gRPC
		}
		if err != nil {
			return rpcError(err)
		}
		if err := stream.Send(eventMessage(e)); err != nil {
			return err
		}
	}
}

func eventMessage(e podsandbox.Event) *criapi.ContainerEventResponse {
	m := &criapi.ContainerEventResponse{
		ContainerId:        e.ID,
		ContainerEventType: e.Type,
		CreatedAt:          e.At.UnixNano(),
		PodSandboxStatus:   sandboxStatus(e.Sandbox),
	}
	for _, c := range e.Containers {
		m.ContainersStatuses = append(m.ContainersStatuses, containerStatus(c))
	}
	return m
}

var errStopping = status.Error(codes.Unavailable, "going down")

// untilStop is a stream whose context also ends with the server's own; what is
// being sent goes on.
type untilStop struct {
	grpc.ServerStream
	ctx context.Context
}

func (s untilStop) Context() context.Context { return s.ctx }

func boundTo(stopping context.Context, stream grpc.ServerStream) (bound grpc.ServerStream, done func()) {
	ctx, cancel := context.WithCancelCause(stream.Context())
	release := context.AfterFunc(stopping, func() { cancel(errStopping) })
	return untilStop{stream, ctx}, func() { release(); cancel(nil) }
}
