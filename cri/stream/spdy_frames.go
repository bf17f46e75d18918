package stream

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync/atomic"

	"github.com/moby/spdystream"
	"github.com/moby/spdystream/spdy"
)

// What a client may make us hold before we know what it wants. Its streams have
// three short headers; they come compressed, a thousandth of what they say.
const (
	maxControlFrame = 16 << 10
	maxHeaders      = 16
	maxHeaderSize   = 1 << 10
)

// frameReader stands between a connection and the library, which ends in silence
// at a frame that it does not take: it knows why, and ends at a control frame
// that is too long before its payload is read.
//
//	data     0 stream:31 | flags:8 length:24 | ...
//	control  1 version:15 type:16 | flags:8 length:24 | ...
type frameReader struct {
	net.Conn
	in      *bufio.Reader
	buffer  [8]byte
	header  []byte       // what of buffer is not handed out yet
	payload int          // of the frame that was begun
	headers atomic.Bool  // are what the frame carries
	long    atomic.Int64 // a control frame that we do not take
}

var errLongFrame = errors.New("control frame is too long")

func newSPDY(conn net.Conn) (*spdystream.Connection, *frameReader, error) {
	r := &frameReader{Conn: conn, in: bufio.NewReader(conn)}
	library, err := spdystream.NewConnectionWithOptions(r, true, spdy.WithMaxControlFramePayloadSize(maxControlFrame),
		spdy.WithMaxHeaderCount(maxHeaders), spdy.WithMaxHeaderFieldSize(maxHeaderSize))
	return library, r, err
}

func (r *frameReader) Read(p []byte) (int, error) {
	if len(r.header) == 0 && r.payload == 0 {
		if err := r.next(); err != nil {
			return 0, err
		}
	}
	if len(r.header) > 0 {
		n := copy(p, r.header)
		r.header = r.header[n:]
		return n, nil
	}
	n, err := r.in.Read(p[:min(len(p), r.payload)])
	if r.payload -= n; err != nil {
		r.headers.Store(false)
	}
	return n, err
}

// next begins a frame.
func (r *frameReader) next() error {
	r.headers.Store(false)
	if _, err := io.ReadFull(r.in, r.buffer[:]); err != nil {
		return err
	}
	r.header, r.payload = r.buffer[:], int(binary.BigEndian.Uint32(r.buffer[4:])&0xffffff)
	if r.buffer[0]&0x80 == 0 {
		return nil
	}
	if r.payload > maxControlFrame {
		r.long.Store(int64(r.payload))
		return errLongFrame
	}
	kind := spdy.ControlFrameType(binary.BigEndian.Uint16(r.buffer[2:]))
	r.headers.Store(kind == spdy.TypeSynStream || kind == spdy.TypeSynReply || kind == spdy.TypeHeaders)
	return nil
}

// reason is why we have stopped reading, or empty if it was not for a frame. The
// library does not say it; but it was for headers if it has not come back for
// the frame after them.
func (r *frameReader) reason() string {
	if long := r.long.Load(); long > 0 {
		return fmt.Sprintf("control frame of %d bytes, want at most %d", long, maxControlFrame)
	}
	if r.headers.Load() {
		return fmt.Sprintf("control frame that is malformed, has more than %d headers, or one of more than %d bytes", maxHeaders, maxHeaderSize)
	}
	return ""
}
