package layer

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// base256 writes a number as GNU tar does when octal digits do not suffice.
func base256(field []byte, n int64) {
	for i := range field {
		field[i] = 0
		if n < 0 {
			field[i] = 0xff
		}
	}
	binary.BigEndian.PutUint64(field[len(field)-8:], uint64(n))
	field[0] |= 0x80
}

func join(parts ...[]byte) []byte { return append(bytes.Join(parts, nil), endOfArchive...) }

// A hostile archive is refused by both forms, for this reason, with the name
// of the entry.
var hostile = []struct {
	attack  string
	archive func(t testing.TB) []byte
	reason  string
}{
	{"climb", items(file("../evil", "x")), `entry "../evil": name contains ".."`},
	{"climb in the middle", items(file("a/../../evil", "x")), `entry "a/../../evil": name contains ".."`},
	{"climb at the end", items(dir("a/..")), `entry "a/..": name contains ".."`},
	{"climb by a hard link", items(hardlink("x", "../../etc/passwd")), `entry "x": hard link to "../../etc/passwd": name contains ".."`},
	{"link to a file outside", items(hardlink("x", "/etc/passwd")), `entry "x": hard link to "etc/passwd": not in this layer`},
	{"link through a symbolic link", items(symlink("s", "/etc"), hardlink("x", "s/passwd")), `entry "x": hard link to "s/passwd": not in this layer`},
	{"link to a directory", items(dir("d"), hardlink("x", "d")), `entry "x": hard link to "d": is a directory`},
	{"link to the root", items(hardlink("x", "./")), `entry "x": hard link to "": is a directory`},
	{"link to a whiteout", items(file(".wh.a", ""), hardlink("x", "a")), `entry "x": hard link to "a": not in this layer`},
	{"link to what it replaces", items(dir("a"), file("a/b", ""), hardlink("a", "a/b")), `entry "a": hard link to "a/b": not in this layer`},
	{"link before its target", items(hardlink("x", "y"), file("y", "")), `entry "x": hard link to "y": not in this layer`},
	{"file as parent", items(file("a", ""), file("a/b", "")), `entry "a/b": "a" is not a directory`},
	{"device as parent", items(device(tar.TypeBlock, "d/a", 8, 0), file("d/a/b", "")), `entry "d/a/b": "d/a" is not a directory`},
	{"file as root", items(file("./", "").with(func(h *tar.Header) { h.Typeflag = tar.TypeSymlink; h.Linkname = "/" })), `the root of a layer must be a directory`},
	{"pipe as root", rawOnly(tar.TypeFifo, "./"), `entry "./": the root of a layer must be a directory`},
	{"whiteout of the root", items(file(".wh..", "")), `entry ".wh..": whiteout of "."`},
	{"whiteout of the parent", items(file("a/.wh...", "")), `entry "a/.wh...": whiteout of ".."`},
	{"whiteout of nothing", items(file(".wh.", "")), `entry ".wh.": whiteout of ""`},
	{"whiteout as parent", items(file(".wh.a/b", "")), `entry ".wh.a/b": ".wh.a" is a whiteout and cannot be a directory`},
	{"whiteout packed as the root", rawOnly(tar.TypeChar, "./"), `entry "./": the root of a layer must be a directory`},
	{"links in a circle", items(symlink("a", "b"), symlink("b", "a"), file("a/x", "")), `entry "a/x": too many symbolic links`},
	{"link to itself", items(symlink("a", "a/a/a"), file("a/x", "")), `entry "a/x": too many symbolic links`},
	{"links that multiply", items(symlinkBomb()...), `too many symbolic links`},
	{"path too long", items(dir(strings.Repeat("12345678/", 500))), `path of 4500 bytes, at most 4095 are allowed`},
	{"path too deep", items(file(strings.Repeat("d/", 256)+"f", "")), `path of 257 names, at most 256 are allowed`},
	{"path too deep by a link", items(symlink("l", strings.Repeat("d/", 200)), file("l/"+strings.Repeat("e/", 100)+"f", "")), `path too deep`},
	{"path too long by a link", items(symlink("l", strings.Repeat(strings.Repeat("x", 250)+"/", 12)), file("l/"+strings.Repeat(strings.Repeat("y", 250)+"/", 5)+"f", "")), `path too deep`},
	{"name too long", items(file(strings.Repeat("n", 256), "")), `name of 256 bytes, at most 255 are possible`},
	{"name too long by a link", items(symlink("l", "d/"+strings.Repeat("n", 256)), file("l/f", "")), `name of 256 bytes, at most 255 are possible`},
	{"empty name", rawOnly(tar.TypeReg, ""), `entry "": empty name`},
	{"NUL in a name", paxName("a\x00b"), `entry 1: archive/tar: invalid tar header`},
	{"major number cut off", items(device(tar.TypeChar, "d", 4097, 3).with(gnu)), `entry "d": device major 4097 is out of range`},
	{"minor number cut off", items(device(tar.TypeBlock, "d", 8, 1<<20).with(gnu)), `entry "d": device minor 1048576 is out of range`},
	{"negative major", rawField(tar.TypeChar, 329, 337, -1), `entry "x": device major -1 is out of range`},
	{"user number cut off to root", rawField(tar.TypeReg, 108, 116, 1<<32), `entry "x": uid 4294967296 is out of range`},
	{"user number that means no change", rawField(tar.TypeReg, 108, 116, 1<<32-1), `entry "x": uid 4294967295 is out of range`},
	{"negative group", rawField(tar.TypeReg, 116, 124, -2), `entry "x": gid -2 is out of range`},
	{"negative size", rawField(tar.TypeReg, 124, 136, -512), `entry `},
	{"unknown type", rawOnly('Z', "x"), `entry "x": unknown type 'Z'`},
	{"overlay's xattr", items(dir("d").xattr("trusted.overlay.redirect", "/etc")), `entry "d": xattr "trusted.overlay.redirect" is reserved for overlayfs`},
	{"overlay's xattr for users", items(file("f", "").xattr("user.overlay.metacopy", "")), `xattr "user.overlay.metacopy" is reserved for overlayfs`},
	{"overlay's xattr, escaped", items(dir("d").xattr("trusted.overlay.overlay.opaque", "y")), `is reserved for overlayfs`},
	{"overlay's xattr on the root", items(dir("./").xattr("trusted.overlay.opaque", "y")), `is reserved for overlayfs`},
	{"xattr too large", items(file("f", "").xattr("user.a", strings.Repeat("v", 1<<16))), `xattr "user.a" of 65536 bytes, at most 65535 are possible`},
	{"too many xattrs", items(manyXattrs()), `bytes of xattrs, at most 65536 are allowed`},
	{"xattr name too long", items(file("f", "").xattr("user."+strings.Repeat("n", 251), "")), `xattr name "user.nnn`},
	{"xattr without a name", items(file("f", "").xattr("user.", "x")), `xattr name "user."`},
	{"capability of an unknown kind", items(file("f", "").xattr(capability, "\x00\x00\x00\x01"+capNetRaw[4:])), `xattr "security.capability" is malformed`},
	{"capability cut short", items(file("f", "").xattr(capability, capNetRaw[:19])), `xattr "security.capability" is malformed`},
	{"symbolic link to nothing", rawOnly(tar.TypeSymlink, "x"), `entry "x": symbolic link to nothing`},
	{"symbolic link too long", items(symlink("s", strings.Repeat("t", 4096))), `symbolic link of 4096 bytes, at most 4095 are possible`},
	{"huge sparse file", items0(sparse("x", 1<<40)), `entry "x": more than 68719476736 bytes in sparse files`},
	{"sparse map that lies", items0(badSparse()), `entry `},
	{"content shorter than promised", func(t testing.TB) []byte { return raw(tar.TypeReg, "x", 1<<20, nil) }, `entry "x": read content: archive is cut off`},
	{"size beyond all bounds", func(t testing.TB) []byte {
		return raw(tar.TypeReg, "x", 0, func(b []byte) { base256(b[124:136], 1<<62) })
	}, `entry "x": size 4611686018427387904`},
	{"no archive", func(t testing.TB) []byte { return []byte(strings.Repeat("no archive", 100)) }, `entry 1: `},
	{"nothing", func(t testing.TB) []byte { return nil }, `archive ends without its end marker`},
	{"no end marker", func(t testing.TB) []byte { return raw(tar.TypeReg, "x", 0, nil) }, `archive ends without its end marker`},
	{"half an end marker", func(t testing.TB) []byte { return make([]byte, 512) }, `archive ends without its end marker`},
	{"checksum is wrong", func(t testing.TB) []byte {
		b := raw(tar.TypeReg, "x", 0, nil)
		b[0] = 'y'
		return join(b)
	}, `entry 1: archive/tar: invalid tar header`},
}

