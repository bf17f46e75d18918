package stream

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"os"
	goruntime "runtime"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

const (
	dialTimeout = 30 * time.Second
	// dialPatience is how long a connection waits for its turn to be made.
	dialPatience = 5 * time.Second
	// sendBuffer is what the kernel keeps for a program that does not read
	// (twice that, with its own needs); by itself it would be megabytes.
	sendBuffer = 128 << 10
)

// dial connects to a port on the loopback of a pod: programs that listen on
// all addresses answer there, and so do those that want no visitors.
func (s *Server) dial(ctx context.Context, pod string, port int32) (*net.TCPConn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	if err := s.takeTurn(ctx); err != nil {
		return nil, err
	}
	defer func() { <-s.dials }()
	conn, err := s.dialPod(ctx, pod, port)
	if err != nil {
		return nil, err
	}
	if err := conn.SetWriteBuffer(sendBuffer); err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

func (s *Server) dialPod(ctx context.Context, pod string, port int32) (*net.TCPConn, error) {
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

// takeTurn waits until fewer connections are being made than there may be: a
// port whose program accepts nothing holds each for the whole timeout.
func (s *Server) takeTurn(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, dialPatience)
	defer cancel()
	select {
	case s.dials <- struct{}{}:
		return nil
	case <-ctx.Done():
	}
	if ctx.Err() != context.DeadlineExceeded {
		return ctx.Err()
	}
	return fmt.Errorf("%d connections of all clients wait for their ports already", cap(s.dials))
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
// namespace of the thread that made it, whoever uses it later: so only that is
// done by a thread of ours, and nobody has to wait in one. A thousand forwards
// to a port that does not answer would otherwise be a thousand threads, and at
// ten thousand Go gives up the program.
func dialIn(ctx context.Context, ns *os.File, port int32) (*net.TCPConn, error) {
	conn, first := connectIn(ctx, ns, unix.AF_INET, &unix.SockaddrInet4{Port: int(port), Addr: [4]byte{127, 0, 0, 1}})
	if first == nil {
		return conn, nil
	}
	conn, err := connectIn(ctx, ns, unix.AF_INET6, &unix.SockaddrInet6{Port: int(port), Addr: [16]byte{15: 1}})
	if err != nil {
		return nil, first
	}
	return conn, nil
}

func connectIn(ctx context.Context, ns *os.File, family int, to unix.Sockaddr) (*net.TCPConn, error) {
	fd, err := socketIn(ns, family)
	if err != nil {
		return nil, err
	}
	file := os.NewFile(uintptr(fd), "tcp") // it does not block: the runtime's poller waits for it
	defer file.Close()
	if deadline, ok := ctx.Deadline(); ok {
		if err := file.SetWriteDeadline(deadline); err != nil {
			return nil, err
		}
	}
	stop := context.AfterFunc(ctx, func() {
		guarded(ctx, "give a dial up", func() { file.SetWriteDeadline(time.Unix(1, 0)) })
	})
	defer stop()
	raw, err := file.SyscallConn()
	if err != nil {
		return nil, err
	}
	begun := false
	var failed error
	err = raw.Write(func(fd uintptr) (done bool) {
		if !begun {
			begun = true
			failed = unix.Connect(int(fd), to)
			return failed != unix.EINPROGRESS
		}
		failed = connected(int(fd))
		return failed != unix.EINPROGRESS
	})
	if err = cmp.Or(failed, err); err != nil {
		return nil, fmt.Errorf("connect to %s in the pod: %w", destination(to), orDone(ctx, err))
	}
	conn, err := net.FileConn(file)
	if err != nil {
		return nil, err
	}
	return conn.(*net.TCPConn), nil
}

// connected says how a connect(2) that was begun has ended.
func connected(fd int) error {
	code, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
	if err != nil {
		return err
	}
	if code != 0 {
		return unix.Errno(code)
	}
	if _, err := unix.Getpeername(fd); err == unix.ENOTCONN {
		return unix.EINPROGRESS
	}
	return nil
}

func destination(a unix.Sockaddr) string {
	switch a := a.(type) {
	case *unix.SockaddrInet4:
		return net.JoinHostPort(net.IP(a.Addr[:]).String(), strconv.Itoa(a.Port))
	case *unix.SockaddrInet6:
		return net.JoinHostPort(net.IP(a.Addr[:]).String(), strconv.Itoa(a.Port))
	}
	return ""
}

func orDone(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// visits is how many threads may be in namespaces of pods at a time, each for
// microseconds.
var visits = make(chan struct{}, 8)

// socketIn makes a socket in a network namespace.
func socketIn(ns *os.File, family int) (int, error) {
	visits <- struct{}{}
	defer func() { <-visits }()
	goruntime.LockOSThread()
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		goruntime.UnlockOSThread()
		return -1, fmt.Errorf("own network namespace: %w", err)
	}
	defer home.Close()
	if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
		goruntime.UnlockOSThread()
		return -1, fmt.Errorf("enter the pod's network namespace: %w", err)
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if back := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); back != nil {
		// Never seen, and nothing may go on in another's network: the caller's
		// goroutine keeps the lock, and the thread ends with it.
		unix.Close(fd)
		return -1, fmt.Errorf("leave the pod's network namespace: %w", back)
	}
	goruntime.UnlockOSThread()
	return fd, err
}
