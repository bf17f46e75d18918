package layer

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"cri-mini/image/layer/index"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

// verify lists what Verify finds.
func verify(t testing.TB, s Store, id digest.Digest) (found []string) {
	t.Helper()
	if err := s.Verify(context.Background(), id, func(d Difference) { found = append(found, d.String()) }); err != nil {
		t.Fatal(err)
	}
	return found
}

// verified is the archive of the tests below: one of everything.
func verified(t *testing.T) []byte {
	return archive(t,
		dir("d").mode(0o750), file("d/a", strings.Repeat("text ", 100_000)).owner(7, 8).xattr("user.k", "v"), file("d/b", "short").at(time.Unix(5, 6)),
		hardlink("d/h", "d/b"), symlink("s", "d/a"), device(tar.TypeChar, "c", 1, 3), fifo("p"), file(".wh.w", ""), file("o/.wh..wh..opq", ""), file("empty", ""))
}

func TestVerifyNamesEachChangeOfADirectory(t *testing.T) {
	for what, c := range map[string]struct {
		change func(tree string) error
		want   []string
	}{
		"nothing": {func(string) error { return nil }, nil},
		"one byte": {func(tree string) error { return flip(filepath.Join(tree, "d/a"), 300_000, true) },
			[]string{`"d/a": content differs`}},
		"mode":        {func(tree string) error { return os.Chmod(filepath.Join(tree, "d"), 0o755) }, []string{`"d": mode is 0755, want 0750`}},
		"set-user-id": {func(tree string) error { return unix.Chmod(filepath.Join(tree, "empty"), 0o4755) }, []string{`"empty": mode is 4755, want 0644`}},
		"owner":       {func(tree string) error { return os.Lchown(filepath.Join(tree, "s"), 1, 2) }, []string{`"s": owner is 1:2, want 0:0`}},
		"time": {func(tree string) error {
			return os.Chtimes(filepath.Join(tree, "d/b"), time.Unix(1, 0), time.Unix(9, 1))
		},
			[]string{`"d/b": time is 9.000000001, want 5.000000006`, `"d/h": time is 9.000000001, want 5.000000006`}},
		"removed":           {func(tree string) error { return os.Remove(filepath.Join(tree, "d/a")) }, []string{`"d/a": is missing`}},
		"removed directory": {func(tree string) error { return os.RemoveAll(filepath.Join(tree, "d")) }, []string{`"d": is missing`}},
		"removed whiteout":  {func(tree string) error { return os.Remove(filepath.Join(tree, "w")) }, []string{`"w": is missing`}},
		"added":             {func(tree string) error { return os.WriteFile(filepath.Join(tree, "d/new\n"), nil, 0o600) }, []string{`"d/new\n": is not in the image`}},
		"truncated":         {func(tree string) error { return truncate(filepath.Join(tree, "d/a"), 4096) }, []string{`"d/a": has 4096 bytes, want 500000`}},
		"zeros":             {func(tree string) error { return zero(filepath.Join(tree, "d/a")) }, []string{`"d/a": content differs`}},
		"xattr":             {func(tree string) error { return unix.Setxattr(filepath.Join(tree, "d/a"), "user.k", []byte("w"), 0) }, []string{`"d/a": xattr "user.k" is "w", want "v"`}},
		"xattr removed":     {func(tree string) error { return unix.Removexattr(filepath.Join(tree, "d/a"), "user.k") }, []string{`"d/a": xattr "user.k" is missing`}},
		"xattr added": {func(tree string) error {
			return unix.Setxattr(filepath.Join(tree, "d"), "trusted.overlay.opaque", []byte("y"), 0)
		},
			[]string{`"d": xattr "trusted.overlay.opaque" is not in the image`}},
		"opaque removed": {func(tree string) error { return unix.Removexattr(filepath.Join(tree, "o"), "trusted.overlay.opaque") },
			[]string{`"o": xattr "trusted.overlay.opaque" is missing`}},
		"label": {func(tree string) error {
			return unix.Lsetxattr(filepath.Join(tree, "s"), "security.label", []byte("machine"), 0)
		}, nil},
		"link": {func(tree string) error {
			return again(filepath.Join(tree, "s"), func(p string) error { return os.Symlink("/etc/shadow", p) })
		},
			[]string{`"s": leads to "/etc/shadow", want "d/a"`, `"s": time is`}},
		"link for a file": {func(tree string) error {
			return again(filepath.Join(tree, "d/a"), func(p string) error { return os.Symlink("/etc/shadow", p) })
		},
			[]string{`"d/a": is a symbolic link, want a regular file`}},
		"link for a directory": {func(tree string) error {
			return again(filepath.Join(tree, "d"), func(p string) error { return os.Symlink("/etc", p) })
		},
			[]string{`"d": is a symbolic link, want a directory`}},
		"pipe for a file": {func(tree string) error {
			return again(filepath.Join(tree, "d/a"), func(p string) error { return unix.Mkfifo(p, 0o644) })
		},
			[]string{`"d/a": is a pipe, want a regular file`}},
		"other device": {func(tree string) error {
			return again(filepath.Join(tree, "c"), func(p string) error { return unix.Mknod(p, unix.S_IFCHR|0o600, int(unix.Mkdev(1, 5))) })
		},
			[]string{`"c": is device 1:5, want 1:3`, `"c": time is`}},
		"copy for a hard link": {func(tree string) error {
			return again(filepath.Join(tree, "d/h"), func(p string) error { return os.WriteFile(p, []byte("short"), 0o644) })
		}, []string{`"d/h": is no hard link to what it should be one to`, `"d/h": time is`}},
		"all": {os.RemoveAll, []string{`".": is missing`}},
	} {
		t.Run(what, func(t *testing.T) {
			s := openStore(t, Directory)
			id := write(t, s, verified(t))
			tree, _ := s.Path(id)
			keepRoot, keep := timesOf(t, tree), timesOf(t, filepath.Join(tree, "d"))
			if err := c.change(tree); err != nil {
				t.Fatal(err)
			}
			keep()
			keepRoot()
			begins(t, verify(t, s, id), c.want)
		})
	}
}

