package cri

import (
	"context"
	"encoding/json"
	"fmt"

	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"cri-mini/podsandbox"
)

const (
	kubeletAPIVersion = "0.1.0" // the kubelet refuses any other
	runtimeName       = "cri-mini"
	runtimeAPIVersion = "v1"
)

func (s *Server) Version(context.Context, *criapi.VersionRequest) (*criapi.VersionResponse, error) {
	return &criapi.VersionResponse{
		Version:           kubeletAPIVersion,
		RuntimeName:       runtimeName,
		RuntimeVersion:    s.Node.Version,
		RuntimeApiVersion: runtimeAPIVersion,
	}, nil
}

func (s *Server) Status(_ context.Context, r *criapi.StatusRequest) (*criapi.StatusResponse, error) {
	network := &criapi.RuntimeCondition{Type: criapi.NetworkReady, Status: true}
	if err := s.Network.Status(); err != nil {
		network.Status = false
		network.Reason = "NetworkNotReady"
		network.Message = err.Error()
	}
	answer := &criapi.StatusResponse{
		Status: &criapi.RuntimeStatus{Conditions: []*criapi.RuntimeCondition{
			{Type: criapi.RuntimeReady, Status: true}, // who answers is ready
			network,
		}},
		RuntimeHandlers: s.Node.Handlers,
		Features:        s.Node.Features,
	}
	if r.Verbose {
		info, err := s.nodeInfo()
		if err != nil {
			return nil, rpcError(err)
		}
		answer.Info = info
	}
	return answer, nil
}

// nodeInfo is what crictl info shows. Its values are JSON objects.
func (s *Server) nodeInfo() (map[string]string, error) {
	return verbose(map[string]any{
		"config": map[string]any{ // tests of the kubelet look here for stateDir
			"rootDir":      s.Node.Root,
			"stateDir":     s.Node.State,
			"cgroupDriver": s.Node.CgroupDriver.String(),
		},
		"network": s.Network.Describe(),
		"kernel":  s.Node.Probed,
	})
}

func verbose(values map[string]any) (map[string]string, error) {
	info := map[string]string{}
	for key, value := range values {
		text, err := json.Marshal(value)
		if err != nil {
			return nil, fmt.Errorf("encode %s: %w", key, err)
		}
		info[key] = string(text)
	}
	return info, nil
}

func (s *Server) RuntimeConfig(context.Context, *criapi.RuntimeConfigRequest) (*criapi.RuntimeConfigResponse, error) {
	return &criapi.RuntimeConfigResponse{
		Linux: &criapi.LinuxRuntimeConfiguration{CgroupDriver: s.Node.CgroupDriver},
	}, nil
}

func (s *Server) UpdateRuntimeConfig(_ context.Context, r *criapi.UpdateRuntimeConfigRequest) (*criapi.UpdateRuntimeConfigResponse, error) {
	if cidr := r.GetRuntimeConfig().GetNetworkConfig().GetPodCidr(); cidr != "" {
		if err := s.Network.SetPodCIDR(cidr); err != nil {
			return nil, rpcError(podsandbox.InRequest(err, "runtime_config.network_config."))
		}
	}
	return &criapi.UpdateRuntimeConfigResponse{}, nil
}
