package stream

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"time"

	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/cri-streaming/pkg/streaming"

	"cri-mini/podsandbox"
)

// Pods is what this package needs of the table of pods.
type Pods interface {
	// Exec starts a program in a running container.
	Exec(ctx context.Context, container string, args []string, tty bool, streams podsandbox.ExecIO) (podsandbox.Execution, error)
	// Attach joins the streams of a container's first process.
	Attach(ctx context.Context, container string) (podsandbox.Attachment, error)
	// NetNS opens the network namespace of a pod. It is nil for a pod in the
	// node's network.
	NetNS(pod string) (*os.File, error)
}

// Server gives out URLs and serves what comes back on them.
type Server struct {
	listener net.Listener
	library  streaming.Server
	http     *http.Server
	runtime  *runtime
}

// Listen opens the address, on which port 0 means any free one.
func Listen(address string) (*Server, error) {
	return listen(address, streaming.DefaultConfig)
}

func listen(address string, config streaming.Config) (*Server, error) {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("stream address %q: %w", address, err)
	}
	r := &runtime{conns: newConnections()}
	config.Addr = listener.Addr().String()
	config.BaseURL = &url.URL{Scheme: "http", Host: config.Addr}
	library, err := streaming.NewServer(config, r)
	if err != nil {
		listener.Close()
		return nil, fmt.Errorf("stream server: %w", err)
	}
	return &Server{
		listener: listener,
		library:  library,
		runtime:  r,
		http: &http.Server{
			Handler:           closing{library},
			ConnContext:       connContext,
			ConnState:         noteTakeover,
			ReadHeaderTimeout: 30 * time.Second,
			ErrorLog:          slog.NewLogLogger(slog.Default().Handler(), slog.LevelDebug),
		},
	}, nil
}

// Address is where the server listens.
func (s *Server) Address() string { return s.listener.Addr().String() }

// Serve returns after Close.
func (s *Server) Serve(pods Pods) error {
	s.runtime.pods = pods
	err := s.http.Serve(&watchedListener{Listener: s.listener, conns: s.runtime.conns})
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// Close ends all connections, and with them what was done for them.
func (s *Server) Close() error {
	err := s.http.Close()
	s.runtime.conns.closeAll() // those that the library took over from net/http
	// Before Serve the HTTP server does not know the listener.
	if e := s.listener.Close(); !errors.Is(e, net.ErrClosed) {
		err = errors.Join(err, e)
	}
	return err
}

// Exec returns the URL at which the request is carried out.
func (s *Server) Exec(r *criapi.ExecRequest) (*criapi.ExecResponse, error) {
	return s.library.GetExec(r)
}

// Attach returns the URL at which the request is carried out.
func (s *Server) Attach(r *criapi.AttachRequest) (*criapi.AttachResponse, error) {
	return s.library.GetAttach(r)
}

// PortForward returns the URL at which the request is carried out.
func (s *Server) PortForward(r *criapi.PortForwardRequest) (*criapi.PortForwardResponse, error) {
	return s.library.GetPortForward(r)
}

// runtime is the library's view of the pods.
type runtime struct {
	pods  Pods
	conns *connections
}
