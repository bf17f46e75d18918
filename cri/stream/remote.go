package stream

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/gorilla/websocket"
)

// wanted are the streams that a request asked for.
type wanted struct{ stdin, stdout, stderr, tty bool }

// remote is the client's side of exec or attach.
type remote struct {
	in          io.Reader // nil if not wanted, as the outputs
	out, errOut io.Writer
	sizes       <-chan size // of the client's terminal
	// finish tells the client how it went and ends the connection.
	finish func(error)
}

// serveRemote runs a program's side against a client's.
func (s *Server) serveRemote(w http.ResponseWriter, r *http.Request, want wanted, run func(context.Context, *remote) error) {
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	open := s.openSPDY
	if websocket.IsWebSocketUpgrade(r) {
		open = s.openWebSocket
	}
	c, err := open(ctx, cancel, w, r, want)
	if err != nil {
		slog.Debug("streaming connection not made", "path", r.URL.Path, "err", err)
		return
	}
	s.remotes.Add(1)
	defer s.remotes.Add(-1)
	// Only what is run is cut off when we end, for the client is still to hear it.
	running, cut := context.WithCancelCause(ctx)
	defer cut(nil)
	defer context.AfterFunc(s.ending, func() { guarded(ctx, "end a client's program", func() { cut(errEnding) }) })()
	err = run(running, c)
	if context.Cause(running) == errEnding {
		err = errEnding
	}
	c.finish(err)
}

// negotiate picks the first of the client's protocols that we speak. A client
// that names none gets the oldest.
func negotiate(offered, spoken []string, oldest string) (string, error) {
	if len(offered) == 0 {
		return oldest, nil
	}
	for _, o := range offered {
		if slices.Contains(spoken, o) {
			return o, nil
		}
	}
	return "", fmt.Errorf("protocol %q: want one of %s", strings.Join(offered, ", "), strings.Join(spoken, ", "))
}

// await waits for a client to close, so that what we wrote last is read: a
// connection that is closed with bytes unread takes them back. As long as some
// are still on their way to a slow client, it may take longer than the limit.
func await(ctx context.Context, closed <-chan struct{}, limit time.Duration) {
	conn := ctx.Value(connKey{}).(*watchedConn)
	tick := time.NewTicker(limit)
	defer tick.Stop()
	for {
		select {
		case <-closed:
			return
		case <-conn.ctx.Done():
			return
		case <-tick.C:
			if !conn.unsent() {
				return
			}
		}
	}
}
