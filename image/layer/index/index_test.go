package index

import (
	"encoding/binary"
	"errors"
	"reflect"
	"strings"
	"testing"

	"cri-mini/image/layer/tree"

	"golang.org/x/sys/unix"
)

func sample() Index {
	root, dir := tree.NewRoot(), tree.ImpliedDir()
	dir.Opaque = true
	dir.Xattrs = []tree.Xattr{{Name: "user.a", Value: []byte("b\x00")}, {Name: "user.empty", Value: []byte{}}}
	linked := &tree.Node{Mode: unix.S_IFREG | 0o4755, UID: 1, GID: 1<<32 - 2, Sec: -5, Nsec: 999999999, Size: 1 << 40, Block: 77, Sum: 0xfedcba98}
	root.Put("d", dir)
	root.Put("a", linked)
	root.Put("new\nline", &tree.Node{Mode: unix.S_IFLNK | 0o777, Target: "../x"})
	root.Put("w", tree.Whiteout())
	dir.Put("b", linked)
	dir.Put("c", &tree.Node{Mode: unix.S_IFBLK, Major: 4095, Minor: 1048575})
	dir.Put("p", &tree.Node{Mode: unix.S_IFIFO | 0o600})
	return Index{Root: root, File: File{Size: 1 << 41, Rest: 4096, HeadSum: 1, RestSum: 0xffffffff}}
}

func TestIndexComesBackAsItWas(t *testing.T) {
	for _, want := range []Index{sample(), {Root: tree.NewRoot()}} {
		got, err := Decode(Encode(want))
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("got %+v\nwant %+v", got, want)
		}
	}
	got, err := Decode(Encode(sample()))
	if err != nil || got.Root.Child("a") != got.Root.Child("d").Child("b") {
		t.Errorf("a hard link became two files: %v", err)
	}
}

func TestIndexOfAFileIsAFewDozenBytes(t *testing.T) {
	root := tree.NewRoot()
	const files = 1000
	for i := range files {
		name := strings.Repeat("n", 10) + string(rune('a'+i%26)) + strings.Repeat("x", i/26)
		root.Put(name[:min(len(name), 12)]+string(rune(0x4e00+i)), &tree.Node{Mode: unix.S_IFREG | 0o644, Sec: 1700000000, Size: 100000, Sum: 0xffffffff})
	}
	if each := len(Encode(Index{Root: root})) / files; each > 50 {
		t.Errorf("%d bytes for each file, want 50", each)
	}
}

func TestAnyChangedByteOfAnIndexIsNoticed(t *testing.T) {
	data := Encode(sample())
	for i := range data {
		data[i] ^= 0x20
		if _, err := Decode(data); !errors.Is(err, ErrDamaged) {
			t.Errorf("byte %d: %v, want ErrDamaged", i, err)
		}
		data[i] ^= 0x20
		if _, err := Decode(data[:i]); !errors.Is(err, ErrDamaged) {
			t.Errorf("cut at %d: %v, want ErrDamaged", i, err)
		}
	}
}

// FuzzDecode takes any bytes behind a good head and before a good sum.
func FuzzDecode(f *testing.F) {
	good := Encode(sample())
	f.Add(good[len(magic) : len(good)-4])
	f.Add([]byte{0, 0, 0, 0, 0, 1})
	f.Add([]byte{0, 0, 0, 0, 0xed, 0x83, 1, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f})
	f.Add(append([]byte{0, 0, 0, 0}, []byte(strings.Repeat("\xed\x83\x01\x00\x00\x00\x00\x00\x01\x00\x01a", 1100))...))
	f.Fuzz(func(t *testing.T, body []byte) {
		data := append([]byte(magic), body...)
		data = binary.LittleEndian.AppendUint32(data, Sum(0, data))
		x, err := Decode(data)
		if err != nil {
			if !errors.Is(err, ErrDamaged) {
				t.Fatalf("%v is not ErrDamaged", err)
			}
			return
		}
		again, err := Decode(Encode(x))
		if err != nil || !reflect.DeepEqual(again, x) {
			t.Fatalf("encoded and decoded again: %v\n%+v\n%+v", err, again, x)
		}
	})
}