func items(list ...item) func(testing.TB) []byte {
	return func(t testing.TB) []byte { return archive(t, list...) }
}

func items0(blocks []byte) func(testing.TB) []byte {
	return func(testing.TB) []byte { return join(blocks) }
}

func rawOnly(kind byte, name string) func(testing.TB) []byte { return items0(raw(kind, name, 0, nil)) }

func rawField(kind byte, from, to int, n int64) func(testing.TB) []byte {
	return items0(raw(kind, "x", 0, func(b []byte) { base256(b[from:to], n) }))
}

func gnu(h *tar.Header) { h.Format = tar.FormatGNU }

func paxName(name string) func(testing.TB) []byte {
	record := " path=" + name + "\n"
	record = fmt.Sprint(len(record)+2) + record
	content := make([]byte, 512)
	copy(content, record)
	return items0(append(append(raw(tar.TypeXHeader, "PaxHeaders", int64(len(record)), nil), content...), raw(tar.TypeReg, "x", 0, nil)...))
}

// symlinkBomb is links of which each leads twice through the one before.
func symlinkBomb() []item {
	list := []item{dir("l0")}
	for i := 1; i < 40; i++ {
		list = append(list, symlink(fmt.Sprintf("l%d", i), strings.Repeat(fmt.Sprintf("l%d/../", i-1), 20)))
	}
	return append(list, file("l39/x", ""))
}

