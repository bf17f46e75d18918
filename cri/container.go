package cri

import (
	"context"
	"math"
	"strconv"
	"time"

	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"cri-mini/podsandbox"
)

func (s *Server) CreateContainer(ctx context.Context, r *criapi.CreateContainerRequest) (*criapi.CreateContainerResponse, error) {
	if r.Config == nil {
		return nil, invalidMessage("config", "is missing")
	}
	id, err := s.Pods.Create(ctx, r.PodSandboxId, r.Config)
	if err != nil {
		return nil, rpcError(err)
	}
	return &criapi.CreateContainerResponse{ContainerId: id}, nil
}

func (s *Server) StartContainer(ctx context.Context, r *criapi.StartContainerRequest) (*criapi.StartContainerResponse, error) {
	c, err := s.Pods.Container(r.ContainerId)
	if err != nil {
		return nil, rpcError(err)
	}
	if err := c.Start(ctx); err != nil {
		return nil, rpcError(err)
	}
	return &criapi.StartContainerResponse{}, nil
}

func (s *Server) StopContainer(ctx context.Context, r *criapi.StopContainerRequest) (*criapi.StopContainerResponse, error) {
	grace, err := seconds(r.Timeout)
	if err != nil {
		return nil, err
	}
	c, err := s.Pods.Container(r.ContainerId)
	if err == nil {
		err = c.Stop(ctx, grace)
	}
	if err := gone(err); err != nil {
		return nil, err
	}
	return &criapi.StopContainerResponse{}, nil
}

func (s *Server) RemoveContainer(ctx context.Context, r *criapi.RemoveContainerRequest) (*criapi.RemoveContainerResponse, error) {
	if err := gone(s.Pods.RemoveContainer(ctx, r.ContainerId)); err != nil {
		return nil, err
	}
	return &criapi.RemoveContainerResponse{}, nil
}

func (s *Server) UpdateContainerResources(ctx context.Context, r *criapi.UpdateContainerResourcesRequest) (*criapi.UpdateContainerResourcesResponse, error) {
	c, err := s.Pods.Container(r.ContainerId)
	if err != nil {
		return nil, rpcError(err)
	}
	if r.Windows != nil {
		return nil, invalidMessage("windows", "is not for a Linux node")
	}
	for key, value := range r.Annotations { // options of an update, of which we know none
		return nil, invalidArgument("annotations["+key+"]", value, "is no option of an update")
	}
	if r.Linux != nil {
		if err := c.Update(ctx, r.Linux); err != nil {
			return nil, rpcError(err)
		}
	}
	return &criapi.UpdateContainerResourcesResponse{}, nil
}

func (s *Server) ReopenContainerLog(ctx context.Context, r *criapi.ReopenContainerLogRequest) (*criapi.ReopenContainerLogResponse, error) {
	c, err := s.Pods.Container(r.ContainerId)
	if err != nil {
		return nil, rpcError(err)
	}
	if err := c.ReopenLog(ctx); err != nil {
		return nil, rpcError(err)
	}
	return &criapi.ReopenContainerLogResponse{}, nil
}

func (s *Server) ContainerStatus(_ context.Context, r *criapi.ContainerStatusRequest) (*criapi.ContainerStatusResponse, error) {
	c, err := s.Pods.Container(r.ContainerId)
	if err != nil {
		return nil, rpcError(err)
	}
	status := c.Status()
	answer := &criapi.ContainerStatusResponse{Status: containerStatus(status)}
	if r.Verbose {
		answer.Info, err = verbose(map[string]any{
			"info": map[string]any{
				"pid":         status.PID,
				"sandboxID":   status.Sandbox,
				"config":      status.Config,
				"runtimeSpec": status.Spec,
			},
			"why": c.Why(),
		})
		if err != nil {
			return nil, rpcError(err)
		}
	}
	return answer, nil
}

func (s *Server) ListContainers(_ context.Context, r *criapi.ListContainersRequest) (*criapi.ListContainersResponse, error) {
	answer := &criapi.ListContainersResponse{}
	for _, c := range s.Pods.Containers() {
		status := c.Status()
		if containerMatches(r.Filter, status) {
			answer.Containers = append(answer.Containers, &criapi.Container{
				Id:           status.ID,
				PodSandboxId: status.Sandbox,
				Metadata:     status.Config.GetMetadata(),
				Image:        status.Config.GetImage(),
				ImageRef:     status.ImageRef,
				ImageId:      status.ImageID,
				State:        status.State,
				CreatedAt:    status.Created.UnixNano(),
				Labels:       status.Config.GetLabels(),
				Annotations:  status.Config.GetAnnotations(),
			})
		}
	}
	return answer, nil
}

func containerStatus(c podsandbox.ContainerStatus) *criapi.ContainerStatus {
	return &criapi.ContainerStatus{
		Id:          c.ID,
		Metadata:    c.Config.GetMetadata(),
		State:       c.State,
		CreatedAt:   c.Created.UnixNano(),
		StartedAt:   nanos(c.Started),
		FinishedAt:  nanos(c.Finished),
		ExitCode:    c.ExitCode,
		Image:       c.Config.GetImage(),
		ImageRef:    c.ImageRef,
		ImageId:     c.ImageID,
		Reason:      c.Reason,
		Message:     c.Message,
		Labels:      c.Config.GetLabels(),
		Annotations: c.Config.GetAnnotations(),
		Mounts:      c.Mounts,
		LogPath:     c.LogPath,
		Resources:   &criapi.ContainerResources{Linux: c.Resources},
		User:        &criapi.ContainerUser{Linux: c.User},
		StopSignal:  c.StopSignal,
	}
}

// seconds is a timeout of a request. More than fits is for ever.
func seconds(timeout int64) (time.Duration, error) {
	if timeout < 0 {
		return 0, invalidArgument("timeout", strconv.FormatInt(timeout, 10), "must not be negative")
	}
	return time.Duration(min(timeout, math.MaxInt64/int64(time.Second))) * time.Second, nil
}

// nanos is 0 for a moment that has not come, not the year 1.
func nanos(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}
