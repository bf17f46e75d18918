package monitor

import (
	"bytes"
	"fmt"
	"regexp"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// piece is a record without its time.
type piece struct{ stream, tag, content string }

func (p piece) String() string {
	return fmt.Sprintf("%s %s %d bytes %.40q", p.stream, p.tag, len(p.content), p.content)
}

// piecesOf says what records a stream should become, however it arrived.
func piecesOf(stream string, text []byte) (list []piece) {
	for line := range bytes.Lines(text) {
		line, whole := bytes.CutSuffix(line, []byte("\n"))
		for len(line) > maxLine {
			list = append(list, piece{stream, "P", string(line[:maxLine])})
			line = line[maxLine:]
		}
		if whole {
			list = append(list, piece{stream, "F", string(line)})
		} else if len(line) > 0 {
			list = append(list, piece{stream, "P", string(line)})
		}
	}
	return list
}

var recordForm = regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?Z (stdout|stderr) ([FP]) `)

// parseRecords reads a log from its format's description alone.
func parseRecords(t *testing.T, text []byte) (list []piece) {
	t.Helper()
	for line := range bytes.Lines(text) {
		head := recordForm.FindSubmatch(line)
		if head == nil || line[len(line)-1] != '\n' {
			t.Fatalf("no record: %.100q", line)
		}
		content := line[len(head[0]) : len(line)-1]
		if len(content) > maxLine {
			t.Fatalf("record of %d bytes, at most %d are allowed", len(content), maxLine)
		}
		list = append(list, piece{string(head[2]), string(head[3]), string(content)})
	}
	return list
}

// written has a container write data in the portions that cuts says, each to
// one of its two outputs, and end. High bytes of data stand for long runs, for
// it is long lines that are cut. It returns what each output got and the log.
func written(t *testing.T, data, cuts []byte) (outputs [2][]byte, records []byte) {
	var text []byte
	for _, b := range data {
		if b >= 0xf8 {
			text = append(text, bytes.Repeat([]byte{'x'}, int(b-0xf8)*4096+1)...)
		} else {
			text = append(text, b)
		}
	}
	l := newLog(1 << 30) // never flushed, therefore never written to
	tk := &task{log: l}
	streams := [2]*stream{newStream(tk, "stdout", -1), newStream(tk, "stderr", -1)}
	pass := func(to int, portion []byte) {
		portion = slices.Clone(portion) // as the monitor's buffer, it is used again
		streams[to].pass(nil, portion)
		clear(portion)
		outputs[to] = append(outputs[to], text[:len(portion)]...)
		text = text[len(portion):]
		if rest := len(streams[to].line); rest > maxLine {
			t.Fatalf("keeps %d bytes of a line", rest)
		}
	}
	for _, c := range cuts {
		n := int(c>>1) * int(c>>1)
		pass(int(c&1), text[:min(n, len(text))])
	}
	pass(0, text)
	for _, s := range streams {
		l.records(s.name, s.line, true)
	}
	return outputs, l.out
}

func addOutputs(f *testing.F) {
	f.Add([]byte("one\ntwo"), []byte{3, 4})
	f.Add([]byte("yyyy\xff\xff\xff\nz\xfc"), []byte{0x80, 0xff, 3, 0})
	f.Add([]byte("\n\n\xfc\n\xfb\xf8\n"), []byte{1, 2, 3})
	f.Add([]byte("\xfc\xf8\n\xfb\xfa\xf9\n a\r\n\x00"), []byte{254, 255, 254})
}

// What a container wrote can be put together again from its log, byte for byte.
func FuzzRecordsLoseNothing(f *testing.F) {
	addOutputs(f)
	f.Fuzz(func(t *testing.T, data, cuts []byte) {
		outputs, records := written(t, data, cuts)
		got := parseRecords(t, records)
		for i, name := range []string{"stdout", "stderr"} {
			var mine []piece
			for _, p := range got {
				if p.stream == name {
					mine = append(mine, p)
				}
			}
			if want := piecesOf(name, outputs[i]); !slices.Equal(mine, want) {
				t.Fatalf("%d bytes to %s became\n%v\nwant\n%v", len(outputs[i]), name, mine, want)
			}
		}
	})
}

// Wherever a monitor was killed in a write, the whole records stay and nothing
// of the others.
func FuzzTornLog(f *testing.F) {
	addOutputs(f)
	f.Fuzz(func(t *testing.T, data, cuts []byte) {
		_, records := written(t, data, cuts)
		fd, err := unix.MemfdCreate("log", unix.MFD_CLOEXEC)
		if err != nil {
			t.Fatal(err)
		}
		l := newLog(fd)
		defer l.close()
		kept := len(records)
		if len(cuts) > 0 {
			kept = kept * int(cuts[0]) / 255
		}
		if err := l.write(records[:kept]); err != nil {
			t.Fatal(err)
		}
		l.mend()
		got := make([]byte, kept+1)
		n, err := unix.Pread(fd, got, 0)
		if err != nil {
			t.Fatal(err)
		}
		if want := records[:bytes.LastIndexByte(records[:kept], '\n')+1]; !bytes.Equal(got[:n], want) {
			t.Fatalf("%d bytes became %d, want %d", kept, n, len(want))
		}
	})
}
