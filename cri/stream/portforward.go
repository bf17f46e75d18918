package stream

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/gorilla/websocket"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

const (
	forwardProtocol = "portforward.k8s.io"
	tunnelProtocol  = spdyName + "+" + forwardProtocol
)

// servePortForward serves one client: over SPDY, over SPDY within a WebSocket,
// or over the channels of a WebSocket for ports that the request names.
func (s *Server) servePortForward(w http.ResponseWriter, r *http.Request, q *criapi.PortForwardRequest) {
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	conn, err := s.openForward(ctx, cancel, w, r, q)
	if err != nil {
		slog.Debug("streaming connection not made", "path", r.URL.Path, "err", err)
		return
	}
	if conn == nil {
		return // served already
	}
	f := &forwards{server: s, ctx: ctx, pod: q.PodSandboxId, waiting: map[string]*pair{}}
	session, err := s.startSPDY(ctx, cancel, conn, f.check, f.opened)
	if err == nil {
		<-ctx.Done()
		session.end()
	}
	conn.Close()
	f.running.Wait()
}

func (s *Server) openForward(ctx context.Context, cancel context.CancelFunc, w http.ResponseWriter, r *http.Request, q *criapi.PortForwardRequest) (net.Conn, error) {
	if !websocket.IsWebSocketUpgrade(r) {
		conn, _, err := upgradeSPDY(w, r, []string{forwardProtocol}, forwardProtocol)
		return conn, err
	}
	spoken := []string{tunnelProtocol}
	if len(q.Port) > 0 {
		spoken = append(spoken, names(portProtocols)...)
	} else if len(websocket.Subprotocols(r)) == 0 {
		err := fmt.Errorf("websocket without the protocol %s: the request for this URL must name the ports", tunnelProtocol)
		http.Error(w, err.Error(), http.StatusBadRequest)
		return nil, err
	}
	ws, name, err := upgradeWebSocket(w, r, spoken)
	if err != nil {
		return nil, err
	}
	if name == tunnelProtocol {
		return newTunnel(ctx, ws, s.limits), nil
	}
	s.forwardChannels(ctx, cancel, ws, named(portProtocols, name), q)
	return nil, nil
}

// forwards are the connections of one client. The client opens two streams for
// each: one for the data, one on which it reads why there is none.
type forwards struct {
	server *Server
	ctx    context.Context
	pod    string

	mu      sync.Mutex
	waiting map[string]*pair // by what the client calls the connection
	active  int
	running sync.WaitGroup
}

type pair struct {
	errors, data *spdyStream
	expire       *time.Timer
}

func forwardedPort(h http.Header) (int32, error) {
	port, err := strconv.ParseUint(h.Get("port"), 10, 16)
	if err != nil || port == 0 {
		return 0, fmt.Errorf("port %q: want 1 to 65535", h.Get("port"))
	}
	return int32(port), nil
}

func (f *forwards) check(h http.Header) error {
	if _, err := forwardedPort(h); err != nil {
		return err
	}
	if name := h.Get(streamType); name != "error" && name != "data" {
		return fmt.Errorf("stream type %q: want error or data", name)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	// Those beyond the limit are told so on their streams, as many again.
	if limit := 2 * f.server.limits.clientForwards; f.active+len(f.waiting) >= limit {
		return fmt.Errorf("more than %d connections", limit)
	}
	return nil
}

// opened runs a connection when both its streams are there.
func (f *forwards) opened(session *spdySession, stream *spdyStream) {
	data := stream.Headers().Get(streamType) == "data"
	id := stream.Headers().Get("requestID")
	if id == "" { // an old client: it opens the two one after the other
		n := stream.Identifier()
		if data {
			n -= 2
		}
		id = "stream " + strconv.FormatUint(uint64(n), 10)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	p := f.waiting[id]
	if p == nil {
		p = new(pair)
		p.expire = time.AfterFunc(f.server.limits.creation, func() {
			guarded(f.ctx, "forget half a forward", func() { f.drop(session, id, p) })
		})
		f.waiting[id] = p
	}
	half := &p.errors
	if !data {
		stream.Close() // nobody reads it
	}
	if data {
		half = &p.data
	}
	if *half != nil {
		begin(f.ctx, "forget a stream", func() { session.forget(stream) }) // opened twice
		return
	}
	*half = stream
	if p.errors == nil || p.data == nil {
		return
	}
	p.expire.Stop()
	delete(f.waiting, id)
	f.active++
	excess := f.active > f.server.limits.clientForwards
	f.running.Go(func() { guarded(f.ctx, "forward a stream", func() { f.run(session, p, excess) }) })
}

// drop forgets a connection whose other stream never came.
func (f *forwards) drop(session *spdySession, id string, p *pair) {
	f.mu.Lock()
	mine := f.waiting[id] == p
	if mine {
		delete(f.waiting, id)
	}
	f.mu.Unlock()
	if mine {
		if p.errors != nil {
			fmt.Fprintf(p.errors, "no data stream within %v", f.server.limits.creation)
			p.errors.CloseWrite()
		}
		session.forget(p.errors, p.data)
	}
}

// run ends the pair's streams. One in excess is told that it is.
func (f *forwards) run(session *spdySession, p *pair, excess bool) {
	defer func() {
		session.forget(p.data, p.errors)
		f.mu.Lock()
		f.active--
		f.mu.Unlock()
	}()
	port, _ := forwardedPort(p.data.Headers()) // checked
	err := fmt.Errorf("%d connections of this client are forwarded already, as many as one may have", f.server.limits.clientForwards)
	if !excess {
		err = f.server.forward(p.data.ctx, f.pod, port, p.data)
	}
	if err != nil {
		fmt.Fprintf(p.errors, "forward port %d of pod %s: %v", port, f.pod, err)
	}
	p.data.CloseWrite()
	p.errors.CloseWrite()
}
