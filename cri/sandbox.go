package cri

import (
	"context"

	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"cri-mini/podsandbox"
)

func (s *Server) RunPodSandbox(ctx context.Context, r *criapi.RunPodSandboxRequest) (*criapi.RunPodSandboxResponse, error) {
	if r.Config == nil {
		return nil, invalidMessage("config", "is missing")
	}
	id, err := s.Pods.Run(ctx, r.Config, r.RuntimeHandler)
	if err != nil {
		return nil, rpcError(err)
	}
	return &criapi.RunPodSandboxResponse{PodSandboxId: id}, nil
}

func (s *Server) StopPodSandbox(ctx context.Context, r *criapi.StopPodSandboxRequest) (*criapi.StopPodSandboxResponse, error) {
	if err := gone(s.Pods.Stop(ctx, r.PodSandboxId)); err != nil {
		return nil, err
	}
	return &criapi.StopPodSandboxResponse{}, nil
}

func (s *Server) RemovePodSandbox(ctx context.Context, r *criapi.RemovePodSandboxRequest) (*criapi.RemovePodSandboxResponse, error) {
	if err := gone(s.Pods.Remove(ctx, r.PodSandboxId)); err != nil {
		return nil, err
	}
	return &criapi.RemovePodSandboxResponse{}, nil
}

func (s *Server) UpdatePodSandboxResources(_ context.Context, r *criapi.UpdatePodSandboxResourcesRequest) (*criapi.UpdatePodSandboxResourcesResponse, error) {
	sandbox, err := s.Pods.Sandbox(r.PodSandboxId)
	if err == nil {
		err = sandbox.UpdateResources(r.Overhead, r.Resources)
	}
	if err != nil {
		return nil, rpcError(err)
	}
	return &criapi.UpdatePodSandboxResourcesResponse{}, nil
}

func (s *Server) PodSandboxStatus(_ context.Context, r *criapi.PodSandboxStatusRequest) (*criapi.PodSandboxStatusResponse, error) {
	sandbox, err := s.Pods.Sandbox(r.PodSandboxId)
	if err != nil {
		return nil, rpcError(err)
	}
	status := sandbox.Status()
	answer := &criapi.PodSandboxStatusResponse{Status: sandboxStatus(status)}
	if r.Verbose {
		answer.Info, err = verbose(map[string]any{
			"info": map[string]any{
				"pid":         status.PID, // of the init of a shared PID namespace
				"config":      status.Config,
				"runtimeSpec": status.Spec,
			},
			"why": sandbox.Why(),
		})
		if err != nil {
			return nil, rpcError(err)
		}
	}
	return answer, nil
}

func (s *Server) ListPodSandbox(_ context.Context, r *criapi.ListPodSandboxRequest) (*criapi.ListPodSandboxResponse, error) {
	answer := &criapi.ListPodSandboxResponse{}
	for _, sandbox := range s.Pods.Sandboxes() {
		status := sandbox.Status()
		if sandboxMatches(r.Filter, status) {
			answer.Items = append(answer.Items, &criapi.PodSandbox{
				Id:             status.ID,
				Metadata:       status.Config.GetMetadata(),
				State:          sandboxState(status),
				CreatedAt:      status.Created.UnixNano(),
				Labels:         status.Config.GetLabels(),
				Annotations:    status.Config.GetAnnotations(),
				RuntimeHandler: status.Handler,
			})
		}
	}
	return answer, nil
}

// The messages of a status share what is inside the stored request; gRPC only
// reads it.
func sandboxStatus(s podsandbox.SandboxStatus) *criapi.PodSandboxStatus {
	network := &criapi.PodSandboxNetworkStatus{}
	for i, ip := range s.IPs {
		if i == 0 {
			network.Ip = ip.String()
			continue
		}
		network.AdditionalIps = append(network.AdditionalIps, &criapi.PodIP{Ip: ip.String()})
	}
	namespaces := s.Config.GetLinux().GetSecurityContext().GetNamespaceOptions()
	if namespaces == nil {
		namespaces = &criapi.NamespaceOption{} // the kubelet compares it with what it wants
	}
	return &criapi.PodSandboxStatus{
		Id:             s.ID,
		Metadata:       s.Config.GetMetadata(),
		State:          sandboxState(s),
		CreatedAt:      s.Created.UnixNano(),
		Network:        network,
		Linux:          &criapi.LinuxPodSandboxStatus{Namespaces: &criapi.Namespace{Options: namespaces}},
		Labels:         s.Config.GetLabels(),
		Annotations:    s.Config.GetAnnotations(),
		RuntimeHandler: s.Handler,
	}
}

func sandboxState(s podsandbox.SandboxStatus) criapi.PodSandboxState {
	if s.Ready {
		return criapi.PodSandboxState_SANDBOX_READY
	}
	return criapi.PodSandboxState_SANDBOX_NOTREADY
}
