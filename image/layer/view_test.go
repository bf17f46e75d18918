package layer

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"cri-mini/internal/leakcheck"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

// eachForm runs a test once per form of store. A kernel without file-backed
// EROFS says so.
func eachForm(t *testing.T, test func(t *testing.T, s Store)) {
	for _, form := range []string{Directory, Erofs} {
		t.Run(form, func(t *testing.T) { test(t, openStore(t, form)) })
	}
}

func openStore(t testing.TB, form string, options ...Option) Store {
	t.Helper()
	s, err := Open(t.TempDir(), form, options...)
	if missing := (*ErrUnsupported)(nil); asError(err, &missing) {
		t.Skip(missing)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.(*store).Wait)
	return s
}

func write(t testing.TB, s Store, archive []byte) digest.Digest {
	t.Helper()
	p, err := s.Write(context.Background(), bytes.NewReader(archive))
	if err != nil {
		t.Fatalf("write: %v", err)
	}
	if want := digest.FromBytes(archive); p.DiffID() != want {
		t.Fatalf("diff id %s, want %s", p.DiffID(), want)
	}
	if err := p.Commit(); err != nil {
		t.Fatalf("commit: %v", err)
	}
	return p.DiffID()
}

// lower opens a layer as the rest of the program does: a directory by its
// path, an image by a detached mount of its file.
func lower(t testing.TB, s Store, id digest.Digest) int {
	t.Helper()
	path, err := s.Path(id)
	if err != nil {
		t.Fatal(err)
	}
	var fd int
	if s.Form() == Directory {
		fd, err = unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	} else {
		fd, err = mountDetached("erofs", func(fs int) error { return unix.FsconfigSetString(fs, "source", path) })
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

// stack mounts an overlay, detached, over layers given from the lowest up,
// with an upper directory of its own.
func stack(t testing.TB, layers ...int) int {
	t.Helper()
	top := t.TempDir()
	fd, err := mountDetached("overlay", func(fs int) error {
		for _, layer := range slices.Backward(layers) {
			if err := unix.FsconfigSetFd(fs, "lowerdir+", layer); err != nil {
				return err
			}
		}
		for _, name := range []string{"upper", "work"} {
			dir := filepath.Join(top, name)
			if err := os.Mkdir(dir, 0o700); err != nil {
				return err
			}
			if err := unix.FsconfigSetString(fs, name+"dir", dir); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

// view tells what is in a file system, one line per name:
//
//	path type+mode uid:gid links time rest
//
// Names with one inode have the same number after the links.
func view(t testing.TB, fd int) []string {
	t.Helper()
	v := viewer{t: t, root: "/proc/self/fd/" + strconv.Itoa(fd), inodes: make(map[uint64]int)}
	if err := filepath.WalkDir(v.root+"/", v.visit); err != nil {
		t.Fatal(err)
	}
	return v.lines
}

type viewer struct {
	t      testing.TB
	root   string
	inodes map[uint64]int
	lines  []string
}

func (v *viewer) visit(path string, _ fs.DirEntry, err error) error {
	if err != nil {
		return err
	}
	info, err := os.Lstat(path)
	if err != nil {
		return err
	}
	st := info.Sys().(*syscall.Stat_t)
	name := strings.TrimPrefix(path, v.root+"/")
	if name == "" {
		name = "."
	}
	line := strconv.Quote(name)
	if info.Mode()&fs.ModeType == fs.ModeDevice|fs.ModeCharDevice && st.Rdev == 0 {
		v.lines = append(v.lines, line+" whiteout")
		return nil
	}
	line += fmt.Sprintf(" %s %d:%d", info.Mode(), st.Uid, st.Gid)
	if !info.IsDir() && st.Nlink > 1 {
		if v.inodes[st.Ino] == 0 {
			v.inodes[st.Ino] = len(v.inodes) + 1
		}
		line += fmt.Sprintf(" links=%d#%d", st.Nlink, v.inodes[st.Ino])
	}
	if at := info.ModTime(); at.Unix() != 1 || at.Nanosecond() != 0 {
		line += fmt.Sprintf(" at=%d.%09d", at.Unix(), at.Nanosecond())
	}
	line += v.rest(path, info, st) + v.xattrs(path)
	v.lines = append(v.lines, line)
	return nil
}

func (v *viewer) rest(path string, info fs.FileInfo, st *syscall.Stat_t) string {
	switch info.Mode() & fs.ModeType {
	case 0:
		content, err := os.ReadFile(path)
		if err != nil {
			v.t.Fatal(err)
		}
		if len(content) > 40 {
			return fmt.Sprintf(" %d bytes %x", len(content), sha256.Sum256(content))
		}
		return fmt.Sprintf(" %q", content)
	case fs.ModeSymlink:
		target, err := os.Readlink(path)
		if err != nil {
			v.t.Fatal(err)
		}
		return fmt.Sprintf(" -> %q", target)
	case fs.ModeDevice, fs.ModeDevice | fs.ModeCharDevice:
		return fmt.Sprintf(" %d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))
	}
	return ""
}

func (v *viewer) xattrs(path string) string {
	buf := make([]byte, 128<<10)
	n, err := unix.Llistxattr(path, buf)
	if err != nil {
		v.t.Fatalf("list xattrs of %s: %v", path, err)
	}
	names := strings.FieldsFunc(string(buf[:n]), func(r rune) bool { return r == 0 })
	slices.Sort(names)
	text := ""
	for _, name := range names {
		n, err := unix.Lgetxattr(path, name, buf)
		if err != nil {
			v.t.Fatalf("xattr %s of %s: %v", name, path, err)
		}
		if n > 40 {
			text += fmt.Sprintf(" %s=%d bytes %x", name, n, sha256.Sum256(buf[:n]))
		} else {
			text += fmt.Sprintf(" %s=%q", name, buf[:n])
		}
	}
	return text
}

// sameLines fails unless two views are equal, and shows the difference only.
func sameLines(t *testing.T, got, want []string) {
	t.Helper()
	for _, line := range got {
		if !slices.Contains(want, line) {
			t.Errorf("there is       %s", line)
		}
	}
	for _, line := range want {
		if !slices.Contains(got, line) {
			t.Errorf("there is not   %s", line)
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d names, want %d", len(got), len(want))
	}
}

func sum(s string) string { return fmt.Sprintf("%x", sha256.Sum256([]byte(s))) }

func quote(s string) string { return strconv.Quote(s) }

// impliedChain is the view of n directories in each other.
func impliedChain(name string, n int) string {
	var text strings.Builder
	for i := 1; i <= n; i++ {
		path := strings.TrimSuffix(strings.Repeat(name+"/", i), "/")
		fmt.Fprintf(&text, "%q %s\n", path, implied)
	}
	return text.String()
}
