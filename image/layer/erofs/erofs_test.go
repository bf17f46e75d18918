package erofs

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"cri-mini/image/layer/tree"
	"cri-mini/internal/leakcheck"
	"cri-mini/internal/testtool"

	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

func regular(size int64) *tree.Node { return &tree.Node{Mode: unix.S_IFREG | 0o644, Size: size} }

// randomRoot makes a tree with everything the format has, and writes contents.
func randomRoot(t testing.TB, w *Writer, seed uint64) *tree.Node {
	t.Helper()
	random := rand.New(rand.NewPCG(seed, 0))
	root := tree.NewRoot()
	dirs := []*tree.Node{root}
	var files []*tree.Node
	for i := range 3000 {
		dir := dirs[random.IntN(len(dirs))]
		name := fmt.Sprint(i) + strings.Repeat("n", random.IntN(240))
		if i%7 == 0 {
			name = string(rune(33+i%10)) + name // some sort before "."
		}
		n := &tree.Node{Mode: uint32(random.IntN(0o10000)), UID: random.Uint32(), GID: random.Uint32(), Sec: random.Int64N(1 << 34), Nsec: uint32(random.IntN(1e9))}
		for range random.IntN(4) * random.IntN(2) {
			n.Xattrs = append(n.Xattrs, tree.Xattr{Name: fmt.Sprintf("trusted.%d", random.Uint32()), Value: bytes.Repeat([]byte("v"), random.IntN(3000))})
		}
		switch random.IntN(8) {
		case 0:
			n.Mode |= unix.S_IFDIR
			n.Opaque = random.IntN(2) == 0
			dirs = append(dirs, n)
		case 1:
			n.Mode |= unix.S_IFLNK
			n.Target = strings.Repeat("t", 1+random.IntN(4095))
		case 2:
			n.Mode |= unix.S_IFCHR
			n.Major, n.Minor = uint32(random.IntN(1<<12)), uint32(random.IntN(1<<20))
		case 3:
			if len(files) > 0 {
				n = files[random.IntN(len(files))]
				break
			}
			fallthrough
		default:
			n.Mode |= unix.S_IFREG
			n.Size = random.Int64N(20000) * int64(random.IntN(2))
			if err := w.Content(n, bytes.NewReader(bytes.Repeat([]byte{byte(i)}, int(n.Size))), false); err != nil {
				t.Fatal(err)
			}
			files = append(files, n)
		}
		dir.Put(name, n)
	}
	return root
}

func create(t testing.TB, name string) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), name))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func writeRandom(t testing.TB, seed uint64) *os.File {
	f := create(t, "image")
	w := NewWriter(f)
	root := randomRoot(t, w, seed)
	if _, err := w.Finish(root, [16]byte{1, 2, 3}); err != nil {
		t.Fatal(err)
	}
	return f
}

func TestSameTreeGivesTheSameBytes(t *testing.T) {
	a, err := os.ReadFile(writeRandom(t, 1).Name())
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(writeRandom(t, 1).Name())
	if err != nil || !bytes.Equal(a, b) {
		t.Fatalf("two images of one tree differ: %v", err)
	}
}

// The format's own tools must find nothing to complain of.
func TestImagesPassTheCheckOfErofsUtils(t *testing.T) {
	fsck := testtool.Need(t, "fsck.erofs", "erofs-utils")
	dump := testtool.Need(t, "dump.erofs", "erofs-utils")
	for seed := range uint64(5) {
		image := writeRandom(t, seed).Name()
		out, err := exec.Command(fsck, "--extract", "-d9", image).CombinedOutput()
		if err != nil || bytes.Contains(out, []byte("<E>")) {
			t.Fatalf("fsck.erofs: %v\n%s", err, lastLines(out))
		}
		out, err = exec.Command(dump, "-s", image).CombinedOutput()
		for _, want := range []string{"sb_csum", "mtime", "01020300-0000-0000-0000-000000000000"} {
			if err != nil || !bytes.Contains(out, []byte(want)) {
				t.Fatalf("dump.erofs: %v, want %q in\n%s", err, want, out)
			}
		}
	}
}

func lastLines(out []byte) []byte { return out[max(0, len(out)-2000):] }

func TestZerosOfASparseFileTakeNoSpace(t *testing.T) {
	const size = 5<<30 + 123 // more than 32 bits
	f := create(t, "image")
	w := NewWriter(f)
	root := tree.NewRoot()
	big := regular(size)
	content := io.MultiReader(strings.NewReader("begin"), io.LimitReader(zeroReader{}, size-8), strings.NewReader("end"))
	if err := w.Content(big, content, true); err != nil {
		t.Fatal(err)
	}
	root.Put("big", big)
	written, err := w.Finish(root, [16]byte{})
	taken := written.Size
	if err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil || st.Blocks*512 > 1<<20 || taken > 1<<20 || st.Size < size {
		t.Fatalf("%d bytes on the disk, %d reported, %d long, %v; want less than 1 MiB", st.Blocks*512, taken, st.Size, err)
	}
}

type zeroReader struct{}

func (zeroReader) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

func TestImageIsNoneBeforeItIsFinished(t *testing.T) {
	f := create(t, "image")
	w := NewWriter(f)
	n := regular(3 << 20)
	if err := w.Content(n, io.LimitReader(zeroReader{}, n.Size), false); err != nil {
		t.Fatal(err)
	}
	head := make([]byte, superOffset+superSize)
	if _, err := f.ReadAt(head, 0); err != nil || le.Uint32(head[superOffset:]) == superMagic {
		t.Fatalf("the superblock is there already, %v", err)
	}
}

func TestContentThatEndsEarlyIsAnError(t *testing.T) {
	w := NewWriter(create(t, "image"))
	if err := w.Content(regular(10), strings.NewReader("short"), false); err == nil {
		t.Fatal("no error")
	}
}

func TestXattrsBeyondTheFormatAreAnError(t *testing.T) {
	for _, x := range []tree.Xattr{
		{Name: "other.space"}, {Name: "user."}, {Name: "user." + strings.Repeat("n", 256)}, {Name: "user.a", Value: make([]byte, 1<<16)},
	} {
		if _, err := encodeXattrs([]tree.Xattr{x}, false); err == nil {
			t.Errorf("xattr %.40q of %d bytes: no error", x.Name, len(x.Value))
		}
	}
	if _, err := encodeXattrs(slicesRepeat(tree.Xattr{Name: "user.a", Value: make([]byte, 65000)}, 5), false); err == nil {
		t.Error("300 kB of xattrs: no error")
	}
}

func slicesRepeat(x tree.Xattr, n int) (list []tree.Xattr) {
	for range n {
		list = append(list, x)
	}
	return list
}

// Directories are searched block by block: the order must be that of bytes
// over all blocks, with the dots where they belong.
func TestListingIsInByteOrder(t *testing.T) {
	root := tree.NewRoot()
	for _, name := range []string{"b", "!", "-x", "..a", "...", "/"[:0] + "a", "\xff", "\x01"} {
		root.Put(name, regular(0))
	}
	got := list(root).names
	want := []string{"\x01", "!", "-x", ".", "..", "...", "..a", "a", "b", "\xff"}
	if fmt.Sprintf("%q", got) != fmt.Sprintf("%q", want) {
		t.Fatalf("listing %q, want %q", got, want)
	}
}
