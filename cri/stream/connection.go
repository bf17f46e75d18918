package stream

import (
	"context"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// net/http forgets a connection once a handler takes it over, and the library
// cannot tell a client that has finished sending from one that has gone: both
// are the end of a stream. So the connections themselves are watched, and each
// has a context that ends with it.

// watchEvery is how often a connection that nobody reads is looked at.
const watchEvery = 2 * time.Second

// connections are the open ones, by the client's address.
type connections struct {
	mu   sync.Mutex
	open map[string]*watchedConn
}

func newConnections() *connections { return &connections{open: map[string]*watchedConn{}} }

// context returns the context of the connection from a client's address.
func (c *connections) context(client net.Addr) context.Context {
	c.mu.Lock()
	defer c.mu.Unlock()
	if conn := c.open[client.String()]; conn != nil {
		return conn.ctx
	}
	gone, cancel := context.WithCancel(context.Background())
	cancel()
	return gone
}

func (c *connections) closeAll() {
	c.mu.Lock()
	var all []*watchedConn
	for _, conn := range c.open {
		all = append(all, conn)
	}
	c.mu.Unlock()
	for _, conn := range all {
		conn.Close()
	}
}

type watchedListener struct {
	net.Listener
	conns *connections
}

func (l *watchedListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	w := &watchedConn{TCPConn: conn.(*net.TCPConn), conns: l.conns}
	w.ctx, w.cancel = context.WithCancel(context.Background())
	l.conns.mu.Lock()
	l.conns.open[conn.RemoteAddr().String()] = w
	l.conns.mu.Unlock()
	go w.watch()
	return w, nil
}

type connKey struct{}

// connContext makes the context of a request end with its connection.
func connContext(_ context.Context, c net.Conn) context.Context {
	w := c.(*watchedConn)
	return context.WithValue(w.ctx, connKey{}, w)
}

func noteTakeover(c net.Conn, state http.ConnState) {
	if state == http.StateHijacked {
		c.(*watchedConn).taken.Store(true)
	}
}

// closing closes what the library took over and forgets when a client leaves
// before it has opened all its streams.
type closing struct{ library http.Handler }

func (c closing) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.library.ServeHTTP(w, r)
	if conn := r.Context().Value(connKey{}).(*watchedConn); conn.taken.Load() {
		conn.Close()
	}
}

type watchedConn struct {
	*net.TCPConn
	conns  *connections
	ctx    context.Context
	cancel context.CancelFunc
	taken  atomic.Bool // by the library, from net/http
}

func (w *watchedConn) Read(p []byte) (int, error) {
	n, err := w.TCPConn.Read(p)
	// net/http stops its own background read with a deadline: not an end.
	if timeout, ok := err.(net.Error); err != nil && !(ok && timeout.Timeout()) {
		w.cancel()
	}
	return n, err
}

func (w *watchedConn) Close() error {
	w.cancel()
	w.conns.mu.Lock()
	if w.conns.open[w.RemoteAddr().String()] == w {
		delete(w.conns.open, w.RemoteAddr().String())
	}
	w.conns.mu.Unlock()
	return w.TCPConn.Close()
}

// watch notices a client that left while nobody reads, as when a program
// does not take its stdin and the library's queue is full.
func (w *watchedConn) watch() {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for {
		select {
		case <-w.ctx.Done():
			return
		case <-tick.C:
			if w.left() {
				w.cancel()
				return
			}
		}
	}
}

// TCP states of a connection whose other end sent its last byte (include/net/tcp_states.h).
const (
	tcpClose     = 7
	tcpCloseWait = 8
)

func (w *watchedConn) left() bool {
	raw, err := w.SyscallConn()
	if err != nil {
		return true
	}
	gone := false
	err = raw.Control(func(fd uintptr) {
		info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
		gone = err != nil || info.State == tcpClose || info.State == tcpCloseWait
	})
	return err != nil || gone
}
