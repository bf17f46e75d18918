package admin

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
)

// A conversation with a program, after the request for it was accepted:
//
//	client                           daemon
//	  exec, attach or run  ────────▶
//	                       ◀────────  101, or an error in words
//	  stdin, signal, size  ────────▶
//	                       ◀────────  stdout, stderr
//	                       ◀────────  taken (one stdin frame, of window open ones)
//	  stdin, empty         ────────▶                its end
//	                       ◀────────  exit, or failed: the last frame
//
// A client that closes before the last frame gives the program up. The window
// keeps stdin from holding up what comes behind it: a signal must get through
// to a program that reads nothing.
//
// A frame is a kind, a length of four bytes in network order, and as many
// bytes.
const (
	kindStdin  kind = 'i'
	kindSignal kind = 's' // one byte
	kindSize   kind = 'w' // width and height, two bytes each

	kindStdout kind = 'o'
	kindStderr kind = 'e'
	kindTaken  kind = 't' // empty
	kindExit   kind = 'x' // code of four bytes
	kindFailed kind = 'f' // words
)

type kind byte

const (
	maxFrame = 32 << 10
	window   = 16
)

var errFrame = errors.New("bad frame")

type frame struct {
	kind kind
	data []byte
}

// readFrame checks all that can be checked of one frame alone.
func readFrame(r io.Reader) (frame, error) {
	var head [5]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return frame{}, err
	}
	f := frame{kind: kind(head[0])}
	length := binary.BigEndian.Uint32(head[1:])
	if !f.fits(length) {
		return frame{}, fmt.Errorf("%w: kind %q of %d bytes", errFrame, head[0], length)
	}
	f.data = make([]byte, length)
	if _, err := io.ReadFull(r, f.data); err != nil {
		return frame{}, fmt.Errorf("%w: cut short: %w", errFrame, err)
	}
	return f, nil
}

func (f frame) fits(length uint32) bool {
	switch f.kind {
	case kindSignal:
		return length == 1
	case kindSize, kindExit:
		return length == 4
	case kindTaken:
		return length == 0
	case kindStdin, kindStdout, kindStderr, kindFailed:
		return length <= maxFrame
	}
	return false
}

// frameWriter writes whole frames, from several goroutines.
type frameWriter struct {
	mu sync.Mutex
	w  io.Writer
}

func (w *frameWriter) send(k kind, data []byte) error {
	if len(data) > maxFrame {
		data = data[:maxFrame]
	}
	packet := make([]byte, 5, 5+len(data))
	packet[0] = byte(k)
	binary.BigEndian.PutUint32(packet[1:], uint32(len(data)))
	w.mu.Lock()
	defer w.mu.Unlock()
	_, err := w.w.Write(append(packet, data...))
	return err
}

// stream is an io.Writer whose bytes go out as frames of one kind.
type stream struct {
	w *frameWriter
	k kind
}

func (s stream) Write(p []byte) (int, error) {
	for done := 0; done < len(p); {
		part := p[done:min(len(p), done+maxFrame)]
		if err := s.w.send(s.k, part); err != nil {
			return done, err
		}
		done += len(part)
	}
	return len(p), nil
}
