package stream

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"net"

	"github.com/moby/spdystream/spdy"
)

// What a client may make us hold before we know what it wants. Its streams have
// three short headers; they come compressed, a thousandth of what they say. The
// library keeps up to 250 frames.
const (
	maxControlFrame = 4 << 10
	maxHeaders      = 8
	maxHeaderSize   = 256
	// readBuffer is the most that is read from a client at a time.
	readBuffer = 16 << 10
)

// frameReader stands between a connection and the library, and takes the data
// out of the frames on their way. The library would get the memory for a whole
// frame once it knows the length, up to 16 MiB, and keep 250 of them where
// nobody counts; now it sees empty ones, from which it knows that the
// connection lives and which streams end.
//
//	data     0 stream:31 | flags:8 length:24 | ...
//	control  1 version:15 type:16 | flags:8 length:24 | ...
type frameReader struct {
	net.Conn
	in      *bufio.Reader
	streams *spdyStreams
	buffer  [8]byte
	header  []byte // what of buffer is not handed out yet
	payload int    // of the frame that was begun
	headers bool   // are what the frame carries
	refused error  // why we read no more
}

func newFrameReader(conn net.Conn, streams *spdyStreams) *frameReader {
	return &frameReader{Conn: conn, in: bufio.NewReaderSize(conn, readBuffer), streams: streams}
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
		r.headers = false
	}
	return n, err
}

// next begins a frame.
func (r *frameReader) next() error {
	r.headers = false
	if _, err := io.ReadFull(r.in, r.buffer[:]); err != nil {
		return err
	}
	length := int(binary.BigEndian.Uint32(r.buffer[4:]) & 0xffffff)
	var err error
	if r.buffer[0]&0x80 == 0 {
		err = r.data(length)
	} else {
		err = r.control(length)
	}
	r.header = r.buffer[:]
	return err
}

// data moves the data of a frame to its stream, and waits until there is room
// for all of it. It leaves a frame without any.
func (r *frameReader) data(length int) error {
	stream := r.streams.get(binary.BigEndian.Uint32(r.buffer[:]))
	for length > 0 {
		if _, err := r.in.Peek(1); err != nil {
			return err
		}
		part, err := r.in.Peek(min(length, r.in.Buffered()))
		if err != nil {
			return err
		}
		if stream != nil {
			stream.queue.Write(part)
		}
		r.in.Discard(len(part))
		length -= len(part)
	}
	if stream != nil && spdy.DataFlags(r.buffer[4])&spdy.DataFlagFin != 0 {
		stream.end()
	}
	r.payload = 0
	clear(r.buffer[5:])
	return nil
}

// control tells the streams what the frame says of them. All of it goes on to
// the library.
func (r *frameReader) control(length int) error {
	if r.payload = length; length > maxControlFrame {
		return r.refuse("control frame of %d bytes, want at most %d", length, maxControlFrame)
	}
	kind := spdy.ControlFrameType(binary.BigEndian.Uint16(r.buffer[2:]))
	r.headers = kind == spdy.TypeSynStream || kind == spdy.TypeSynReply || kind == spdy.TypeHeaders
	if kind != spdy.TypeSynStream && kind != spdy.TypeRstStream || length < 8 {
		return nil
	}
	words, err := r.in.Peek(8)
	if err != nil {
		r.headers = false
		return err
	}
	id, parent := binary.BigEndian.Uint32(words)&0x7fffffff, binary.BigEndian.Uint32(words[4:])
	if kind == spdy.TypeRstStream {
		r.streams.reset(id)
		return nil
	}
	if parent != 0 { // the library would keep it, and its parent, for as long
		return r.refuse("stream %d belongs to stream %d, want none", id, parent)
	}
	ended := spdy.ControlFlags(r.buffer[4])&spdy.ControlFlagFin != 0
	if err := r.streams.add(id, ended); err != nil {
		return r.refuse("%w", err)
	}
	return nil
}

func (r *frameReader) refuse(format string, args ...any) error {
	r.refused = fmt.Errorf(format, args...)
	return r.refused
}

// reason is why we have stopped reading, or nil if it was not for a frame. The
// library does not say it; but it was for headers if it has not come back for
// the frame after them.
func (r *frameReader) reason() error {
	if r.refused == nil && r.headers {
		return fmt.Errorf("control frame that is malformed, has more than %d headers, or one of more than %d bytes", maxHeaders, maxHeaderSize)
	}
	return r.refused
}
