package stream

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"

	"github.com/moby/spdystream"
)

const (
	spdyName       = "SPDY/3.1"
	protocolHeader = "X-Stream-Protocol-Version"
	streamType     = "streamType"
)

// upgradeSPDY makes of a request a connection that speaks SPDY, in one of the
// protocols. The client has its answer also when there is an error.
func upgradeSPDY(w http.ResponseWriter, r *http.Request, protocols []string, oldest string) (net.Conn, string, error) {
	if !strings.EqualFold(r.Header.Get("Upgrade"), spdyName) || !strings.Contains(strings.ToLower(r.Header.Get("Connection")), "upgrade") {
		err := fmt.Errorf("upgrade %q: want %s or websocket", r.Header.Get("Upgrade"), spdyName)
		http.Error(w, err.Error(), http.StatusBadRequest)
		return nil, "", err
	}
	var offered []string
	for _, line := range r.Header.Values(protocolHeader) {
		for name := range strings.SplitSeq(line, ",") {
			if name = strings.TrimSpace(name); name != "" {
				offered = append(offered, name)
			}
		}
	}
	protocol, err := negotiate(offered, protocols, oldest)
	if err != nil {
		for _, p := range protocols {
			w.Header().Add("X-Accepted-Stream-Protocol-Versions", p)
		}
		http.Error(w, err.Error(), http.StatusForbidden)
		return nil, "", err
	}
	if len(offered) > 0 {
		w.Header().Set(protocolHeader, protocol)
	}
	w.Header().Set("Connection", "Upgrade")
	w.Header().Set("Upgrade", spdyName)
	w.WriteHeader(http.StatusSwitchingProtocols)
	conn, err := take(w, r)
	return conn, protocol, err
}

// spdySession is a connection on which the client opens streams.
type spdySession struct {
	conn   *spdystream.Connection
	closed chan struct{} // when the client has closed and all its frames are handled

	mu      sync.Mutex
	streams map[uint32]*spdystream.Stream
	ended   bool
}

// startSPDY serves the streams that check lets pass, each told to opened. Both
// must not block: they hold the frames that come after.
func startSPDY(conn net.Conn, cancel context.CancelFunc, limits limits, check func(http.Header) error, opened func(*spdySession, *spdystream.Stream)) (*spdySession, error) {
	library, frames, err := newSPDY(conn)
	if err != nil {
		return nil, err
	}
	s := &spdySession{conn: library, closed: make(chan struct{}), streams: map[uint32]*spdystream.Stream{}}
	library.SetIdleTimeout(limits.idle)
	go func() {
		defer close(s.closed)
		library.Serve(func(stream *spdystream.Stream) { s.open(stream, check, opened) })
	}()
	go func() {
		<-library.CloseChan() // the client has gone, or was idle for too long
		if reason := frames.reason(); reason != "" {
			slog.Warn("streaming connection ended by us", "client", conn.RemoteAddr(), "reason", reason)
		}
		cancel()
		s.end()
	}()
	return s, nil
}

func (s *spdySession) open(stream *spdystream.Stream, check func(http.Header) error, opened func(*spdySession, *spdystream.Stream)) {
	if err := check(stream.Headers()); err != nil {
		stream.Reset()
		return
	}
	// Before opened: who writes to a stream waits for this reply. Without it
	// the library would wait for ever to tell of a reset.
	if err := stream.SendReply(http.Header{}, false); err != nil {
		stream.Reset()
		return
	}
	s.mu.Lock()
	ended := s.ended
	if !ended {
		s.streams[stream.Identifier()] = stream
	}
	s.mu.Unlock()
	if ended {
		stream.Reset()
		return
	}
	opened(s, stream)
}

// forget ends streams, both ways.
func (s *spdySession) forget(streams ...*spdystream.Stream) {
	for _, stream := range streams {
		if stream == nil {
			continue
		}
		stream.Reset()
		s.mu.Lock()
		delete(s.streams, stream.Identifier())
		s.mu.Unlock()
	}
}

// end wakes all who read. The library's workers wait for readers also after
// the end of the connection, so each stream must be reset.
func (s *spdySession) end() {
	s.mu.Lock()
	s.ended = true
	streams := s.streams
	s.streams = map[uint32]*spdystream.Stream{}
	s.mu.Unlock()
	for _, stream := range streams {
		stream.Reset()
	}
}
