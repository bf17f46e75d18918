package stream

import (
	"bytes"
	"io"
	"strings"
	"testing"
)

func TestDecode(t *testing.T) {
	v5, v4, text := remoteProtocols[0], remoteProtocols[1], remoteProtocols[2]
	for _, test := range []struct {
		name     string
		protocol channelProtocol
		message  string
		want     message
		err      string
	}{
		{"data", v5, "\x00hi", message{channel: 0, data: "hi"}, ""},
		{"no data", v5, "\x04", message{channel: 4}, ""},
		{"nothing", v5, "", message{}, "empty"},
		{"close", v5, "\xff\x00", message{channel: 0, closes: true}, ""},
		{"close of a channel that is not", v5, "\xff\x80", message{channel: 128, closes: true}, ""},
		{"close of nothing", v5, "\xff", message{}, "without one channel"},
		{"close of two", v5, "\xff\x00\x01", message{}, "without one channel"},
		{"no close before v5", v4, "\xff\x00", message{channel: 255, data: "\x00"}, ""},
		{"base64", text, "0aGk=", message{channel: 0, data: "hi"}, ""},
		{"base64 of nothing", text, "3", message{channel: 3}, ""},
		{"base64 on a byte", text, "\x00aGk=", message{}, "want a digit"},
		{"no base64", text, "0a#bc", message{}, "illegal base64"},
		{"base64 that is cut off", text, "0aGk", message{}, "unexpected EOF"},
	} {
		got, err := decoded(test.protocol, []byte(test.message))
		if (err != nil) != (test.err != "") || (err != nil && !strings.Contains(err.Error(), test.err)) {
			t.Errorf("%s: error %v, want %q", test.name, err, test.err)
		}
		if err != nil && !isBad(err) && err != errEmptyFrame {
			t.Errorf("%s: %v is not known as the client's mistake", test.name, err)
		}
		if err == nil && got != test.want {
			t.Errorf("%s: %+v, want %+v", test.name, got, test.want)
		}
	}
}

// message is a frame that has arrived.
type message struct {
	channel byte
	data    string
	closes  bool
}

func decoded(p channelProtocol, text []byte) (message, error) {
	f, err := p.decode(bytes.NewReader(text))
	m := message{channel: f.channel, closes: f.closes}
	if err == nil && !f.closes {
		var data []byte
		data, err = io.ReadAll(f.data)
		m.data = string(data)
	}
	return m, err
}

// Whatever comes, a frame is small, and what we write is what we would read.
func FuzzDecodeFrame(f *testing.F) {
	for _, seed := range []string{"", "\x00hi", "\xff\x00", "\xff", "\xff\x00\x01", "0aGk=", "9====", "\x04{\"Width\":80,\"Height\":24}"} {
		for dialect := range remoteProtocols {
			f.Add(byte(dialect), []byte(seed))
		}
	}
	f.Fuzz(func(t *testing.T, dialect byte, text []byte) {
		p := remoteProtocols[int(dialect)%len(remoteProtocols)]
		got, err := decoded(p, text)
		if err != nil {
			if !isBad(err) && err != errEmptyFrame {
				t.Fatalf("%s: %q: %v is not known as the client's mistake", p.name, text, err)
			}
			return
		}
		if len(got.data) > len(text) || (got.closes && (!p.halfClose || got.data != "")) {
			t.Fatalf("%s: %q decodes to %+v", p.name, text, got)
		}
		if got.closes {
			return
		}
		again, err := decoded(p, p.encode(got.channel, []byte(got.data)))
		if err != nil || again != got {
			t.Fatalf("%s: %+v comes back as %+v, %v", p.name, got, again, err)
		}
	})
}

// Sizes end at the first that makes no sense, having read little beyond it.
func FuzzDecodeSizes(f *testing.F) {
	for _, seed := range []string{`{"Width":80,"Height":24}`, `{"Width":80,"Height":24}{"Width":1`, `{"Width":-1}`, `{"Width":65536}`, `[]`, "null", strings.Repeat("[", 2000), `{"Width":` + strings.Repeat("1", 2000)} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		r := bytes.NewReader(text)
		next := decodeSizes(r)
		for n := 0; ; n++ {
			left := r.Len()
			if _, err := next(); err != nil {
				return
			}
			if read := left - r.Len(); read > maxSizeText {
				t.Fatalf("one size took %d bytes", read)
			}
			if n > len(text) {
				t.Fatalf("%d sizes in %d bytes", n, len(text))
			}
		}
	})
}
