package stream

import (
	"context"
	"fmt"
	"net"
	"os"
	goruntime "runtime"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

const dialTimeout = 30 * time.Second

// dial connects to a port on the loopback of a pod: programs that listen on
// all addresses answer there, and so do those that want no visitors.
func (s *Server) dial(ctx context.Context, pod string, port int32) (*net.TCPConn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	ns, err := s.pods.NetNS(pod)
	if err != nil {
		return nil, err
	}
	if ns == nil {
		return dialLoopback(ctx, port)
	}
	defer ns.Close()
	return dialIn(ctx, ns, port)
}

func dialLoopback(ctx context.Context, port int32) (*net.TCPConn, error) {
	var dialer net.Dialer
	var first error
	for _, host := range []string{"127.0.0.1", "::1"} {
		conn, err := dialer.DialContext(ctx, "tcp", net.JoinHostPort(host, strconv.Itoa(int(port))))
		if err == nil {
			return conn.(*net.TCPConn), nil
		}
		if first == nil {
			first = err // that of IPv4 says more: many pods have no IPv6
		}
	}
	return nil, first
}

// dialIn connects from another network namespace. A socket belongs to the
// namespace of the thread that made it, whoever uses it later; with a literal
// address the dialer makes it in the calling goroutine.
func dialIn(ctx context.Context, ns *os.File, port int32) (*net.TCPConn, error) {
	type result struct {
		conn *net.TCPConn
		err  error
	}
	done := make(chan result, 1)
	go func() {
		goruntime.LockOSThread()
		home, err := os.Open("/proc/thread-self/ns/net")
		if err != nil {
			goruntime.UnlockOSThread()
			done <- result{err: fmt.Errorf("own network namespace: %w", err)}
			return
		}
		defer home.Close()
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			goruntime.UnlockOSThread()
			done <- result{err: fmt.Errorf("enter the pod's network namespace: %w", err)}
			return
		}
		conn, err := dialLoopback(ctx, port)
		// A thread that cannot go home stays locked, and ends with this
		// goroutine; nothing else may run on it.
		if unix.Setns(int(home.Fd()), unix.CLONE_NEWNET) == nil {
			goruntime.UnlockOSThread()
		}
		done <- result{conn, err}
	}()
	r := <-done
	return r.conn, r.err
}
