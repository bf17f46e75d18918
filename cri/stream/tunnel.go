package stream

import (
	"context"
	"fmt"
	"io"
	"net"
	"sync/atomic"
	"time"

	"github.com/gorilla/websocket"
)

// tunnel is a WebSocket whose messages are the bytes of another connection.
// Where one message ends and the next begins means nothing.
type tunnel struct {
	*websocket.Conn
	beat    *heartbeat
	message io.Reader // the rest of one
	held    atomic.Bool
	lastUse atomic.Int64
}

func newTunnel(ctx context.Context, ws *websocket.Conn, limits limits) *tunnel {
	t := &tunnel{Conn: ws}
	t.lastUse.Store(time.Now().UnixNano())
	t.beat = startHeartbeat(ctx, ws, limits, &t.held, &t.lastUse)
	return t
}

func (t *tunnel) Read(p []byte) (int, error) {
	t.held.Store(false)
	defer t.held.Store(true) // till who reads comes back
	for {
		if t.message == nil {
			t.beat.heard()
			kind, message, err := t.NextReader()
			if websocket.IsCloseError(err, websocket.CloseNormalClosure, websocket.CloseGoingAway) {
				return 0, io.EOF
			}
			if err != nil {
				return 0, err
			}
			if kind != websocket.BinaryMessage {
				return 0, fmt.Errorf("tunnel: message of type %d, want a binary one", kind)
			}
			t.message = message
		}
		n, err := t.message.Read(p)
		if err == io.EOF {
			t.message, err = nil, nil
			if n == 0 {
				continue
			}
		}
		t.lastUse.Store(time.Now().UnixNano())
		return n, err
	}
}

// Write is called by one at a time.
func (t *tunnel) Write(p []byte) (int, error) {
	if err := t.WriteMessage(websocket.BinaryMessage, p); err != nil {
		return 0, err
	}
	t.lastUse.Store(time.Now().UnixNano())
	return len(p), nil
}

func (t *tunnel) SetDeadline(at time.Time) error {
	if err := t.SetReadDeadline(at); err != nil {
		return err
	}
	return t.SetWriteDeadline(at)
}

func (t *tunnel) Close() error {
	t.beat.stop()
	bye := websocket.FormatCloseMessage(websocket.CloseNormalClosure, "")
	t.WriteControl(websocket.CloseMessage, bye, time.Now().Add(time.Second))
	return t.Conn.Close()
}

var _ net.Conn = (*tunnel)(nil)
