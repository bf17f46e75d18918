package layer

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"cri-mini/image/layer/index"
	"cri-mini/image/layer/tree"
	"cri-mini/internal/testtool"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

// randomItems use few names, so that entries replace, link and hide each other.
func randomItems(random *rand.Rand) []item {
	var list []item
	for range 1 + random.IntN(30) {
		i := randomItem(random).mode(int64(random.IntN(0o10000))).owner(random.IntN(3), random.IntN(3)).at(time.Unix(int64(random.IntN(100)), int64(random.IntN(1e9))))
		if random.IntN(4) == 0 {
			i = i.xattr("trusted.x", fmt.Sprint(random.IntN(10))).xattr("user.x", "y")
		}
		list = append(list, i)
	}
	return list
}

func randomItem(random *rand.Rand) item {
	name := randomName(random)
	switch random.IntN(12) {
	case 0, 1:
		return dir(name)
	case 2, 3:
		return symlink(name, strings.Repeat("../", random.IntN(3))+randomName(random))
	case 4, 5:
		return hardlink(name, randomName(random))
	case 6:
		return device(tar.TypeChar, name, int64(random.IntN(2)), int64(random.IntN(2)))
	case 7:
		return fifo(name)
	case 8:
		return file(whiteoutOf(name), "")
	case 9:
		return file(name+"/"+opaqueName, "")
	}
	return file(name, strings.Repeat("x", random.IntN(100)*random.IntN(100)))
}

func randomName(random *rand.Rand) string {
	var parts []string
	for range 1 + random.IntN(3) {
		parts = append(parts, string(rune('a'+random.IntN(3))))
	}
	return strings.Join(parts, "/")
}

func whiteoutOf(name string) string {
	at := strings.LastIndex(name, "/") + 1
	return name[:at] + whiteoutPrefix + name[at:]
}

// bothForms writes an archive in both forms and compares what came of it.
func bothForms(t *testing.T, directories, images Store, data []byte) (applied bool) {
	t.Helper()
	d, dErr := directories.Write(context.Background(), bytes.NewReader(data))
	i, iErr := images.Write(context.Background(), bytes.NewReader(data))
	if dErr != nil || iErr != nil {
		for _, p := range []Pending{d, i} {
			if p != nil {
				p.Discard()
			}
		}
		// Only the host's file system may be of another opinion: ext4 has less
		// room for xattrs than an image.
		if errors.Is(dErr, ErrInvalid) != errors.Is(iErr, ErrInvalid) {
			t.Fatalf("directory: %v\nerofs: %v", dErr, iErr)
		}
		if errors.Is(dErr, ErrInvalid) && dErr.Error() != iErr.Error() {
			t.Fatalf("directory: %v\nerofs: %v", dErr, iErr)
		}
		return false
	}
	if err := errors.Join(d.Commit(), i.Commit()); err != nil {
		t.Fatal(err)
	}
	if a, b := d.Info(), i.Info(); a.DiffID != b.DiffID || a.Inodes != b.Inodes || a.Opaque != b.Opaque {
		t.Fatalf("directory %+v, erofs %+v", a, b)
	}
	sameLines(t, view(t, lower(t, images, i.DiffID())), view(t, lower(t, directories, d.DiffID())))
	return true
}

func TestFormsAgreeOnRandomArchives(t *testing.T) {
	directories, images := memoryStores(t, DefaultLimits)
	applied := 0
	for seed := range uint64(400) {
		// A subtest closes its descriptors; the seed is in its name.
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			list := randomItems(rand.New(rand.NewPCG(seed, 1)))
			// Drop what is refused alone, else most archives fail early.
			data := archive(t, acceptable(t, list)...)
			if bothForms(t, directories, images, data) {
				applied++
			}
		})
		if t.Failed() {
			return
		}
	}
	if applied < 390 {
		t.Errorf("only %d of 400 archives could be applied", applied)
	}
}

// acceptable returns the items without those that are refused where they stand.
func acceptable(t *testing.T, list []item) []item {
	var kept []item
	for _, i := range list {
		more := append(kept[:len(kept):len(kept)], i)
		if err := newUnpacker(nowhere{}, DefaultLimits).run(tar.NewReader(bytes.NewReader(archive(t, more...)))); err == nil {
			kept = more
		}
	}
	return kept
}

// nowhere is a builder that stores nothing.
type nowhere struct{}

func (nowhere) file(_ *tree.Node, _ string, _ *tree.Node, content io.Reader, _ bool) error {
	_, err := io.Copy(io.Discard, content)
	return err
}
func (nowhere) create(*tree.Node, string, *tree.Node) error       { return nil }
func (nowhere) link(*tree.Node, string, *tree.Node, string) error { return nil }
func (nowhere) remove(*tree.Node, string, *tree.Node) error       { return nil }
func (nowhere) finish(*tree.Node, digest.Digest) (uint64, index.File, error) {
	return 0, index.File{}, nil
}
func (nowhere) close() error { return nil }

// memoryStores are stores of both forms in memory: thousands of layers come and
// go here, and a disk may take milliseconds for each file that is deleted.
// Images need a ramfs, for tmpfs cannot back a mount.
func memoryStores(t testing.TB, limits Limits) (directories, images Store) {
	t.Helper()
	for _, s := range []struct {
		form, memory string
		into         *Store
	}{{Directory, "tmpfs", &directories}, {Erofs, "ramfs", &images}} {
		opened, err := open(memory(t, s.memory), s.form, []Option{WithLimits(limits)})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(opened.Wait)
		*s.into = opened
	}
	return directories, images
}

// memory is a folder in a file system of the given type that is mounted
// nowhere, so that nothing is left of it even when the test is killed.
func memory(t testing.TB, fsType string) string {
	t.Helper()
	fd, err := mountDetached(fsType, func(int) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	writable(t, fd)
	return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), fd)
}

func TestImagesOfRandomArchivesPassTheCheckOfErofsUtils(t *testing.T) {
	fsck := testtool.Need(t, "fsck.erofs", "erofs-utils")
	s := openStore(t, Erofs)
	for seed := range uint64(20) {
		path, err := s.Path(write(t, s, archive(t, acceptable(t, randomItems(rand.New(rand.NewPCG(seed, 3))))...)))
		if err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command(fsck, "--extract", path).CombinedOutput(); err != nil {
			t.Fatalf("fsck.erofs of seed %d: %v\n%s", seed, err, out)
		}
	}
}
