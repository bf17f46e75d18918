package stream

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"
)

// The protocols of exec and attach over SPDY, the oldest last. The third adds
// sizes of terminals, the fourth a status that can be parsed.
var spdyProtocols = []string{"v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io"}

// remoteStreams are those a client opens for exec or attach.
type remoteStreams struct {
	mu       sync.Mutex
	byType   map[string]*spdyStream
	expected map[string]bool
	complete chan struct{}
}

func expectStreams(want wanted, sizes bool) *remoteStreams {
	r := &remoteStreams{byType: map[string]*spdyStream{}, complete: make(chan struct{})}
	r.expected = map[string]bool{"error": true, "stdin": want.stdin, "stdout": want.stdout, "stderr": want.stderr, "resize": sizes}
	return r
}

func (r *remoteStreams) check(h http.Header) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	name := h.Get(streamType)
	if !r.expected[name] || r.byType[name] != nil {
		return fmt.Errorf("stream type %q: not asked for, or open already", name)
	}
	return nil
}

func (r *remoteStreams) opened(session *spdySession, stream *spdyStream) {
	name := stream.Headers().Get(streamType)
	if name != "stdin" && name != "resize" {
		stream.Close() // nobody reads it
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.byType[name] != nil { // two at a time
		begin(session.ctx, "forget a stream", func() { session.forget(stream) })
		return
	}
	r.byType[name] = stream
	for name, expected := range r.expected {
		if expected && r.byType[name] == nil {
			return
		}
	}
	close(r.complete)
}

// openSPDY makes a remote of a client that speaks SPDY.
func (s *Server) openSPDY(ctx context.Context, cancel context.CancelFunc, w http.ResponseWriter, r *http.Request, want wanted) (*remote, error) {
	conn, protocol, err := upgradeSPDY(w, r, spdyProtocols, "channel.k8s.io")
	if err != nil {
		return nil, err
	}
	structured := protocol == "v4.channel.k8s.io"
	streams := expectStreams(want, want.tty && (structured || protocol == "v3.channel.k8s.io"))
	session, err := s.startSPDY(ctx, cancel, conn, streams.check, streams.opened)
	if err != nil {
		return nil, err
	}
	expired := time.NewTimer(s.limits.creation)
	defer expired.Stop()
	select {
	case <-streams.complete:
	case <-ctx.Done():
		err = errors.New("the client left before it had opened its streams")
	case <-expired.C:
		err = fmt.Errorf("the client has not opened all its streams within %v", s.limits.creation)
	}
	if err != nil {
		session.end()
		return nil, err
	}

	c := new(remote)
	t := streams.byType
	if want.stdin {
		c.in = t["stdin"]
	}
	if want.stdout {
		c.out = t["stdout"]
	}
	if want.stderr {
		c.errOut = t["stderr"]
	}
	if t["resize"] != nil {
		c.sizes = readSizes(ctx, t["resize"])
	}
	c.finish = func(err error) {
		// As long as the client reads; that it has not gone is watched.
		conn.SetWriteDeadline(time.Now().Add(s.limits.idle))
		if text := statusText(err, structured); len(text) > 0 {
			t["error"].Write(text)
		}
		for _, name := range []string{"stdout", "stderr", "error"} {
			if t[name] != nil {
				t[name].CloseWrite()
			}
		}
		session.forget(t["stdin"], t["resize"])
		await(ctx, session.closed, s.limits.farewell)
		session.end()
		conn.Close()
	}
	return c, nil
}
