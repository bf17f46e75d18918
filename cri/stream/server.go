package stream

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

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

// Config is where and how a Server is reached.
type Config struct {
	Address string // port 0 means any free one
	Host    string // in URLs; empty: that of Address, or the loopback for all addresses
	// Certificate and Key are files in PEM; without them TLS is not spoken.
	Certificate, Key string
	// Plain allows an address beyond the loopback without TLS.
	Plain bool
}

// limits are what a test makes smaller.
type limits struct {
	creation time.Duration // until a client has opened all its streams
	idle     time.Duration // without a byte of data
	ping     time.Duration // between two pings of a WebSocket
	silence  time.Duration // without any frame from a WebSocket client
	farewell time.Duration // until a client closes after the end was told
	parting  time.Duration // for all clients, when the server ends

	forwards       int // connections of all clients
	clientForwards int // and of one
	dials          int // of those, how many are being made
}

// maxClientForwards bounds the connections of one client.
const maxClientForwards = 256

var defaultLimits = limits{
	forwards: 2048, clientForwards: maxClientForwards, dials: 512,
	creation: 30 * time.Second,
	idle:     4 * time.Hour,
	ping:     10 * time.Second,
	silence:  2 * time.Minute, // a client that waits for its own reader may be slow to answer
	farewell: 5 * time.Second,
	parting:  time.Second,
}

// Server gives out URLs and serves what comes back on them.
type Server struct {
	listener net.Listener
	base     url.URL
	tls      *tls.Config // nil without
	http     *http.Server
	tokens   *tokens
	conns    *connections
	room     *room
	limits   limits
	pods     Pods

	ending     context.Context // until Close
	end        context.CancelFunc
	remotes    atomic.Int64  // clients of exec and attach
	forwarding atomic.Int64  // connections
	dials      chan struct{} // a place for each that may be made at a time
}

// Listen opens the address.
func Listen(config Config) (*Server, error) {
	s := &Server{tokens: newTokens(), conns: newConnections(), room: &room{limit: serverRoom}, limits: defaultLimits}
	s.ending, s.end = context.WithCancel(context.Background())
	if config.Certificate != "" {
		certificate, err := newCertificate(config.Certificate, config.Key)
		if err != nil {
			return nil, err
		}
		s.tls = &tls.Config{GetCertificate: certificate.get, MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}}
	}
	listener, err := net.Listen("tcp", config.Address)
	if err != nil {
		return nil, fmt.Errorf("stream address %q: %w", config.Address, err)
	}
	address := listener.Addr().(*net.TCPAddr)
	if s.tls == nil && !address.IP.IsLoopback() {
		if !config.Plain {
			listener.Close()
			return nil, fmt.Errorf("stream address %q: not on the loopback and without TLS: set stream-certificate and stream-key, or stream-plain to accept it", config.Address)
		}
		slog.Warn("exec, attach and port-forward are served without TLS beyond the loopback", "address", address)
	}
	s.listener = newWatchedListener(listener.(*net.TCPListener), s.conns)
	s.base = url.URL{Scheme: "http", Host: hostInURL(config.Host, address)}
	if s.tls != nil {
		s.base.Scheme = "https"
	}
	s.http = &http.Server{
		Handler:           s,
		ConnContext:       connContext,
		ConnState:         newWaiting().changed,
		ReadHeaderTimeout: 10 * time.Second,
		MaxHeaderBytes:    16 << 10,
		IdleTimeout:       30 * time.Second,
		TLSConfig:         s.tls,
		// A connection cannot be taken over from HTTP/2.
		TLSNextProto: map[string]func(*http.Server, *tls.Conn, http.Handler){},
		ErrorLog:     slog.NewLogLogger(slog.Default().Handler(), slog.LevelDebug),
	}
	return s, nil
}

