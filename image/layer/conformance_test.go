package layer

import (
	"archive/tar"
	"errors"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func asError[T error](err error, target *T) bool { return errors.As(err, target) }

const (
	implied = `drwxr-xr-x 0:0 at=0.000000000` // a directory nobody described
	root    = `"." ` + implied
)

var capNetRaw = "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"

var conforms = []struct {
	promise string
	items   []item
	want    string // one line per name; the root only if it is not as usual
}{
	{"an empty archive is an empty layer", nil, ``},
	{"a file has content, mode, owner and time", []item{
		file("a", "text").mode(0o640).owner(70000, 4294967294).at(time.Unix(1e9, 123456789)),
	}, `"a" -rw-r----- 70000:4294967294 at=1000000000.123456789 "text"`},
	{"set-user-id, set-group-id and sticky survive the change of owner", []item{
		file("su", "").mode(0o4755).owner(1, 1), file("sg", "").mode(0o2755).owner(1, 1), dir("t").mode(0o1777), dir("g").mode(0o2775).owner(5, 6),
	}, `"g" dgrwxrwxr-x 5:6
"sg" grwxr-xr-x 1:1 ""
"su" urwxr-xr-x 1:1 ""
"t" dtrwxrwxrwx 0:0`},
	{"times before 1970 and after 2038 survive", []item{
		file("old", "").at(time.Unix(-86400, 5)), file("new", "").at(time.Unix(1<<32, 0)), file("never", "").at(time.Unix(1<<40, 0)),
	}, `"never" -rw-r--r-- 0:0 at=15032385535.000000000 ""
"new" -rw-r--r-- 0:0 at=4294967296.000000000 ""
"old" -rw-r--r-- 0:0 at=-86400.000000005 ""`},
	{"the root is described by ./", []item{dir("./").mode(0o700).owner(3, 4)}, `"." drwx------ 3:4`},
	{"names are meant from the root of the layer", []item{file("/abs", ""), file("./dot", ""), file("a//b/./c", "")}, `"a" ` + implied + `
"a/b" ` + implied + `
"a/b/c" -rw-r--r-- 0:0 ""
"abs" -rw-r--r-- 0:0 ""
"dot" -rw-r--r-- 0:0 ""`},
	{"any byte but slash and NUL may be in a name", []item{file("new\nline", ""), file("\xff\xfe", ""), file("…", ""), file("!", ""), file("...", "")}, `"!" -rw-r--r-- 0:0 ""
"..." -rw-r--r-- 0:0 ""
"new\nline" -rw-r--r-- 0:0 ""
"\xff\xfe" -rw-r--r-- 0:0 ""
"…" -rw-r--r-- 0:0 ""`},
	{"a directory described after its children keeps them and its time", []item{
		file("d/a", "1"), dir("d").mode(0o711).at(time.Unix(7, 0)), file("d/b", "2"),
	}, `"d" drwx--x--x 0:0 at=7.000000000
"d/a" -rw-r--r-- 0:0 "1"
"d/b" -rw-r--r-- 0:0 "2"`},
	{"of entries with the same name the last wins", []item{file("a", "long text"), file("a", "new"), symlink("a", "b"), file("a", "end")}, `"a" -rw-r--r-- 0:0 "end"`},
	{"a file replaces a directory with all in it", []item{dir("d"), file("d/e/f", ""), file("d", "x")}, `"d" -rw-r--r-- 0:0 "x"`},
	{"a directory that replaces a file hides the lower layers", []item{file("d", "x"), dir("d"), file("d/a", "")}, `"d" drwxr-xr-x 0:0 trusted.overlay.opaque="y"
"d/a" -rw-r--r-- 0:0 ""`},
	{"a directory replaces a link to a directory, which stays", []item{file("real/a", ""), symlink("l", "real"), dir("l"), file("l/b", "")}, `"l" drwxr-xr-x 0:0 trusted.overlay.opaque="y"
"l/b" -rw-r--r-- 0:0 ""
"real" ` + implied + `
"real/a" -rw-r--r-- 0:0 ""`},
	{"hard links share one inode", []item{file("a", "x"), hardlink("d/b", "a"), hardlink("c", "/d/b")}, `"a" -rw-r--r-- 0:0 links=3#1 "x"
"c" -rw-r--r-- 0:0 links=3#1 "x"
"d" ` + implied + `
"d/b" -rw-r--r-- 0:0 links=3#1 "x"`},
	{"a hard link to a symbolic link is one", []item{symlink("s", "/nowhere"), hardlink("h", "s")}, `"h" Lrwxrwxrwx 0:0 links=2#1 -> "/nowhere"
"s" Lrwxrwxrwx 0:0 links=2#1 -> "/nowhere"`},
	{"a hard link to itself changes nothing", []item{file("a", "x"), hardlink("./a", "a")}, `"a" -rw-r--r-- 0:0 "x"`},
	{"a replaced name leaves its hard links alone", []item{file("a", "1"), hardlink("b", "a"), hardlink("c", "a"), file("a", "2")}, `"a" -rw-r--r-- 0:0 "2"
"b" -rw-r--r-- 0:0 links=2#1 "1"
"c" -rw-r--r-- 0:0 links=2#1 "1"`},
	{"a hard link replaces what was there", []item{file("a", "1"), file("d/x", ""), hardlink("d", "a")}, `"a" -rw-r--r-- 0:0 links=2#1 "1"
"d" -rw-r--r-- 0:0 links=2#1 "1"`},
	{"symbolic links are kept as they are", []item{symlink("a", "/etc/passwd"), symlink("b", "../../.."), symlink("c", strings.Repeat("x", 4095)), symlink("d", strings.Repeat("y", 4032)), symlink("e", strings.Repeat("z", 4033))},
		`"a" Lrwxrwxrwx 0:0 -> "/etc/passwd"
"b" Lrwxrwxrwx 0:0 -> "../../.."
"c" Lrwxrwxrwx 0:0 -> "` + strings.Repeat("x", 4095) + `"
"d" Lrwxrwxrwx 0:0 -> "` + strings.Repeat("y", 4032) + `"
"e" Lrwxrwxrwx 0:0 -> "` + strings.Repeat("z", 4033) + `"`},
	{"the owner and time of a symbolic link are its own", []item{file("f", ""), symlink("s", "f").owner(8, 9).at(time.Unix(5, 0))}, `"f" -rw-r--r-- 0:0 ""
"s" Lrwxrwxrwx 8:9 at=5.000000000 -> "f"`},
	{"a parent that is a link of this layer leads to a place in this layer", []item{
		dir("usr/lib"), symlink("lib", "usr/lib"), file("lib/a", "1"), symlink("abs", "/usr/lib"), file("abs/b", "2"), symlink("usr/up", "../../../../usr"), file("usr/up/c", "3"),
	}, `"abs" Lrwxrwxrwx 0:0 -> "/usr/lib"
"lib" Lrwxrwxrwx 0:0 -> "usr/lib"
"usr" ` + implied + `
"usr/c" -rw-r--r-- 0:0 "3"
"usr/lib" drwxr-xr-x 0:0
"usr/lib/a" -rw-r--r-- 0:0 "1"
"usr/lib/b" -rw-r--r-- 0:0 "2"
"usr/up" Lrwxrwxrwx 0:0 -> "../../../../usr"`},
	{"devices and pipes", []item{
		device(tar.TypeChar, "c", 1, 3).mode(0o666), device(tar.TypeBlock, "b", 4095, 1048575).owner(0, 6), fifo("p").mode(0o622), device(tar.TypeBlock, "zero", 0, 0), device(tar.TypeChar, "m", 0, 300),
	}, `"b" Drw------- 0:6 4095:1048575
"c" Dcrw-rw-rw- 0:0 1:3
"m" Dcrw------- 0:0 0:300
"p" prw--w--w- 0:0
"zero" Drw------- 0:0 0:0`},
	{"a whiteout is a device 0:0", []item{file(".wh.gone", ""), file("d/.wh.gone", "ignored"), device(tar.TypeChar, "packed", 0, 0)}, `"d" ` + implied + `
"d/gone" whiteout
"gone" whiteout
"packed" whiteout`},
	{"a whiteout does not hide what its own layer has", []item{
		file("before", "1"), file(".wh.before", ""), file(".wh.after", ""), file("after", "2"), dir("d"), file("d/x", ""), file(".wh.d", ""), file(".wh.e", ""), file("e/x", ""),
	}, `"after" -rw-r--r-- 0:0 "2"
"before" -rw-r--r-- 0:0 "1"
"d" drwxr-xr-x 0:0 trusted.overlay.opaque="y"
"d/x" -rw-r--r-- 0:0 ""
"e" ` + implied + ` trusted.overlay.opaque="y"
"e/x" -rw-r--r-- 0:0 ""`},
	{"an opaque directory is marked, wherever the mark stands", []item{
		file("a/.wh..wh..opq", ""), dir("a"), file("a/x", ""), dir("b").xattr("user.k", "v"), file("b/x", ""), file("b/.wh..wh..opq", ""),
	}, `"a" drwxr-xr-x 0:0 trusted.overlay.opaque="y"
"a/x" -rw-r--r-- 0:0 ""
"b" drwxr-xr-x 0:0 trusted.overlay.opaque="y" user.k="v"
"b/x" -rw-r--r-- 0:0 ""`},
	{"the books of AUFS are no files", []item{dir(".wh..wh.plnk"), file(".wh..wh.plnk/1.2", "x"), file(".wh..wh.aufs", ""), file("a", "")}, `"a" -rw-r--r-- 0:0 ""`},
	{"xattrs are kept", []item{
		file("f", "").owner(1, 1).xattr("user.a", "1").xattr("user.empty", "").xattr("trusted.t", "\x00\xff").xattr(capability, capNetRaw),
		dir("d").xattr("user.d", strings.Repeat("v", 3000)), fifo("p").xattr("trusted.p", "q"), symlink("s", "f").xattr("trusted.s", "r"),
	}, `"d" drwxr-xr-x 0:0 user.d=3000 bytes ` + sum(strings.Repeat("v", 3000)) + `
"f" -rw-r--r-- 1:1 "" security.capability=` + quote(capNetRaw) + ` trusted.t="\x00\xff" user.a="1" user.empty=""
"p" prw------- 0:0 trusted.p="q"
"s" Lrwxrwxrwx 0:0 -> "f" trusted.s="r"`},
	{"labels and attributes of other systems are dropped", []item{
		file("f", "").xattr("security.selinux", "u:r:t:s0").xattr("security.ima", "x").xattr("com.apple.provenance", "x").xattr("system.posix_acl_access", "x"),
		symlink("s", "f").xattr("user.a", "1"), dir("d").xattr(capability, capNetRaw),
	}, `"d" drwxr-xr-x 0:0
"f" -rw-r--r-- 0:0 ""
"s" Lrwxrwxrwx 0:0 -> "f"`},
	{"names may have 255 bytes", []item{file(strings.Repeat("n", 255)+"/"+strings.Repeat("m", 255), "")}, `"` + strings.Repeat("n", 255) + `" ` + implied + `
"` + strings.Repeat("n", 255) + "/" + strings.Repeat("m", 255) + `" -rw-r--r-- 0:0 ""`},
	{"the old GNU format of long names works", []item{
		file(strings.Repeat("long/", 60)[:299], "x").with(func(h *tar.Header) { h.Format = tar.FormatGNU }), symlink("s", strings.Repeat("t", 300)).with(func(h *tar.Header) { h.Format = tar.FormatGNU }),
	}, impliedChain("long", 59) + `"` + strings.Repeat("long/", 59) + `long" -rw-r--r-- 0:0 "x"
"s" Lrwxrwxrwx 0:0 -> "` + strings.Repeat("t", 300) + `"`},
}

func TestLayerConforms(t *testing.T) {
	for _, c := range conforms {
		t.Run(c.promise, func(t *testing.T) {
			want := strings.FieldsFunc(c.want, func(r rune) bool { return r == '\n' })
			if !strings.HasPrefix(c.want, `"." `) {
				want = append(want, root)
			}
			eachForm(t, func(t *testing.T, s Store) {
				id := write(t, s, archive(t, c.items...))
				sameLines(t, view(t, lower(t, s, id)), want)
				sameLines(t, verify(t, s, id), nil)
			})
		})
	}
}

// Directories have the link counts that find(1) and others rely on.
func TestDirectoriesCountTheirSubdirectories(t *testing.T) {
	eachForm(t, func(t *testing.T, s Store) {
		fd := lower(t, s, write(t, s, archive(t, dir("a/b"), dir("a/c"), file("a/f", ""))))
		for name, want := range map[string]uint64{".": 3, "a": 4, "a/b": 2} {
			var st unix.Stat_t
			if err := unix.Fstatat(fd, name, &st, 0); err != nil || uint64(st.Nlink) != want {
				t.Errorf("links of %s: %d, %v; want %d", name, st.Nlink, err, want)
			}
		}
	})
}
