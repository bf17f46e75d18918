package stream

import (
	"bytes"
	"strings"
	"testing"
)

func TestDecode(t *testing.T) {
	v5, v4, text := remoteProtocols[0], remoteProtocols[1], remoteProtocols[2]
	for _, test := range []struct {
		name     string
		protocol channelProtocol
		message  string
		want     frame
		err      string
	}{
		{"data", v5, "\x00hi", frame{channel: 0, data: []byte("hi")}, ""},
		{"no data", v5, "\x04", frame{channel: 4}, ""},
		{"nothing", v5, "", frame{}, "empty"},
		{"close", v5, "\xff\x00", frame{channel: 0, closes: true}, ""},
		{"close of a channel that is not", v5, "\xff\x80", frame{channel: 128, closes: true}, ""},
		{"close of nothing", v5, "\xff", frame{}, "0 bytes"},
		{"close of two", v5, "\xff\x00\x01", frame{}, "2 bytes"},
		{"no close before v5", v4, "\xff\x00", frame{channel: 255, data: []byte{0}}, ""},
		{"base64", text, "0aGk=", frame{channel: 0, data: []byte("hi")}, ""},
		{"base64 of nothing", text, "3", frame{channel: 3}, ""},
		{"base64 on a byte", text, "\x00aGk=", frame{}, "want a digit"},
		{"no base64", text, "0a#", frame{}, "illegal base64"},
	} {
		got, err := test.protocol.decode([]byte(test.message))
		if (err != nil) != (test.err != "") || (err != nil && !strings.Contains(err.Error(), test.err)) {
			t.Errorf("%s: error %v, want %q", test.name, err, test.err)
		}
		if err == nil && (got.channel != test.want.channel || got.closes != test.want.closes || !bytes.Equal(got.data, test.want.data)) {
			t.Errorf("%s: %+v, want %+v", test.name, got, test.want)
		}
	}
}

// Whatever comes, a frame is small, and what we write is what we would read.
func FuzzDecodeFrame(f *testing.F) {
	for _, seed := range []string{"", "\x00hi", "\xff\x00", "\xff", "\xff\x00\x01", "0aGk=", "9====", "\x04{\"Width\":80,\"Height\":24}"} {
		for dialect := range remoteProtocols {
			f.Add(byte(dialect), []byte(seed))
		}
	}
	f.Fuzz(func(t *testing.T, dialect byte, message []byte) {
		p := remoteProtocols[int(dialect)%len(remoteProtocols)]
		got, err := p.decode(message)
		if err != nil {
			return
		}
		if len(got.data) > len(message) || (got.closes && (!p.halfClose || got.data != nil)) {
			t.Fatalf("%s: %q decodes to %+v", p.name, message, got)
		}
		if got.closes {
			return
		}
		again, err := p.decode(p.encode(got.channel, got.data))
		if err != nil || again.channel != got.channel || !bytes.Equal(again.data, got.data) {
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
