package stream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gorilla/websocket"
)

// upgradeWebSocket makes a WebSocket of a request. The client has its answer
// also when there is an error. Origin is not looked at: who has the token may
// come from anywhere.
func upgradeWebSocket(w http.ResponseWriter, r *http.Request, spoken []string) (*websocket.Conn, string, error) {
	offered := websocket.Subprotocols(r)
	protocol, err := negotiate(offered, spoken, "")
	if err != nil {
		http.Error(w, err.Error(), http.StatusForbidden)
		return nil, "", err
	}
	upgrader := websocket.Upgrader{
		ReadBufferSize: 4 << 10, WriteBufferSize: 33 << 10,
		HandshakeTimeout: 30 * time.Second,
		CheckOrigin:      func(*http.Request) bool { return true },
		Error: func(w http.ResponseWriter, _ *http.Request, code int, err error) {
			http.Error(w, err.Error(), code)
		},
	}
	if protocol != "" {
		upgrader.Subprotocols = []string{protocol}
	}
	watched(r).taken.Store(true)
	ws, err := upgrader.Upgrade(w, r, nil)
	if err != nil {
		watched(r).taken.Store(false)
		return nil, "", fmt.Errorf("websocket: %w", err)
	}
	return ws, protocol, nil
}

// channels is a WebSocket that carries several streams.
type channels struct {
	ctx      context.Context // of the connection
	ws       *websocket.Conn
	protocol channelProtocol
	limits   limits
	in       map[byte]*queue // what the client may send on

	writing sync.Mutex
	closed  chan struct{} // when nothing more is read
	lastUse atomic.Int64  // when data moved last, in Unix nanoseconds
	held    atomic.Bool   // nothing is read until a queue has room
}

func newChannels(ctx context.Context, ws *websocket.Conn, p channelProtocol, limits limits, in map[byte]*queue) *channels {
	c := &channels{ctx: ctx, ws: ws, protocol: p, limits: limits, in: in, closed: make(chan struct{})}
	c.lastUse.Store(time.Now().UnixNano())
	return c
}

// serve reads until the client has gone, which cancels.
func (c *channels) serve(cancel context.CancelFunc) {
	beat := startHeartbeat(c.ctx, c.ws, c.limits, &c.held, &c.lastUse)
	err := c.read(beat)
	close(c.closed)
	cancel()
	beat.stop()
	for _, q := range c.in {
		q.end()
	}
	if !websocket.IsCloseError(err, websocket.CloseNormalClosure, websocket.CloseGoingAway) && !errors.Is(err, io.EOF) {
		slog.Debug("websocket ended", "client", c.ws.RemoteAddr(), "err", err)
	}
}

func (c *channels) read(beat *heartbeat) error {
	buffer := make([]byte, readBuffer)
	for {
		_, message, err := c.ws.NextReader()
		if err != nil {
			return err
		}
		beat.heard()
		f, err := c.protocol.decode(message)
		if errors.Is(err, errEmptyFrame) {
			continue
		}
		if err == nil && f.closes {
			if q := c.in[f.channel]; q != nil {
				q.end()
			}
		} else if err == nil {
			_, err = io.CopyBuffer(&arriving{c, beat, c.in[f.channel]}, f.data, buffer)
		}
		if err != nil {
			if isBad(err) {
				err = fmt.Errorf("channel %d: %w", f.channel, err)
				c.end(websocket.CloseProtocolError, err.Error())
			}
			return err
		}
	}
}

// arriving takes the parts of a message as they come, so that it may be as long
// as it likes.
type arriving struct {
	c    *channels
	beat *heartbeat
	to   *queue // nil for a channel that nobody asked for: dropped, as the kubelet does
}

func (a *arriving) Write(p []byte) (int, error) {
	a.c.lastUse.Store(time.Now().UnixNano())
	if a.to != nil {
		a.c.held.Store(true)
		a.to.Write(p)
		a.c.held.Store(false)
	}
	a.beat.heard()
	return len(p), nil
}

// end says that nothing more will come, and why.
func (c *channels) end(code int, why string) {
	why = why[:min(len(why), 100)] // a control frame holds 125 bytes
	c.ws.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(code, why), time.Now().Add(c.limits.farewell))
}

// writer is one channel towards the client.
func (c *channels) writer(channel byte) io.Writer { return channelWriter{c, channel} }

type channelWriter struct {
	c       *channels
	channel byte
}

func (w channelWriter) Write(p []byte) (int, error) {
	kind := websocket.BinaryMessage
	if w.c.protocol.base64 {
		kind = websocket.TextMessage
	}
	message := w.c.protocol.encode(w.channel, p)
	w.c.writing.Lock()
	defer w.c.writing.Unlock()
	// A client that reads slowly is waited for; that it has not gone is watched.
	w.c.ws.SetWriteDeadline(time.Now().Add(w.c.limits.idle))
	if err := w.c.ws.WriteMessage(kind, message); err != nil {
		return 0, err
	}
	w.c.lastUse.Store(time.Now().UnixNano())
	return len(p), nil
}

// openWebSocket makes a remote of a client that speaks WebSocket.
func (s *Server) openWebSocket(ctx context.Context, cancel context.CancelFunc, w http.ResponseWriter, r *http.Request, want wanted) (*remote, error) {
	ws, name, err := upgradeWebSocket(w, r, names(remoteProtocols))
	if err != nil {
		return nil, err
	}
	in, space := map[byte]*queue{}, s.room.part()
	if want.tty {
		in[sizeChannel] = newQueue(space)
	}
	if want.stdin {
		in[stdinChannel] = newQueue(space)
	}
	c := newChannels(ctx, ws, named(remoteProtocols, name), s.limits, in)

	side := new(remote)
	if want.tty {
		side.sizes = readSizes(ctx, in[sizeChannel])
	}
	first := c.writer(errorChannel)
	if want.stderr {
		side.errOut = c.writer(stderrChannel)
		first = side.errOut
	}
	if want.stdout {
		side.out = c.writer(stdoutChannel)
		first = side.out
	}
	if want.stdin {
		side.in = in[stdinChannel]
	}
	begin(ctx, "read channels", func() { c.serve(cancel) })
	first.Write(nil) // tells older clients that they are connected
	side.finish = func(err error) {
		if text := statusText(err, c.protocol.structured); len(text) > 0 {
			c.writer(errorChannel).Write(text)
		}
		c.end(websocket.CloseNormalClosure, "")
		for _, q := range in {
			q.Close() // nobody reads; the rest of what comes is thrown away
		}
		await(ctx, c.closed, s.limits.farewell)
		ws.Close()
	}
	return side, nil
}

func names(protocols []channelProtocol) []string {
	var all []string
	for _, p := range protocols {
		all = append(all, p.name)
	}
	return all
}

func named(protocols []channelProtocol, name string) channelProtocol {
	for _, p := range protocols {
		if p.name == name {
			return p
		}
	}
	return oldestProtocol
}
