package gunzip

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"
	"testing/iotest"

	klauspost "github.com/klauspost/compress/gzip"
)

func inflate(r io.Reader) ([]byte, error) {
	z := NewReader(r)
	defer z.Close()
	return io.ReadAll(z)
}

func standard(data []byte) ([]byte, error) {
	z, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	return io.ReadAll(z)
}

// agree holds that a file means the same to the standard library and to us, or
// is refused by both.
func agree(t *testing.T, file []byte) {
	t.Helper()
	want, wantErr := standard(file)
	got, err := inflate(bytes.NewReader(file))
	switch {
	case (err == nil) != (wantErr == nil):
		t.Fatalf("got error %v, the standard library %v", err, wantErr)
	case err == nil && !bytes.Equal(got, want):
		t.Fatalf("got %d bytes that are not the %d of the standard library", len(got), len(want))
	}
}

func compress(t testing.TB, level int, data []byte) []byte {
	var b bytes.Buffer
	z, err := klauspost.NewWriterLevel(&b, level)
	if err != nil {
		t.Fatal(err)
	}
	z.Write(data)
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// contents of all kinds, of up to a megabyte.
func contents() map[string][]byte {
	r := rand.New(rand.NewPCG(1, 2))
	made := map[string][]byte{"empty": nil, "one byte": {7}, "zeros": make([]byte, 1<<20)}
	noise := make([]byte, 700<<10)
	for i := range noise {
		noise[i] = byte(r.Uint32())
	}
	made["noise"] = noise
	var skewed []byte // so that codes become as long as they can
	for len(skewed) < 1<<20 {
		skewed = append(skewed, byte(r.ExpFloat64()*3))
	}
	made["skewed"] = skewed
	for _, period := range []int{2, 3, 5, 7, 8, 9, 300} {
		made[fmt.Sprint("period of ", period)] = bytes.Repeat(noise[:period], 200000/period)
	}
	made["far matches"] = bytes.Repeat(noise[:window], 20)
	made["text"] = text(1 << 20)
	return made
}

// text is compressed about as well as programs are.
func text(size int) []byte {
	r := rand.New(rand.NewPCG(3, 4))
	var out []byte
	for len(out) < size {
		out = binary.LittleEndian.AppendUint32(out, r.Uint32()>>8)
		out = append(out, "some text "[:r.IntN(10)]...)
	}
	return out[:size]
}

func TestAllThatIsCompressedComesBack(t *testing.T) {
	for name, data := range contents() {
		for _, level := range []int{gzip.HuffmanOnly, 0, 1, 6, 9} {
			t.Run(fmt.Sprint(name, "/", level), func(t *testing.T) {
				file := compress(t, level, data)
				for how, r := range map[string]io.Reader{
					"whole": bytes.NewReader(file), "halves": iotest.HalfReader(bytes.NewReader(file)),
					"with its end": iotest.DataErrReader(bytes.NewReader(file)),
				} {
					got, err := inflate(r)
					if err != nil || !bytes.Equal(got, data) {
						t.Errorf("%s: got %d bytes, error %v; want %d bytes", how, len(got), err, len(data))
					}
				}
			})
		}
	}
}

func TestSourceThatGivesByteByByte(t *testing.T) {
	data := text(100 << 10)
	got, err := inflate(iotest.OneByteReader(bytes.NewReader(compress(t, 6, data))))
	if err != nil || !bytes.Equal(got, data) {
		t.Errorf("got %d bytes, error %v", len(got), err)
	}
}

func TestFileThatIsCutOffAnywhereIsRefused(t *testing.T) {
	for name, data := range map[string][]byte{"described": text(3000), "fixed": []byte("hello hello"), "stored": {1, 2, 3}, "empty": nil} {
		level := 6
		if name == "stored" {
			level = 0
		}
		file := compress(t, level, data)
		for n := range file {
			if _, err := inflate(bytes.NewReader(file[:n])); !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, errCorrupt) {
				t.Errorf("%s: %d of %d bytes: error %v, want that it is cut off", name, n, len(file), err)
			}
		}
	}
}