func manyXattrs() item {
	f := file("f", "")
	for i := range 100 {
		f = f.xattr(fmt.Sprintf("user.%d", i), strings.Repeat("v", 700))
	}
	return f
}

// sparse is a file in the old GNU format that has no data at all.
func sparse(name string, size int64) []byte {
	return raw(tar.TypeGNUSparse, name, 0, func(b []byte) {
		copy(b[257:], "ustar  \x00")
		base256(b[386:398], size) // the only piece: nothing, at the end
		octal(b[398:410], 0)
		base256(b[483:495], size)
	})
}

func badSparse() []byte {
	return raw(tar.TypeGNUSparse, "x", 0, func(b []byte) {
		copy(b[257:], "ustar  \x00")
		base256(b[386:398], 1<<20)
		octal(b[398:410], 1<<20)
		base256(b[483:495], 1)
	})
}

func TestHostileArchiveIsRefusedAndLeavesNothing(t *testing.T) {
	for _, c := range hostile {
		t.Run(c.attack, func(t *testing.T) {
			data := c.archive(t)
			eachForm(t, func(t *testing.T, s Store) {
				_, err := s.Write(context.Background(), bytes.NewReader(data))
				if err == nil || !strings.Contains(err.Error(), c.reason) {
					t.Errorf("error %v, want %q", err, c.reason)
				}
				if !errors.Is(err, ErrInvalid) {
					t.Errorf("%v is not ErrInvalid", err)
				}
				nothingLeft(t, s)
			})
		})
	}
}

// nothingLeft fails if a store has anything but complete layers.
func nothingLeft(t testing.TB, s Store) {
	t.Helper()
	s.(*store).Wait()
	for _, dir := range []string{unfinishedDir, replacedDir, removedDir} {
		if left, err := os.ReadDir(s.(*store).path(dir)); err != nil || len(left) > 0 {
			t.Errorf("left in %s: %v, %v", dir, left, err)
		}
	}
}

