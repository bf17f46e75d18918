package stream

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"net"
	"net/http"
	"testing"
	"time"
)

// Whatever a client sends, its session ends with it, without a panic, and gives
// back all its room. What comes on a stream that we read is what was sent.
func FuzzSPDY(f *testing.F) {
	open := openStreams(f, http.Header{"streamtype": {"error"}}, http.Header{"streamtype": {"stdin"}}, http.Header{"streamtype": {"resize"}})
	for _, rest := range []string{
		"",
		"\x00\x00\x00\x03\x00\x00\x00\x05hello\x00\x00\x00\x03\x01\x00\x00\x00", // data, end
		"\x00\x00\x00\x03\x01\x00\x00\x02hi\x00\x00\x00\x03\x00\x00\x00\x01x",   // data after the end
		"\x00\x00\x00\x03\x00\xff\xff\xffx",                                     // a long one, cut off
		"\x80\x03\x00\x03\x00\x00\x00\x08\x00\x00\x00\x03\x00\x00\x00\x05",      // reset
		"\x80\x03\x00\x06\x00\x00\x00\x04\x00\x00\x00\x01",                      // ping
		"\x80\x03\x00\x07\x00\x00\x00\x08\x00\x00\x00\x05\x00\x00\x00\x00",      // go away
		"\x80\x03\x00\x04\x00\x00\x00\x0c\x00\x00\x00\x01\x04\x00\x00\x00\x00\x00\x00\x01",
		"\x80\x03\x00\x02\x00\x00\x00\x04\x00\x00\x00\x03", // reply to a stream of its own
		"\x80\x03\x00\x01\x00\x00\x00\x02\x00\x00",         // too short to open one
		"\x80\x03\x00\x01\x00\x00\x00\x04\x00\x00\x00\x07",
		"\x80\x03\x00\x08\x00\x00\x00\x04\x00\x00\x00\x03",
		string(open), // again
		"\x80\x03\x00\x01\x00\x00\x00\x0a\x00\x00\x00\x07\x00\x00\x00\x05\x00\x00", // a child
	} {
		f.Add([]byte(rest))
	}
	f.Fuzz(func(t *testing.T, rest []byte) {
		s := &Server{room: &room{limit: serverRoom}, limits: defaultLimits}
		theirs, ours := net.Pipe()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		streams := expectStreams(wanted{stdin: true, tty: true}, true)
		session, err := s.startSPDY(ctx, cancel, ours, streams.check, streams.opened)
		if err != nil {
			t.Fatal(err)
		}
		wire := append(bytes.Clone(open), rest...)
		go io.Copy(io.Discard, theirs)
		got := make(chan []byte, 1)
		go func() {
			var data []byte
			select {
			case <-streams.complete:
				data, _ = io.ReadAll(streams.byType["stdin"])
			case <-ctx.Done():
			}
			got <- data
		}()
		theirs.Write(wire)
		theirs.Close()
		select {
		case <-session.closed:
		case <-time.After(10 * time.Second):
			t.Fatal("the session does not end")
		}
		if data := <-got; !bytes.HasPrefix(sentOn(3, wire), data) {
			t.Fatalf("stdin got %q of %q", data, sentOn(3, wire))
		}
		for range 1000 {
			if s.room.used.Load() == 0 {
				return
			}
			time.Sleep(time.Millisecond)
		}
		t.Fatalf("%d bytes of room are not given back", s.room.used.Load())
	})
}

// sentOn is the data of a stream in frames, read in the plainest way.
func sentOn(id uint32, wire []byte) []byte {
	var data []byte
	for len(wire) >= 8 {
		first, second := binary.BigEndian.Uint32(wire), binary.BigEndian.Uint32(wire[4:])
		part := wire[8:min(len(wire), 8+int(second&0xffffff))]
		if first == id {
			data = append(data, part...)
		}
		wire = wire[8+len(part):]
	}
	return data
}