func TestFileWithOneBitChangedIsRefusedOrMeansTheSame(t *testing.T) {
	file := compress(t, 6, text(2000))
	for i := range len(file) * 8 {
		changed := bytes.Clone(file)
		changed[i/8] ^= 1 << (i % 8)
		agree(t, changed)
	}
}

func TestMembersFollowEachOther(t *testing.T) {
	a, b := text(400<<10), bytes.Repeat([]byte("b"), 50000)
	file := append(compress(t, 6, a), append(compress(t, 9, nil), compress(t, 1, b)...)...)
	got, err := inflate(bytes.NewReader(file))
	if err != nil || !bytes.Equal(got, append(bytes.Clone(a), b...)) {
		t.Errorf("got %d bytes, error %v", len(got), err)
	}
	if _, err := inflate(bytes.NewReader(append(file, 0))); err == nil {
		t.Error("a byte behind the last member was accepted")
	}
}

// A match must not reach into the member before.
func TestMatchBeforeTheBeginningIsRefused(t *testing.T) {
	var b bytes.Buffer
	z, err := flate.NewWriterDict(&b, 9, []byte("what came before"))
	if err != nil {
		t.Fatal(err)
	}
	z.Write([]byte("what came before"))
	z.Close()
	header := []byte{0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff}
	file := append(header, b.Bytes()...)
	file = append(file, make([]byte, 8)...)
	for _, before := range [][]byte{nil, []byte("what came before"), text(1 << 20)} {
		all := file
		if before != nil {
			all = append(compress(t, 6, before), file...)
		}
		if _, err := inflate(bytes.NewReader(all)); !errors.Is(err, errCorrupt) {
			t.Errorf("after %d bytes: error %v, want %v", len(before), err, errCorrupt)
		}
	}
}

func TestHeadersOfAllKinds(t *testing.T) {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	z.Name, z.Comment, z.Extra = "name", "comment", make([]byte, 1000)
	z.Write([]byte("x"))
	z.Close()
	agree(t, b.Bytes())
	for n := range b.Len() {
		agree(t, b.Bytes()[:n])
	}
	z.Reset(&b)
	z.Name = string(bytes.Repeat([]byte("n"), 2000))
	z.Close()
	agree(t, b.Bytes())
}

func TestErrorOfTheSourceComesThrough(t *testing.T) {
	file := compress(t, 6, text(300<<10))
	broken := errors.New("broken")
	for _, n := range []int{0, 5, 100, len(file) / 2, len(file) - 1} {
		_, err := inflate(io.MultiReader(bytes.NewReader(file[:n]), iotest.ErrReader(broken)))
		if !errors.Is(err, broken) {
			t.Errorf("after %d bytes: %v", n, err)
		}
	}
}

func FuzzAgreesWithTheStandardLibrary(f *testing.F) {
	for _, level := range []int{gzip.HuffmanOnly, 0, 1, 9} {
		f.Add(compress(f, level, text(600)), uint16(0), byte(0))
		f.Add(compress(f, level, bytes.Repeat([]byte("ab"), 300)), uint16(20), byte(3))
	}
	f.Add(compress(f, 9, nil), uint16(11), byte(0x80))
	f.Fuzz(func(t *testing.T, file []byte, at uint16, change byte) {
		if len(file) > 0 {
			file = bytes.Clone(file)
			file[int(at)%len(file)] ^= change
		}
		agree(t, file)
	})
}

func BenchmarkText(b *testing.B) {
	data := text(8 << 20)
	file := compress(b, 6, data)
	for name, open := range map[string]func(io.Reader) (io.Reader, error){
		"ours":      func(r io.Reader) (io.Reader, error) { return NewReader(r), nil },
		"klauspost": func(r io.Reader) (io.Reader, error) { return klauspost.NewReader(r) },
		"standard":  func(r io.Reader) (io.Reader, error) { return gzip.NewReader(r) },
	} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(data)))
			for b.Loop() {
				r, err := open(bytes.NewReader(file))
				if err != nil {
					b.Fatal(err)
				}
				if n, err := io.Copy(io.Discard, r); err != nil || n != int64(len(data)) {
					b.Fatal(n, err)
				}
				if z, ok := r.(*Reader); ok {
					z.Close()
				}
			}
		})
	}
}