// Whatever an archive does with links, a folder beside the store stays as it is.
func TestLinksNeverLeadOutOfTheLayer(t *testing.T) {
	outside := t.TempDir()
	victim := filepath.Join(outside, "victim")
	if err := os.WriteFile(victim, []byte("before"), 0o600); err != nil {
		t.Fatal(err)
	}
	up := strings.Repeat("../", 30)
	data := archive(t,
		symlink("abs", outside), symlink("rel", up+outside[1:]), symlink("file", victim), symlink("via", "/proc/self/root"+outside),
		file("abs/new", "x"), file("rel/new", "x"), file("via/new", "x"), dir("abs").mode(0o777).owner(5, 5), dir("rel").mode(0o777),
		file("file", "after"), symlink("chmod", victim).mode(0o4777).owner(7, 7), file("abs/victim", "after").mode(0o777), file("rel/.wh.victim", ""),
		symlink("swap", "real"), file("swap/a", "1"), symlink("swap", outside), file("swap/victim", "2"), hardlink("swap/victim", "swap/victim"),
	)
	eachForm(t, func(t *testing.T, s Store) {
		write(t, s, data)
		names, err := os.ReadDir(outside)
		if err != nil || len(names) != 1 {
			t.Fatalf("the folder outside has %v, %v", names, err)
		}
		var st unix.Stat_t
		content, err := os.ReadFile(victim)
		if err != nil || string(content) != "before" || unix.Stat(victim, &st) != nil || st.Mode&0o7777 != 0o600 || st.Uid != 0 || st.Nlink != 1 {
			t.Fatalf("the file outside became %q %o %d, %v", content, st.Mode, st.Uid, err)
		}
	})
}

// The kernel refuses a link in a parent even if the tree were wrong.
func TestDirectoryIsNotOpenedThroughALink(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tree")
	b, err := newDirectoryBuilder(path)
	if err != nil {
		t.Fatal(err)
	}
	defer b.close()
	u := newUnpacker(b, DefaultLimits)
	d, err := u.walk.To([]string{"a", "b"})
	if err != nil {
		t.Fatal(err)
	}
	b.forget()
	if err := errors.Join(os.Remove(path+"/a/b"), os.Symlink("/", path+"/a/b")); err != nil {
		t.Fatal(err)
	}
	if _, err := b.open(d); !errors.Is(err, unix.ELOOP) {
		t.Fatalf("open through a link: %v, want ELOOP", err)
	}
}

func TestLimitsAreKept(t *testing.T) {
	cases := []struct {
		name   string
		limits func(l *Limits)
		items  []item
		reason string
	}{
		{"entries", func(l *Limits) { l.Entries = 3 }, []item{file("a", ""), file("a", ""), file("a", ""), file("a", "")}, `more than 3 entries`},
		{"parents nobody described", func(l *Limits) { l.Entries = 10 }, []item{file("a/b/c/d/e/f/g/h/i/j/k", "")}, `more than 10 inodes`},
		{"metadata", func(l *Limits) { l.Metadata = 100 }, []item{file("a", ""), symlink("b", strings.Repeat("t", 100))}, `entry "b": more than 100 bytes of names`},
		{"names of hard links", func(l *Limits) { l.Metadata = 100 }, []item{file("a", ""), hardlink(strings.Repeat("b", 100), "a")}, `more than 100 bytes of names`},
		{"sparse", func(l *Limits) { l.Sparse = 1 << 20 }, nil, `entry "z": more than 1048576 bytes in sparse files`},
		{"archive", func(l *Limits) { l.Archive = 4096 }, []item{file("a", strings.Repeat("x", 5000))}, `archive of more than 4096 bytes`},
	}
	for _, c := range cases {
		for _, form := range []string{Directory, Erofs} {
			t.Run(c.name+"/"+form, func(t *testing.T) {
				limits := DefaultLimits
				c.limits(&limits)
				s := openStore(t, form, WithLimits(limits))
				data := archive(t, c.items...)
				if c.items == nil {
					data = join(sparse("x", 1<<19), sparse("y", 1<<19), sparse("z", 1))
				}
				_, err := s.Write(context.Background(), bytes.NewReader(data))
				if err == nil || !strings.Contains(err.Error(), c.reason) || !errors.Is(err, ErrInvalid) {
					t.Errorf("error %v, want %q", err, c.reason)
				}
				nothingLeft(t, s)
			})
		}
	}
}
