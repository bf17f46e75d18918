package cri

import (
	"context"
	"fmt"
	"net"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/peer"

	"cri-mini/podsandbox/history"
)

// callers lets each connection tell who is at its other end, so that it can be
// remembered who asked for what.
type callers struct{ net.Listener }

func (l callers) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	if unixConn, ok := conn.(*net.UnixConn); ok {
		return calling{unixConn, caller(callerOf(unixConn))}, nil
	}
	return conn, nil
}

type calling struct {
	*net.UnixConn
	from caller
}

func (c calling) RemoteAddr() net.Addr { return c.from }

// caller is a process as gRPC carries it: as an address. It is "kubelet[812]".
type caller string

func (caller) Network() string  { return "unix" }
func (c caller) String() string { return string(c) }

// callerOf asks the kernel, who noted at the connect who it was. The name is that
// of now, which is the same unless the process has already ended.
func callerOf(conn *net.UnixConn) string {
	const unknown = "somebody"
	raw, err := conn.SyscallConn()
	if err != nil {
		return unknown
	}
	var cred *unix.Ucred
	if raw.Control(func(fd uintptr) { cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }) != nil || err != nil {
		return unknown
	}
	name := "process"
	if comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", cred.Pid)); err == nil {
		name = strings.TrimSpace(string(comm))
	}
	return fmt.Sprintf("%s[%d]", name, cred.Pid)
}

// asked notes which call a context belongs to, and whose: "StopPodSandbox of
// kubelet[812]".
func asked(ctx context.Context, method string) context.Context {
	who := path.Base(method)
	if p, ok := peer.FromContext(ctx); ok {
		if c, ok := p.Addr.(caller); ok {
			who += " of " + string(c)
		}
	}
	return history.Asked(ctx, who)
}
