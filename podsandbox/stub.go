package podsandbox

import (
	"context"
	"errors"
	"os"
	"time"

	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"cri-mini/runtime/spec"
)

var errStub = errors.New("stub")

type Images interface{}
type Network interface{}

type Pods struct{}

func Open(ctx context.Context, o Options) (*Pods, error) { return nil, errStub }

// Close stops the goroutines of p; pods and containers live on.
func (p *Pods) Close() error { return errStub }

func (p *Pods) Run(ctx context.Context, cfg *criapi.PodSandboxConfig, handler string) (string, error) {
	return "", errStub
}
func (p *Pods) Stop(ctx context.Context, id string) error   { return errStub }
func (p *Pods) Remove(ctx context.Context, id string) error { return errStub }
func (p *Pods) Sandbox(id string) (*Sandbox, error)         { return nil, errStub }
func (p *Pods) Sandboxes() []*Sandbox                       { return nil }

// NetNS is nil with the node's network.
func (p *Pods) NetNS(id string) (*os.File, error) { return nil, errStub }

func (p *Pods) Create(ctx context.Context, sandbox string, cfg *criapi.ContainerConfig) (string, error) {
	return "", errStub
}
func (p *Pods) Container(id string) (*Container, error)              { return nil, errStub }
func (p *Pods) Containers() []*Container                             { return nil }
func (p *Pods) RemoveContainer(ctx context.Context, id string) error { return errStub }

type Sandbox struct{ ID string }

func (s *Sandbox) Status() SandboxStatus { return SandboxStatus{} }

type Container struct{ ID string }

func (c *Container) Status() ContainerStatus                             { return ContainerStatus{} }
func (c *Container) Start(ctx context.Context) error                     { return errStub }
func (c *Container) Stop(ctx context.Context, grace time.Duration) error { return errStub }

// ExecSync runs argv; timeout 0 is for ever.
func (c *Container) ExecSync(ctx context.Context, argv []string, timeout time.Duration) (stdout, stderr []byte, code int32, err error) {
	return nil, nil, 0, errStub
}
func (c *Container) Exec(ctx context.Context, argv []string, tty bool, io ExecIO) (Execution, error) {
	return nil, errStub
}
func (c *Container) Attach(ctx context.Context) (Attachment, error) { return nil, errStub }
func (c *Container) ReopenLog(ctx context.Context) error            { return errStub }
func (c *Container) Update(ctx context.Context, r *criapi.LinuxContainerResources) error {
	return errStub
}
func (c *Container) Stats() (spec.Stats, error) { return spec.Stats{}, errStub }