// hostInURL is what clients connect to. All addresses are none of them; the
// kubelet comes from this node.
func hostInURL(host string, address *net.TCPAddr) string {
	if host == "" {
		host = address.IP.String()
		if address.IP.IsUnspecified() {
			host = "127.0.0.1" // also for all of IPv6, which Go opens for both
		}
	}
	return net.JoinHostPort(host, strconv.Itoa(address.Port))
}

// Address is where the server listens.
func (s *Server) Address() string { return s.listener.Addr().String() }

// Serve returns after Close.
func (s *Server) Serve(pods Pods) error {
	s.pods = pods
	s.dials = make(chan struct{}, s.limits.dials)
	var err error
	if s.tls != nil {
		err = s.http.ServeTLS(s.listener, "", "")
	} else {
		err = s.http.Serve(s.listener)
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// errEnding is what clients of exec and attach hear from a server that ends. An
// error stream that ends without a word means success to them.
var errEnding = errors.New("the daemon ends, and with it this connection; a program of exec is killed, the container goes on")

// Close ends all connections, and with them what was done for them. Clients that
// listen are told.
func (s *Server) Close() error {
	s.end()
	for end := time.Now().Add(s.limits.parting); s.remotes.Load() > 0 && time.Now().Before(end); {
		time.Sleep(5 * time.Millisecond)
	}
	err := s.http.Close()
	s.conns.closeAll() // those that were taken over from net/http
	// Before Serve the HTTP server does not know the listener.
	if e := s.listener.Close(); !errors.Is(e, net.ErrClosed) {
		err = errors.Join(err, e)
	}
	return err
}

func (s *Server) url(verb string, request any) (string, error) {
	token, err := s.tokens.leave(request)
	if err != nil {
		return "", err
	}
	return s.base.JoinPath(verb, token).String(), nil
}

// Exec returns the URL at which the request is carried out.
func (s *Server) Exec(r *criapi.ExecRequest) (*criapi.ExecResponse, error) {
	url, err := s.url("exec", r)
	return &criapi.ExecResponse{Url: url}, err
}

// Attach returns the URL at which the request is carried out.
func (s *Server) Attach(r *criapi.AttachRequest) (*criapi.AttachResponse, error) {
	url, err := s.url("attach", r)
	return &criapi.AttachResponse{Url: url}, err
}

// PortForward returns the URL at which the request is carried out.
func (s *Server) PortForward(r *criapi.PortForwardRequest) (*criapi.PortForwardResponse, error) {
	url, err := s.url("portforward", r)
	return &criapi.PortForwardResponse{Url: url}, err
}

// ServeHTTP carries out the request of a token. What asks under another path
// than the token's finds nothing, and has used the token up.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	defer closeTaken(r)
	guarded(r.Context(), "serve a client", func() { s.serve(w, r) })
}

func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodPost {
		w.Header().Set("Allow", "GET, POST")
		http.Error(w, fmt.Sprintf("method %q: want GET or POST", r.Method), http.StatusMethodNotAllowed)
		return
	}
	verb, token, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	request, err := s.tokens.take(token)
	if err != nil {
		http.Error(w, err.Error(), http.StatusNotFound)
		return
	}
	switch q := request.(type) {
	case *criapi.ExecRequest:
		if verb == "exec" {
			s.serveRemote(w, r, wanted{q.Stdin, q.Stdout, q.Stderr, q.Tty}, func(ctx context.Context, c *remote) error {
				return s.exec(ctx, q, c)
			})
			return
		}
	case *criapi.AttachRequest:
		if verb == "attach" {
			s.serveRemote(w, r, wanted{q.Stdin, q.Stdout, q.Stderr, q.Tty}, func(ctx context.Context, c *remote) error {
				return s.attach(ctx, q, c)
			})
			return
		}
	case *criapi.PortForwardRequest:
		if verb == "portforward" {
			s.servePortForward(w, r, q)
			return
		}
	}
	http.Error(w, fmt.Sprintf("token %q is not of %q", token, verb), http.StatusNotFound)
}
