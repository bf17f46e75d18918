package layer

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Three layers that use every way to add, change and hide.
func stackArchives(t testing.TB) [][]byte {
	return [][]byte{
		archive(t,
			dir("etc"), file("etc/passwd", "root"), file("etc/gone", "1"), dir("opaque"), file("opaque/old", "1"), dir("merged"), file("merged/low", "1"),
			file("becomes/dir", "1"), dir("hidden/sub"), file("hidden/sub/x", "1"), file("swapped", "file"), file("links/a", "1"), hardlink("links/b", "links/a"),
			file("su", "").mode(0o4755).owner(1, 2).xattr("user.k", "low").xattr(capability, capNetRaw), symlink("lib", "usr/lib"), file("usr/lib/a", "1"), device('3', "null", 1, 3)),
		archive(t,
			dir("etc").mode(0o711), file("etc/passwd", "root and more"), file("etc/.wh.gone", ""), file("opaque/.wh..wh..opq", ""), dir("opaque"), file("opaque/new", "2"),
			dir("merged"), file("merged/middle", "2"), file(".wh.becomes", ""), file("becomes", "a file"), file(".wh.hidden", ""), dir("swapped"), file("swapped/in", "2"),
			file("usr/lib/b", "2").xattr("user.k", "v")),
		archive(t,
			file("hidden/again", "3"), dir("merged"), file("merged/.wh.low", ""), file("merged/top", "3"), file(".wh.absent", ""), file("usr/lib/a", "3")),
	}
}

const stacked = `"becomes" -rw-r--r-- 0:0 "a file"
"etc" drwx--x--x 0:0
"etc/passwd" -rw-r--r-- 0:0 "root and more"
"hidden" drwxr-xr-x 0:0 at=0.000000000
"hidden/again" -rw-r--r-- 0:0 "3"
"lib" Lrwxrwxrwx 0:0 -> "usr/lib"
"links" drwxr-xr-x 0:0 at=0.000000000
"links/a" -rw-r--r-- 0:0 links=2#1 "1"
"links/b" -rw-r--r-- 0:0 links=2#1 "1"
"merged" drwxr-xr-x 0:0
"merged/middle" -rw-r--r-- 0:0 "2"
"merged/top" -rw-r--r-- 0:0 "3"
"null" Dcrw------- 0:0 1:3
"opaque" drwxr-xr-x 0:0
"opaque/new" -rw-r--r-- 0:0 "2"
"su" urwxr-xr-x 1:2 "" security.capability=`

// The layers are mounted exactly as for a container: detached, handed to
// overlayfs as descriptors, with an upper directory.
func TestLayersStackUnderOverlay(t *testing.T) {
	want := strings.Split(stacked+quote(capNetRaw)+` user.k="low"
"swapped" drwxr-xr-x 0:0
"swapped/in" -rw-r--r-- 0:0 "2"
"usr" drwxr-xr-x 0:0 at=0.000000000
"usr/lib" drwxr-xr-x 0:0 at=0.000000000
"usr/lib/a" -rw-r--r-- 0:0 "3"
"usr/lib/b" -rw-r--r-- 0:0 "2" user.k="v"`, "\n")
	eachForm(t, func(t *testing.T, s Store) {
		var layers []int
		for _, data := range stackArchives(t) {
			layers = append(layers, lower(t, s, write(t, s, data)))
		}
		merged := stack(t, layers...)
		sameLines(t, view(t, merged)[1:], want) // without the root, which is the upper directory's
	})
}

// A container changes what comes from a layer; the layer must not notice.
func TestFilesOfALayerCanBeChangedAbove(t *testing.T) {
	eachForm(t, func(t *testing.T, s Store) {
		fd := lower(t, s, write(t, s, stackArchives(t)[0]))
		before := view(t, fd)
		merged := "/proc/self/fd/" + strconv.Itoa(stackRW(t, fd))
		at := func(name string) string { return merged + "/" + name }
		if err := errors.Join(
			os.WriteFile(at("etc/passwd"), []byte("changed"), 0o600), os.Chmod(at("su"), 0o700), os.Remove(at("links/a")),
			os.RemoveAll(at("hidden")), os.Rename(at("opaque/old"), at("moved")), unix.Setxattr(at("etc"), "user.new", []byte("x"), 0),
		); err != nil {
			t.Fatal(err)
		}
		if content, err := os.ReadFile(at("etc/passwd")); err != nil || string(content) != "changed" {
			t.Errorf("read %q, %v; want what was written", content, err)
		}
		sameLines(t, view(t, fd), before)
	})
}