func TestVerifyNamesEachChangeOfAnImage(t *testing.T) {
	for what, c := range map[string]struct {
		change func(image string, at int64) error
		want   []string
	}{
		"nothing":         {func(string, int64) error { return nil }, nil},
		"byte of a file":  {func(image string, at int64) error { return flip(image, at+300_000, false) }, []string{`"d/a": content differs`}},
		"byte behind one": {func(image string, at int64) error { return flip(image, at+500_000, false) }, []string{`"d/a": bytes behind the end differ`}},
		"superblock":      {func(image string, _ int64) error { return flip(image, 1030, false) }, []string{`image.erofs: first block differ from what was written`}},
		"attributes":      {func(image string, _ int64) error { return flip(image, -100, false) }, []string{`image.erofs: names and attributes differ from what was written`}},
		"truncated": {func(image string, at int64) error { return os.Truncate(image, at+8192) },
			[]string{`image.erofs has`, `image.erofs, names and attributes: is cut off`, `"d/a": is cut off`, `"d/b": is cut off`}},
		"longer": {func(image string, _ int64) error {
			f, err := os.OpenFile(image, os.O_WRONLY|os.O_APPEND, 0)
			if err == nil {
				_, err = f.Write(make([]byte, 4096))
				f.Close()
			}
			return err
		}, []string{`image.erofs has`}},
		"removed": {func(image string, _ int64) error { return os.Remove(image) }, []string{`open image.erofs: no such file`}},
	} {
		t.Run(what, func(t *testing.T) {
			s := openStore(t, Erofs)
			id := write(t, s, verified(t))
			image, _ := s.Path(id)
			data, err := os.ReadFile(image)
			if err != nil {
				t.Fatal(err)
			}
			if err := c.change(image, int64(bytes.Index(data, []byte("text text ")))); err != nil {
				t.Fatal(err)
			}
			begins(t, verify(t, s, id), c.want)
		})
	}
}

func TestVerifySaysWhatItDoesNotKnow(t *testing.T) {
	eachForm(t, func(t *testing.T, s Store) {
		id := write(t, s, verified(t))
		path := filepath.Join(s.(*store).root, layersDir, folderName(id), indexFile)
		if err := flip(path, 100, false); err != nil {
			t.Fatal(err)
		}
		begins(t, verify(t, s, id), []string{index.ErrDamaged.Error()})
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		none := func(d Difference) { t.Errorf("found %s", d) }
		if err := s.Verify(t.Context(), id, none); !errors.Is(err, ErrNoIndex) {
			t.Errorf("without an index: %v, want ErrNoIndex", err)
		}
		if err := s.Verify(t.Context(), digest.FromString("other"), none); !errors.Is(err, ErrNotFound) {
			t.Errorf("of an unknown layer: %v, want ErrNotFound", err)
		}
		write(t, s, archive(t, file("a", "text")))
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		if err := s.Verify(gone, write(t, s, archive(t, file("a", "text"))), none); !errors.Is(err, context.Canceled) {
			t.Errorf("canceled: %v", err)
		}
	})
}

// begins holds that each line begins as wanted, in any order.
func begins(t *testing.T, got, want []string) {
	t.Helper()
	slices.Sort(got)
	want = slices.Sorted(slices.Values(want))
	good := len(got) == len(want)
	for i := 0; good && i < len(got); i++ {
		good = strings.HasPrefix(got[i], want[i])
	}
	if !good {
		t.Errorf("found\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// flip changes one bit, from the end if at is negative, and can hide that by
// the time.
func flip(path string, at int64, hide bool) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if at < 0 {
		at += int64(len(data))
	}
	data[at] ^= 1
	return rewrite(path, data, hide)
}

func rewrite(path string, data []byte, hide bool) error {
	before, err := os.Stat(path)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(data, 0)
	if err = errors.Join(err, f.Close()); err != nil || !hide {
		return err
	}
	return os.Chtimes(path, before.ModTime(), before.ModTime())
}

// zero is what a power cut leaves of a file whose content was not written.
func zero(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	return rewrite(path, make([]byte, info.Size()), true)
}

func truncate(path string, size int64) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	return errors.Join(os.Truncate(path, size), os.Chtimes(path, info.ModTime(), info.ModTime()))
}

func again(path string, create func(path string) error) error {
	return errors.Join(os.RemoveAll(path), create(path))
}

// timesOf sets the time of a directory back, where it is there still.
func timesOf(t *testing.T, path string) (back func()) {
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return func() {
		if now, err := os.Lstat(path); err == nil && now.IsDir() {
			os.Chtimes(path, info.ModTime(), info.ModTime())
		}
	}
}
