package layer

import (
	"archive/tar"
	"bytes"
	"strings"
	"testing"
	"time"
)

// item is one entry of an archive made for a test.
type item struct {
	tar.Header
	content string
}

// with changes a header after its making: file("a", "").with(func(h) …).
func (i item) with(change func(h *tar.Header)) item {
	change(&i.Header)
	return i
}

func (i item) xattr(name, value string) item {
	if i.PAXRecords == nil {
		i.PAXRecords = make(map[string]string)
	}
	i.PAXRecords[xattrRecord+name] = value
	return i
}

func (i item) mode(m int64) item       { i.Mode = m; return i }
func (i item) owner(uid, gid int) item { i.Uid, i.Gid = uid, gid; return i }
func (i item) at(t time.Time) item     { i.ModTime = t; return i }

func newItem(kind byte, name string, mode int64) item {
	return item{Header: tar.Header{Typeflag: kind, Name: name, Mode: mode, ModTime: time.Unix(1, 0), Format: tar.FormatPAX}}
}

func file(name, content string) item {
	i := newItem(tar.TypeReg, name, 0o644)
	i.Size, i.content = int64(len(content)), content
	return i
}

func dir(name string) item { return newItem(tar.TypeDir, name, 0o755) }

func symlink(name, target string) item {
	i := newItem(tar.TypeSymlink, name, 0o777)
	i.Linkname = target
	return i
}

func hardlink(name, target string) item {
	i := newItem(tar.TypeLink, name, 0o644)
	i.Linkname = target
	return i
}

func device(kind byte, name string, major, minor int64) item {
	i := newItem(kind, name, 0o600)
	i.Devmajor, i.Devminor = major, minor
	return i
}

func fifo(name string) item { return newItem(tar.TypeFifo, name, 0o600) }

// archive packs items with the standard writer.
func archive(t testing.TB, items ...item) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, i := range items {
		if err := w.WriteHeader(&i.Header); err != nil {
			t.Fatalf("entry %q: %v", i.Name, err)
		}
		if _, err := w.Write([]byte(i.content)); err != nil {
			t.Fatalf("entry %q: %v", i.Name, err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// raw makes a ustar header that the standard writer would refuse to write.
// Fields are name → bytes, put at their places in the block.
func raw(kind byte, name string, size int64, change func(block []byte)) []byte {
	block := make([]byte, 512)
	copy(block[0:100], name)
	copy(block[100:], "0000644\x00")
	copy(block[108:], "0000000\x00")
	copy(block[116:], "0000000\x00")
	octal(block[124:136], size)
	copy(block[136:], "00000000001\x00")
	block[156] = kind
	copy(block[257:], "ustar\x0000")
	if change != nil {
		change(block)
	}
	copy(block[148:156], "        ")
	sum := int64(0)
	for _, c := range block {
		sum += int64(c)
	}
	octal(block[148:155], sum)
	return block
}

// octal writes a number with leading zeros and a NUL at the end.
func octal(field []byte, n int64) {
	for i := len(field) - 2; i >= 0; i-- {
		field[i] = byte('0' + n&7)
		n >>= 3
	}
	field[len(field)-1] = 0
}

// endOfArchive is two blocks of zeros.
var endOfArchive = strings.Repeat("\x00", 1024)