// stackRW is a writable overlay over one layer.
func stackRW(t testing.TB, layer int) int {
	t.Helper()
	fd := stack(t, layer)
	writable(t, fd)
	return fd
}

func writable(t testing.TB, mount int) {
	t.Helper()
	if err := unix.MountSetattr(mount, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_clr: unix.MOUNT_ATTR_RDONLY}); err != nil {
		t.Fatal(err)
	}
}

func TestOpaqueRootIsReportedForOverlayIgnoresIt(t *testing.T) {
	eachForm(t, func(t *testing.T, s Store) {
		p, err := s.Write(context.Background(), bytes.NewReader(archive(t, file(".wh..wh..opq", ""), file("a", ""))))
		if err != nil {
			t.Fatal(err)
		}
		if !p.Info().Opaque {
			t.Error("info does not say that the layer is opaque")
		}
		if err := p.Commit(); err != nil {
			t.Fatal(err)
		}
		again, err := open(s.(*store).root, s.Form(), nil)
		if err != nil {
			t.Fatal(err)
		}
		if list, _ := again.List(); len(list) != 1 || !list[0].Opaque {
			t.Errorf("list %v, want an opaque layer", list)
		}
	})
}

func TestProbe(t *testing.T) {
	dir := t.TempDir()
	err := Probe(dir)
	if missing := (*ErrUnsupported)(nil); errors.As(err, &missing) {
		if newerThan(6, 15) {
			t.Fatalf("this kernel has it: %v", err)
		}
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	if err := Probe(filepath.Join(dir, "absent")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("probe of no folder: %v", err)
	}
}

// A file system that cannot back a mount is a missing feature too, and Open
// says so at once instead of at the first container.
func TestErofsIsRefusedWhereItCannotBeMounted(t *testing.T) {
	var missing *ErrUnsupported
	dir := memory(t, "tmpfs")
	if _, err := Open(dir, Erofs); !errors.As(err, &missing) || missing.Feature != "file-backed erofs mount" {
		t.Errorf("Open(erofs) on tmpfs: %v, want a missing feature", err)
	}
	s, err := Open(dir, Auto)
	if err != nil || s.Form() != Directory {
		t.Fatalf("Open(auto) on tmpfs: %v, %v; want directories", s, err)
	}
}

// Whoever mounts an image must do so once and share the mount: each mount has
// a page cache of its own.
func TestMountsOfOneImageDoNotShareTheirCache(t *testing.T) {
	s := openStore(t, Erofs)
	id := write(t, s, archive(t, file("a", strings.Repeat("x", 1<<20))))
	first, second := lower(t, s, id), lower(t, s, id)
	cached := func(mount int) uint64 {
		f, err := os.Open("/proc/self/fd/" + strconv.Itoa(mount) + "/a")
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		var stat unix.Cachestat_t
		if err := unix.Cachestat(uint(f.Fd()), &unix.CachestatRange{}, &stat, 0); err != nil {
			t.Fatal(err)
		}
		return stat.Cache
	}
	if _, err := os.ReadFile("/proc/self/fd/" + strconv.Itoa(first) + "/a"); err != nil {
		t.Fatal(err)
	}
	if a, b := cached(first), cached(second); a != 256 || b != 0 {
		t.Errorf("%d pages cached in the mount that was read, %d in the other; want 256 and 0, else docs/decisions/0002 is out of date", a, b)
	}
}

func newerThan(major, minor int) bool {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return false
	}
	parts := strings.FieldsFunc(unix.ByteSliceToString(u.Release[:]), func(r rune) bool { return r < '0' || r > '9' })
	a, _ := strconv.Atoi(parts[0])
	b, _ := strconv.Atoi(parts[1])
	return a > major || a == major && b >= minor
}
