package stream

import (
	"context"
	"errors"
	"io"
	"net"
	"syscall"
	"time"
)

// resetEvery is how often a stream is asked whether the client has reset it,
// once it has stopped sending.
const resetEvery = 250 * time.Millisecond

// PortForward joins one data stream of the client with one connection to a
// port in the pod. Each direction ends on its own.
//
// An error makes the client drop all its streams, so one is returned only
// when nothing answered at the port. A program that resets its connection is
// the client's own business.
func (r *runtime) PortForward(_ context.Context, pod string, port int32, stream io.ReadWriteCloser) error {
	ctx, cancel := r.streamContext(stream)
	defer cancel()
	conn, err := r.dial(ctx, pod, port)
	if err != nil {
		return err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() {
		conn.Close()
		reset(stream)
	})
	defer stop()

	sent := make(chan error, 1)
	go func() {
		_, err := io.Copy(conn, stream)
		conn.CloseWrite()
		sent <- err
		r.closeAfterReset(ctx, conn, stream)
	}()
	_, err = io.Copy(stream, conn)
	stream.Close() // the client learns that no more will come, and may go on sending
	if !broken(err) {
		select {
		case err = <-sent:
		case <-ctx.Done():
		}
	}
	if err != nil && !broken(err) && ctx.Err() == nil {
		return err
	}
	return nil
}

// streamContext ends with the connection that a stream belongs to: the
// library's own context never does.
func (r *runtime) streamContext(stream io.ReadWriteCloser) (context.Context, context.CancelFunc) {
	if s, ok := stream.(interface{ RemoteAddr() net.Addr }); ok {
		return context.WithCancel(r.conns.context(s.RemoteAddr()))
	}
	return context.WithCancel(context.Background()) // WebSocket: no half close, the end of the stream is the end
}

// closeAfterReset ends the connection to the pod when the stream was not half
// closed but reset: the client wants no answer.
func (r *runtime) closeAfterReset(ctx context.Context, conn *net.TCPConn, stream io.ReadWriteCloser) {
	s, ok := stream.(interface{ IsFinished() bool })
	if !ok {
		conn.Close()
		return
	}
	tick := time.NewTicker(resetEvery)
	defer tick.Stop()
	for !s.IsFinished() {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
	conn.Close()
}

// reset ends both directions of a stream and wakes who reads it; a close is
// only a half.
func reset(stream io.ReadWriteCloser) {
	if s, ok := stream.(interface{ Reset() error }); ok {
		s.Reset()
		return
	}
	stream.Close()
}

// broken tells an error that one end of a connection causes the other.
func broken(err error) bool {
	return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) || errors.Is(err, net.ErrClosed)
}
