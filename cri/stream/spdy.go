package stream

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"

	"github.com/moby/spdystream"
	"github.com/moby/spdystream/spdy"
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
	ctx     context.Context // of the connection
	conn    *spdystream.Connection
	streams *spdyStreams
	closed  chan struct{} // when the client has closed and all its frames are handled

	// check says which streams may open, and opened is told of each. Neither
	// must block: they hold the frames that come after.
	check  func(http.Header) error
	opened func(*spdySession, *spdyStream)
}

// startSPDY serves streams until the client leaves, which cancels.
func (s *Server) startSPDY(ctx context.Context, cancel context.CancelFunc, conn net.Conn, check func(http.Header) error, opened func(*spdySession, *spdyStream)) (*spdySession, error) {
	streams := newSPDYStreams(ctx, s.room.part())
	frames := newFrameReader(conn, streams)
	library, err := spdystream.NewConnectionWithOptions(frames, true, spdy.WithMaxControlFramePayloadSize(maxControlFrame),
		spdy.WithMaxHeaderCount(maxHeaders), spdy.WithMaxHeaderFieldSize(maxHeaderSize))
	if err != nil {
		return nil, err
	}
	session := &spdySession{ctx: ctx, conn: library, streams: streams, closed: make(chan struct{}), check: check, opened: opened}
	library.SetIdleTimeout(s.limits.idle)
	begin(ctx, "read streams", func() {
		defer close(session.closed)
		library.Serve(func(half *spdystream.Stream) {
			guarded(ctx, "open a stream", func() { session.open(half) })
		})
	})
	begin(ctx, "end streams", func() {
		<-library.CloseChan() // the client has gone, or was idle for too long
		if reason := frames.reason(); reason != nil {
			slog.Warn("streaming connection ended by us", "client", conn.RemoteAddr(), "reason", reason)
		}
		cancel()
		session.end()
	})
	return session, nil
}

func (s *spdySession) open(half *spdystream.Stream) {
	stream := s.streams.join(half)
	if stream == nil { // the session has ended
		half.Reset()
		return
	}
	if s.check(half.Headers()) != nil {
		s.forget(stream)
		return
	}
	// Before opened: who writes to a stream waits for this reply. Without it
	// the library would wait for ever to tell of a reset.
	if half.SendReply(http.Header{}, false) != nil {
		s.forget(stream)
		return
	}
	s.opened(s, stream)
}

// forget ends streams, both ways.
func (s *spdySession) forget(streams ...*spdyStream) {
	for _, stream := range streams {
		if stream != nil {
			s.streams.remove(stream.Identifier())
			stream.drop()
		}
	}
}

// end wakes all who read.
func (s *spdySession) end() {
	for _, stream := range s.streams.end() {
		stream.drop()
	}
}
