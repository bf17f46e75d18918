package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"cri-mini/internal/admin"
	"cri-mini/internal/config"
)

// client is the CRI as the command line uses it.
type client struct {
	criapi.RuntimeServiceClient
	criapi.ImageServiceClient
	conn *grpc.ClientConn
}

func dial(e *config.Endpoint) (*client, error) {
	if err := daemonAt(e).Check(); err != nil {
		return nil, err
	}
	conn, err := grpc.NewClient("unix://"+e.Path(),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithUnaryInterceptor(plainly),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(16<<20)))
	if err != nil {
		return nil, err
	}
	return &client{criapi.NewRuntimeServiceClient(conn), criapi.NewImageServiceClient(conn), conn}, nil
}

// plainly says of a socket where nobody answers just that, without what gRPC
// thinks about it.
func plainly(ctx context.Context, method string, request, answer any, conn *grpc.ClientConn, call grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	err := call(ctx, method, request, answer, conn, opts...)
	if status.Code(err) == codes.Unavailable {
		path, _ := strings.CutPrefix(conn.Target(), "unix://")
		if gone := (admin.Client{Path: path}).Check(); gone != nil {
			return gone
		}
	}
	return err
}

func (c *client) Close() error { return c.conn.Close() }

// find takes what a person writes for a container: its name, the beginning of
// its id, or the name of a pod that has only one.
func (c *client) find(ctx context.Context, word string) (*criapi.Container, error) {
	containers, pods, err := c.everything(ctx)
	if err != nil {
		return nil, err
	}
	var found []*criapi.Container
	for _, one := range containers {
		if strings.HasPrefix(one.Id, word) || one.Metadata.GetName() == word || pods[one.PodSandboxId].GetMetadata().GetName() == word {
			found = append(found, one)
		}
	}
	if len(found) > 1 { // of several attempts only one can run
		found = running(found)
	}
	switch len(found) {
	case 0:
		return nil, fmt.Errorf("container %q: not found", word)
	case 1:
		return found[0], nil
	}
	return nil, fmt.Errorf("container %q: %d match; use an id", word, len(found))
}

func running(all []*criapi.Container) []*criapi.Container {
	var some []*criapi.Container
	for _, one := range all {
		if one.State == criapi.ContainerState_CONTAINER_RUNNING {
			some = append(some, one)
		}
	}
	if len(some) == 0 {
		return all
	}
	return some
}

// everything lists containers, and pods by id.
func (c *client) everything(ctx context.Context) ([]*criapi.Container, map[string]*criapi.PodSandbox, error) {
	pods, err := c.ListPodSandbox(ctx, &criapi.ListPodSandboxRequest{})
	if err != nil {
		return nil, nil, err
	}
	containers, err := c.ListContainers(ctx, &criapi.ListContainersRequest{})
	if err != nil {
		return nil, nil, err
	}
	byID := map[string]*criapi.PodSandbox{}
	for _, pod := range pods.Items {
		byID[pod.Id] = pod
	}
	return containers.Containers, byID, nil
}

// details are the parts of a verbose status that we look at.
type details struct {
	PID int `json:"pid"`
}

func (c *client) container(ctx context.Context, id string) (*criapi.ContainerStatus, details, error) {
	answer, err := c.ContainerStatus(ctx, &criapi.ContainerStatusRequest{ContainerId: id, Verbose: true})
	if err != nil {
		return nil, details{}, err
	}
	d, err := read(answer.Info)
	return answer.Status, d, err
}

func (c *client) pod(ctx context.Context, id string) (*criapi.PodSandboxStatus, details, error) {
	answer, err := c.PodSandboxStatus(ctx, &criapi.PodSandboxStatusRequest{PodSandboxId: id, Verbose: true})
	if err != nil {
		return nil, details{}, err
	}
	d, err := read(answer.Info)
	return answer.Status, d, err
}

func read(info map[string]string) (d details, err error) {
	if err := json.Unmarshal([]byte(info["info"]), &d); err != nil {
		return d, fmt.Errorf("status: %w", err)
	}
	return d, nil
}

// short is as much of an id as people need.
func short(id string) string {
	id = strings.TrimPrefix(id, "sha256:")
	return id[:min(len(id), 13)]
}
