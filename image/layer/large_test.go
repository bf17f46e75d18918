package layer

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// sparseAt is a file in the old GNU format whose only data is at an offset.
func sparseAt(name string, offset int64, data string) []byte {
	head := raw(tar.TypeGNUSparse, name, int64(len(data)), func(b []byte) {
		copy(b[257:], "ustar  \x00")
		base256(b[386:398], offset)
		octal(b[398:410], int64(len(data)))
		base256(b[483:495], offset+int64(len(data)))
	})
	return append(head, append([]byte(data), make([]byte, 512-len(data)%512)...)...)
}

func TestSparseFileBeyond4GiBIsReadWholeAndTakesLittle(t *testing.T) {
	const offset = 5<<30 + 77
	data := join(sparseAt("big", offset, "the end"))
	eachForm(t, func(t *testing.T, s Store) {
		p, err := s.Write(context.Background(), bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Commit(); err != nil {
			t.Fatal(err)
		}
		if p.Info().Size > 1<<20 {
			t.Errorf("reported to take %d bytes, want less than 1 MiB", p.Info().Size)
		}
		f, err := os.Open("/proc/self/fd/" + strconv.Itoa(lower(t, s, p.DiffID())) + "/big")
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		end := make([]byte, 20)
		n, _ := f.ReadAt(end, offset-5)
		if st, err := f.Stat(); err != nil || st.Size() != offset+7 || string(end[:n]) != "\x00\x00\x00\x00\x00the end" {
			t.Errorf("size %d, end %q, %v", st.Size(), end[:n], err)
		}
		path, err := s.Path(p.DiffID())
		if err != nil {
			t.Fatal(err)
		}
		if s.Form() == Directory {
			path += "/big"
		}
		var st unix.Stat_t
		if err := unix.Stat(path, &st); err != nil || st.Blocks*512 > 1<<20 {
			t.Errorf("%d bytes on the disk, %v; want less than 1 MiB", st.Blocks*512, err)
		}
	})
}

// Names of a large directory are found by binary search over its blocks.
func TestLargeDirectoryIsListedAndSearched(t *testing.T) {
	var list []item
	var want []string
	for i := range 5000 {
		name := fmt.Sprintf("%c%d%s", 'A'+i%50, i*7919%5000, strings.Repeat("-", i%100))
		list = append(list, file("d/"+name, strconv.Itoa(i)))
		want = append(want, fmt.Sprintf("%q -rw-r--r-- 0:0 %q", "d/"+name, strconv.Itoa(i)))
	}
	want = append(want, root, `"d" `+implied)
	eachForm(t, func(t *testing.T, s Store) {
		fd := lower(t, s, write(t, s, archive(t, list...)))
		sameLines(t, view(t, fd), want)
		var st unix.Stat_t
		for _, absent := range []string{"d/A", "d/!", "d/~", "d/Z9999"} {
			if err := unix.Fstatat(fd, absent, &st, 0); err != unix.ENOENT {
				t.Errorf("%s: %v, want ENOENT", absent, err)
			}
		}
	})
}

// An image has room for xattrs that few file systems take.
func TestImageHoldsLargeXattrs(t *testing.T) {
	s := openStore(t, Erofs)
	big := strings.Repeat("v", 60000)
	many := file("many", "")
	want := `"many" -rw-r--r-- 0:0 ""`
	for i := range 60 {
		value := strings.Repeat(string(rune('a'+i%26)), 900+i)
		many = many.xattr(fmt.Sprintf("user.%02d", i), value)
		want += fmt.Sprintf(" user.%02d=%d bytes %s", i, len(value), sum(value))
	}
	fd := lower(t, s, write(t, s, archive(t, file("big", "text").xattr("user.b", big), many, file("next", "x"))))
	sameLines(t, view(t, fd), []string{root, `"big" -rw-r--r-- 0:0 "text" user.b=60000 bytes ` + sum(big), want, `"next" -rw-r--r-- 0:0 "x"`})
}
