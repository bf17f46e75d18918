package cri

import (
	"context"
	"log/slog"
	"net"
	"time"

	"google.golang.org/grpc"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"cri-mini/cri/stream"
	"cri-mini/image"
	"cri-mini/podsandbox"
)

// maxMessage is what the kubelet's client takes; lists of many pods are long.
const maxMessage = 16 << 20

// Node is what a Server tells of the machine and of this program.
type Node struct {
	Version      string // of this program, as in semantic versioning
	Root         string // durable folder
	State        string // volatile folder
	CgroupDriver criapi.CgroupDriver
	// Handlers are the runtime handlers with what they can do, "" included.
	Handlers []*criapi.RuntimeHandler
	Features *criapi.RuntimeFeatures
	// Probed is what the kernel can do, for people.
	Probed map[string]string
}

// Network is what a Server asks of the pod network.
type Network interface {
	// Status tells why pods cannot get a network; nil when they can.
	Status() error
	// SetPodCIDR takes over the range that the cluster gave to this node.
	SetPodCIDR(cidr string) error
	// Describe is for people.
	Describe() map[string]any
}

// Server answers the calls of the kubelet and of crictl.
type Server struct {
	criapi.UnimplementedRuntimeServiceServer
	criapi.UnimplementedImageServiceServer

	Node    Node
	Pods    *podsandbox.Pods
	Images  *image.Store
	Network Network
	Streams *stream.Server
}

// stopPatience is how long calls may go on when the server is to stop. One that
// is cut off then takes back what it did.
const stopPatience = 5 * time.Second

// Serve answers on listener until stop is called, which may be done twice.
func (s *Server) Serve(listener net.Listener, log *slog.Logger) (serve func() error, stop func()) {
	stopping, endStreams := context.WithCancel(context.Background())
	g := grpc.NewServer(
		grpc.MaxRecvMsgSize(maxMessage),
		grpc.MaxSendMsgSize(maxMessage),
		grpc.UnaryInterceptor(intercept(log)),
		grpc.StreamInterceptor(interceptStream(stopping, log)),
	)
	criapi.RegisterRuntimeServiceServer(g, s)
	criapi.RegisterImageServiceServer(g, s)
	return func() error { return g.Serve(callers{listener}) }, func() {
		endStreams()
		cut := time.AfterFunc(stopPatience, g.Stop)
		defer cut.Stop()
		g.GracefulStop()
	}
}
