package stream

import (
	"container/list"
	"crypto/tls"
	"net"
	"net/http"
	"sync"
)

// maxWaiting is how many connections may be open at a time that have shown no
// token yet.
const maxWaiting = 512

// waiting are these connections, the oldest first. Everybody on the node can
// make them; each costs a descriptor and a goroutine, and who says nothing is
// only sent away after a while. A client with a token is past this within
// milliseconds, so the oldest one has to go when there are too many.
type waiting struct {
	mu    sync.Mutex
	order *list.List // of net.Conn
	place map[net.Conn]*list.Element
}

func newWaiting() *waiting { return &waiting{order: list.New(), place: map[net.Conn]*list.Element{}} }

// changed is for http.Server.ConnState.
func (w *waiting) changed(c net.Conn, state http.ConnState) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch state {
	case http.StateNew:
		w.place[c] = w.order.PushBack(c)
		if w.order.Len() > maxWaiting {
			oldest := w.order.Remove(w.order.Front()).(net.Conn)
			delete(w.place, oldest)
			hangUp(oldest)
		}
	case http.StateHijacked, http.StateClosed:
		if e := w.place[c]; e != nil {
			w.order.Remove(e)
			delete(w.place, c)
		}
	}
}

// hangUp ends a connection without a word: saying farewell over TLS could wait
// for who does not read.
func hangUp(c net.Conn) {
	if t, ok := c.(*tls.Conn); ok {
		c = t.NetConn()
	}
	c.Close()
}
