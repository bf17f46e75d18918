package admin

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
)

// ErrLost says that the daemon went away in the middle of a conversation.
var ErrLost = errors.New("connection to the daemon lost")

// Session is a running program, seen from the client.
type Session struct {
	conn    net.Conn
	in      io.Reader // conn, with what was read ahead
	out     *frameWriter
	credits chan struct{}
}

func newSession(conn net.Conn, in io.Reader) *Session {
	s := &Session{conn: conn, in: in, out: &frameWriter{w: conn}, credits: make(chan struct{}, window)}
	for range window {
		s.credits <- struct{}{}
	}
	return s
}

// Close leaves; a program that has not ended is given up.
func (s *Session) Close() error { return s.conn.Close() }

// Resize tells the program the size of its terminal.
func (s *Session) Resize(width, height uint16) error {
	return s.out.send(kindSize, binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, width), height))
}

// Signal sends a signal to the program.
func (s *Session) Signal(number int) error { return s.out.send(kindSignal, []byte{byte(number)}) }

// Run passes the streams until the program ends, and returns its exit code.
// A read of stdin that is under way at the end stays so.
func (s *Session) Run(ctx context.Context, stdin io.Reader, stdout, stderr io.Writer) (int, error) {
	stop := context.AfterFunc(ctx, func() { s.Close() })
	defer stop()
	ended := make(chan struct{})
	defer close(ended)
	if stdin != nil {
		go s.feed(stdin, ended)
	}
	for {
		f, err := readFrame(s.in)
		if err != nil {
			if ctx.Err() != nil {
				return 0, ctx.Err()
			}
			return 0, fmt.Errorf("%w: %w", ErrLost, err)
		}
		switch f.kind {
		case kindStdout:
			_, err = stdout.Write(f.data)
		case kindStderr:
			_, err = stderr.Write(f.data)
		case kindTaken:
			select {
			case s.credits <- struct{}{}:
			default:
				return 0, fmt.Errorf("%w: too many credits", errFrame)
			}
		case kindExit:
			return int(int32(binary.BigEndian.Uint32(f.data))), nil
		case kindFailed:
			return 0, errors.New(string(f.data))
		default:
			err = errFrame
		}
		if err != nil {
			return 0, err
		}
	}
}

func (s *Session) feed(stdin io.Reader, ended <-chan struct{}) {
	buffer := make([]byte, maxFrame)
	for {
		n, err := stdin.Read(buffer)
		if n > 0 && !s.give(buffer[:n], ended) {
			return
		}
		if err != nil {
			s.give(nil, ended)
			return
		}
	}
}

// give sends one frame of stdin when the window has room for it.
func (s *Session) give(data []byte, ended <-chan struct{}) bool {
	select {
	case <-s.credits:
		return s.out.send(kindStdin, data) == nil
	case <-ended:
		return false
	}
}
