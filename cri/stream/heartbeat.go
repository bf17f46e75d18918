package stream

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gorilla/websocket"
)

// heartbeat keeps a WebSocket alive and finds clients that are not. Every
// frame of the client counts, for one that waits for its own reader sends
// pings but cannot answer ours.
type heartbeat struct {
	ws      *websocket.Conn
	limits  limits
	held    *atomic.Bool  // we do not read now
	lastUse *atomic.Int64 // when data moved last, in Unix nanoseconds
	stopped chan struct{}
	once    sync.Once
}

func startHeartbeat(ctx context.Context, ws *websocket.Conn, limits limits, held *atomic.Bool, lastUse *atomic.Int64) *heartbeat {
	h := &heartbeat{ws: ws, limits: limits, held: held, lastUse: lastUse, stopped: make(chan struct{})}
	h.heard()
	ws.SetPongHandler(func(string) error { h.heard(); return nil })
	answer := ws.PingHandler()
	ws.SetPingHandler(func(text string) error { h.heard(); return answer(text) })
	begin(ctx, "heartbeat", h.run)
	return h
}

// heard is called by the reader after each frame.
func (h *heartbeat) heard() { h.ws.SetReadDeadline(time.Now().Add(h.limits.silence)) }

func (h *heartbeat) stop() { h.once.Do(func() { close(h.stopped) }) }

func (h *heartbeat) run() {
	tick := time.NewTicker(h.limits.ping)
	defer tick.Stop()
	for {
		select {
		case <-h.stopped:
			return
		case now := <-tick.C:
			if now.Sub(time.Unix(0, h.lastUse.Load())) > h.limits.idle {
				h.ws.Close()
				return
			}
			// While we do not read, the client's pings stay unanswered, and it
			// would leave us: a pong that it did not ask for keeps it.
			kind := websocket.PingMessage
			if h.held.Load() {
				kind = websocket.PongMessage
			}
			h.ws.WriteControl(kind, nil, now.Add(h.limits.ping))
		}
	}
}
