package admin

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
)

func TestFramesComeOutAsTheyWentIn(t *testing.T) {
	var wire bytes.Buffer
	w := &frameWriter{w: &wire}
	long := strings.Repeat("x", 3*maxFrame+1)
	if n, err := (stream{w, kindStdout}).Write([]byte(long)); n != len(long) || err != nil {
		t.Fatalf("Write = %d, %v", n, err)
	}
	w.send(kindTaken, nil)
	var got strings.Builder
	for {
		f, err := readFrame(&wire)
		if err != nil {
			t.Fatal(err)
		}
		if f.kind == kindTaken {
			break
		}
		got.Write(f.data)
	}
	if got.String() != long {
		t.Fatalf("%d bytes came out, want %d", got.Len(), len(long))
	}
}

func TestBadFramesAreRefused(t *testing.T) {
	for name, wire := range map[string]string{
		"unknown kind":      "?\x00\x00\x00\x00",
		"too long":          "i\x00\x00\x80\x01",
		"endless":           "o\xff\xff\xff\xff",
		"cut short":         "i\x00\x00\x00\x05abc",
		"signal of 2 bytes": "s\x00\x00\x00\x02ab",
		"size of 1 byte":    "w\x00\x00\x00\x01a",
		"taken with bytes":  "t\x00\x00\x00\x01a",
	} {
		if _, err := readFrame(strings.NewReader(wire)); !errors.Is(err, errFrame) {
			t.Errorf("%s: %v, want a bad frame", name, err)
		}
	}
	if _, err := readFrame(strings.NewReader("")); err != io.EOF {
		t.Errorf("the end: %v, want EOF", err)
	}
}

func FuzzReadFrame(f *testing.F) {
	f.Add([]byte("i\x00\x00\x00\x03abc"))
	f.Add([]byte("x\x00\x00\x00\x04\x00\x00\x00\x80"))
	f.Add([]byte("o\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, wire []byte) {
		r := bytes.NewReader(wire)
		for {
			one, err := readFrame(r)
			if err != nil {
				return
			}
			var again bytes.Buffer
			(&frameWriter{w: &again}).send(one.kind, one.data)
			if back, err := readFrame(&again); err != nil || back.kind != one.kind || !bytes.Equal(back.data, one.data) {
				t.Fatalf("frame %v came back as %v, %v", one, back, err)
			}
		}
	})
}
