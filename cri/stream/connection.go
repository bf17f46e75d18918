package stream

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// net/http forgets a connection once a handler takes it over, and the end of
// a stream does not tell a client that has finished sending from one that has
// gone. So the connections themselves are watched, and each has a context that
// ends with it.

// watchEvery is how often a connection that nobody reads is looked at.
const watchEvery = 2 * time.Second

// A client that fell silent, as its machine lost power, is found by the
// kernel's probes after about a minute.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: 30 * time.Second, Interval: 10 * time.Second, Count: 3}

// connections are the open ones.
type connections struct {
	mu   sync.Mutex
	open map[*watchedConn]struct{}
}

func newConnections() *connections { return &connections{open: map[*watchedConn]struct{}{}} }

func (c *connections) closeAll() {
	c.mu.Lock()
	var all []*watchedConn
	for conn := range c.open {
		all = append(all, conn)
	}
	c.mu.Unlock()
	for _, conn := range all {
		conn.Close()
	}
}

type watchedListener struct {
	*net.TCPListener
	conns  *connections
	probes func(*net.TCPConn) error // sets them up
}

func newWatchedListener(l *net.TCPListener, conns *connections) *watchedListener {
	return &watchedListener{l, conns, func(c *net.TCPConn) error { return c.SetKeepAliveConfig(keepAlive) }}
}

// acceptPause is how long no connection is taken when one could not be.
const acceptPause = 200 * time.Millisecond

// Accept fails only when the listener is closed, for that ends the server. The
// node may have no descriptors or memory left for the moment.
func (l *watchedListener) Accept() (net.Conn, error) {
	for waited := false; ; {
		conn, err := l.AcceptTCP()
		if err == nil {
			if err = l.probes(conn); err == nil {
				return l.watched(conn), nil
			}
			slog.Warn("streaming connection ended by us", "client", conn.RemoteAddr(), "reason", err)
			conn.Close()
			continue
		}
		if errors.Is(err, net.ErrClosed) {
			return nil, err
		}
		if !waited {
			slog.Warn("no streaming connections for the moment", "err", err)
		}
		waited = true
		time.Sleep(acceptPause)
	}
}

func (l *watchedListener) watched(conn *net.TCPConn) *watchedConn {
	w := &watchedConn{TCPConn: conn, conns: l.conns}
	w.ctx, w.cancel = context.WithCancel(context.WithValue(context.Background(), connKey{}, w))
	l.conns.mu.Lock()
	l.conns.open[w] = struct{}{}
	l.conns.mu.Unlock()
	begin(w.ctx, "watch a client", w.watch)
	return w
}

type connKey struct{}

// connContext makes the context of a request end with its connection.
func connContext(_ context.Context, c net.Conn) context.Context {
	if t, ok := c.(*tls.Conn); ok {
		c = t.NetConn()
	}
	return c.(*watchedConn).ctx
}

// take takes a connection over from net/http, with what was read of it already.
func take(w http.ResponseWriter, r *http.Request) (net.Conn, error) {
	watched(r).taken.Store(true)
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return nil, err
	}
	if buffered.Reader.Buffered() > 0 {
		return &readAhead{Conn: conn, ahead: buffered.Reader}, nil
	}
	return conn, nil
}

func watched(r *http.Request) *watchedConn { return r.Context().Value(connKey{}).(*watchedConn) }

// closeTaken ends a connection that was taken over, however its session ended.
func closeTaken(r *http.Request) {
	if conn := watched(r); conn.taken.Load() {
		conn.Close()
	}
}

// readAhead is a connection of which some bytes were read already.
type readAhead struct {
	net.Conn
	ahead interface{ Read([]byte) (int, error) }
}

func (c *readAhead) Read(p []byte) (int, error) { return c.ahead.Read(p) }

type watchedConn struct {
	*net.TCPConn
	conns  *connections
	ctx    context.Context
	cancel context.CancelFunc
	taken  atomic.Bool // from net/http
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
	delete(w.conns.open, w)
	w.conns.mu.Unlock()
	return w.TCPConn.Close()
}

// watch notices a client that left while nobody reads, as when a program
// does not take its stdin and our queues are full.
func (w *watchedConn) watch() {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for {
		select {
		case <-w.ctx.Done():
			return
		case <-tick.C:
			if w.left() {
				w.Close() // and what we are about to write fails
				return
			}
		}
	}
}

// TCP states of a connection whose other end sent its last byte (include/net/tcp_states.h).
const (
	tcpEstablished = 1
	tcpClose       = 7
	tcpCloseWait   = 8
)

// silent tells a client that has not acknowledged for long what it was sent
// again and again: the kernel would try for a quarter of an hour, and keeps
// its probes for a connection with nothing under way. One that takes nothing
// because its user has stopped it still acknowledges.
func silent(info *unix.TCPInfo) bool {
	limit := keepAlive.Idle + time.Duration(keepAlive.Count)*keepAlive.Interval
	return (info.Retransmits > 0 || info.Probes > 1) && time.Duration(info.Last_ack_recv)*time.Millisecond > limit
}

func (w *watchedConn) left() bool {
	raw, err := w.SyscallConn()
	if err != nil {
		return true
	}
	gone, unread := false, 0
	err = raw.Control(func(fd uintptr) {
		info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
		gone = err != nil || info.State == tcpClose || info.State == tcpCloseWait || silent(info)
		unread, _ = unix.IoctlGetInt(int(fd), unix.SIOCINQ)
	})
	if err == nil && !gone && unread > 0 {
		gone = othersEnd(w.LocalAddr(), w.RemoteAddr())
	}
	return err != nil || gone
}

// unsent tells whether the client has not yet acknowledged all we wrote.
func (w *watchedConn) unsent() bool {
	raw, err := w.SyscallConn()
	if err != nil {
		return false
	}
	n := 0
	err = raw.Control(func(fd uintptr) { n, _ = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ) })
	return err == nil && n > 0
}
