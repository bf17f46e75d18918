package stream

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"

	"github.com/gorilla/websocket"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// peer is the client's end of one forwarded connection.
type peer interface {
	io.Reader
	io.Writer
	// CloseWrite tells the client that no more will come.
	CloseWrite() error
	// Close ends the reading.
	Close() error
}

// forward joins a client with a port in the pod. Each direction ends on its
// own.
//
// An error makes the client drop all its connections, so one is returned only
// when nothing answered at the port. A program that resets its connection is
// the client's own business.
func (s *Server) forward(ctx context.Context, pod string, port int32, client peer) error {
	defer client.Close()
	if n := s.forwarding.Add(1); n > int64(s.limits.forwards) {
		s.forwarding.Add(-1)
		return fmt.Errorf("%d connections are forwarded already, as many as for all clients together", s.limits.forwards)
	}
	defer s.forwarding.Add(-1)
	conn, err := s.dial(ctx, pod, port)
	if err != nil {
		return err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() {
		guarded(ctx, "end a forward", func() {
			conn.Close()
			client.Close()
		})
	})
	defer stop()

	sent := make(chan error, 1)
	begin(ctx, "forward to the pod", func() {
		_, err := io.Copy(conn, client)
		if broken(err) {
			client.Close() // throws away what still comes, lest it hold the others
		}
		conn.CloseWrite()
		sent <- err
	})
	_, err = io.Copy(client, conn)
	client.CloseWrite() // the client may go on sending
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

// broken tells an error that one end of a connection causes the other.
func broken(err error) bool {
	return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) || errors.Is(err, net.ErrClosed)
}

// channelPeer is a channel of a WebSocket. Neither side can end one alone.
type channelPeer struct {
	*queue
	io.Writer
}

func (p channelPeer) Write(b []byte) (int, error) { return p.Writer.Write(b) }
func (p channelPeer) CloseWrite() error           { return nil }

// forwardChannels joins ports with pairs of channels, for data and for errors.
// Each begins with its port.
func (s *Server) forwardChannels(ctx context.Context, cancel context.CancelFunc, ws *websocket.Conn, protocol channelProtocol, q *criapi.PortForwardRequest) {
	defer ws.Close()
	in, space := map[byte]*queue{}, s.room.part()
	for i := range min(len(q.Port), 5) { // as many as the text form has digits for
		in[byte(2*i)] = newQueue(space)
	}
	c := newChannels(ctx, ws, protocol, s.limits, in)
	begin(ctx, "read channels", func() { c.serve(cancel) })
	var running sync.WaitGroup
	for i := range len(in) {
		port, data, errors := q.Port[i], c.writer(byte(2*i)), c.writer(byte(2*i+1))
		name := binary.LittleEndian.AppendUint16(nil, uint16(port))
		data.Write(name)
		errors.Write(name)
		running.Go(func() {
			guarded(ctx, "forward a port", func() {
				if err := s.forward(ctx, q.PodSandboxId, port, channelPeer{in[byte(2*i)], data}); err != nil {
					fmt.Fprintf(errors, "forward port %d of pod %s: %v", port, q.PodSandboxId, err)
				}
			})
		})
	}
	running.Wait()
	c.end(websocket.CloseNormalClosure, "")
	await(ctx, c.closed, s.limits.farewell)
}
