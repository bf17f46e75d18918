package cri

import (
	"context"
	"strconv"

	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"cri-mini/podsandbox"
)

func (s *Server) ExecSync(ctx context.Context, r *criapi.ExecSyncRequest) (*criapi.ExecSyncResponse, error) {
	c, err := s.running(r.ContainerId)
	if err != nil {
		return nil, err
	}
	timeout, err := seconds(r.Timeout)
	if err != nil {
		return nil, err
	}
	stdout, stderr, exit, err := c.ExecSync(ctx, r.Cmd, timeout)
	if err != nil {
		return nil, rpcError(err)
	}
	return &criapi.ExecSyncResponse{Stdout: stdout, Stderr: stderr, ExitCode: exit}, nil
}

func (s *Server) Exec(_ context.Context, r *criapi.ExecRequest) (*criapi.ExecResponse, error) {
	c, err := s.running(r.ContainerId)
	if err != nil {
		return nil, err
	}
	if len(r.Cmd) == 0 {
		return nil, invalidArgument("cmd", "", "missing")
	}
	if err := checkStreams(r.Stdin, r.Stdout, r.Stderr, r.Tty); err != nil {
		return nil, err
	}
	r.ContainerId = c.ID // a name cut short may fit two by the time the URL is used
	answer, err := s.Streams.Exec(r)
	return answer, rpcError(err)
}

func (s *Server) Attach(_ context.Context, r *criapi.AttachRequest) (*criapi.AttachResponse, error) {
	c, err := s.running(r.ContainerId)
	if err != nil {
		return nil, err
	}
	if has := c.Status().Config.GetTty(); r.Tty != has {
		return nil, invalidArgument("tty", strconv.FormatBool(r.Tty), "the container has tty "+strconv.FormatBool(has))
	}
	if err := checkStreams(r.Stdin, r.Stdout, r.Stderr, r.Tty); err != nil {
		return nil, err
	}
	r.ContainerId = c.ID
	answer, err := s.Streams.Attach(r)
	return answer, rpcError(err)
}

func (s *Server) PortForward(_ context.Context, r *criapi.PortForwardRequest) (*criapi.PortForwardResponse, error) {
	sandbox, err := s.Pods.Sandbox(r.PodSandboxId)
	if err != nil {
		return nil, rpcError(err)
	}
	if !sandbox.Status().Ready {
		return nil, rpcError(&stateError{"pod", sandbox.ID, "is not ready"})
	}
	r.PodSandboxId = sandbox.ID
	answer, err := s.Streams.PortForward(r)
	return answer, rpcError(err)
}

// checkStreams refuses what the interface forbids.
func checkStreams(stdin, stdout, stderr, tty bool) error {
	switch {
	case tty && stderr:
		return invalidArgument("stderr", "true", "not together with tty: a terminal has one output")
	case !stdin && !stdout && !stderr:
		return invalidArgument("stdin, stdout, stderr", "false", "want at least one")
	}
	return nil
}

func (s *Server) running(id string) (*podsandbox.Container, error) {
	c, err := s.Pods.Container(id)
	if err != nil {
		return nil, rpcError(err)
	}
	if c.Status().State != criapi.ContainerState_CONTAINER_RUNNING {
		return nil, rpcError(&stateError{"container", c.ID, "is not running"})
	}
	return c, nil
}

type stateError struct{ kind, id, state string }

func (e *stateError) Error() string   { return e.kind + " " + e.id + " " + e.state }
func (e *stateError) Is(t error) bool { return t == podsandbox.ErrFailedPrecondition }

// Streamed shows the pods to package stream.
type Streamed struct{ *podsandbox.Pods }

func (s Streamed) Exec(ctx context.Context, container string, args []string, tty bool, streams podsandbox.ExecIO) (podsandbox.Execution, error) {
	c, err := s.Container(container)
	if err != nil {
		return nil, err
	}
	return c.Exec(ctx, args, tty, streams)
}

func (s Streamed) Attach(ctx context.Context, container string) (podsandbox.Attachment, error) {
	c, err := s.Container(container)
	if err != nil {
		return nil, err
	}
	return c.Attach(ctx)
}
