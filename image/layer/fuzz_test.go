package layer

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

// FuzzWrite feeds bytes from strangers to both forms. Whatever they are, both
// give the same answer, a refusal leaves nothing, and nothing outside changes.
func FuzzWrite(f *testing.F) {
	for _, c := range conforms {
		f.Add(archive(f, c.items...))
	}
	for _, c := range hostile {
		if data := c.archive(f); len(data) < 16<<10 {
			f.Add(data)
		}
	}
	for seed := range uint64(10) {
		f.Add(archive(f, randomItems(rand.New(rand.NewPCG(seed, 2)))...))
	}
	out := newOutside(f)
	f.Add(archive(f,
		symlink("abs", out.path), symlink("rel", strings.Repeat("../", 9)+out.path[1:]), symlink("file", out.path+"/victim"),
		file("abs/new", "x"), file("rel/new", "x"), file("file", "after"), file("abs/.wh.victim", "")))
	f.Add(archive(f,
		symlink("s", out.path), dir("s").mode(0o777).owner(5, 5), file("s/victim", "after").mode(0o777), file("rel/.wh.victim", ""),
		hardlink("s/victim", "s/victim"), symlink("s", out.path), file("s/"+opaqueName, "")))
	limits := Limits{Entries: 500, Path: 4095, Depth: 256, Metadata: 1 << 20, Sparse: 1 << 20, Archive: 1 << 20}
	directories, images := memoryStores(f, limits)
	stores := []Store{directories, images}
	before := [][]string{topOf(f, directories), topOf(f, images)}
	f.Fuzz(func(t *testing.T, data []byte) {
		if bothForms(t, directories, images, data) {
			id := digest.FromBytes(data)
			if err := errors.Join(directories.Remove(id), images.Remove(id)); err != nil {
				t.Fatal(err)
			}
		}
		for i, s := range stores {
			nothingLeft(t, s)
			if now := topOf(t, s); !reflect.DeepEqual(now, before[i]) {
				t.Fatalf("the folder of the store had %q, has %q", before[i], now)
			}
		}
		out.unchanged(t)
	})
}

// topOf lists what lies beside the layers.
func topOf(t testing.TB, s Store) (names []string) {
	entries, err := os.ReadDir(s.(*store).path("."))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// outside is a folder with a file that no archive may touch. Its path is the
// same in all processes of a fuzz run, and each has one of its own.
type outside struct {
	path   string
	folder unix.Stat_t
	victim unix.Stat_t
}

func newOutside(t testing.TB) *outside {
	const number = 900
	fd, err := mountDetached("tmpfs", func(int) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	err = unix.Dup3(fd, number, unix.O_CLOEXEC)
	unix.Close(fd)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(number) })
	writable(t, number)
	o := &outside{path: fmt.Sprintf("/proc/self/fd/%d", number)}
	if err := os.WriteFile(o.path+"/victim", []byte("before"), 0o600); err != nil {
		t.Fatal(err)
	}
	o.folder, o.victim = o.stat(t)
	return o
}

func (o *outside) stat(t testing.TB) (folder, victim unix.Stat_t) {
	if err := errors.Join(unix.Stat(o.path, &folder), unix.Stat(o.path+"/victim", &victim)); err != nil {
		t.Fatalf("the folder outside: %v", err)
	}
	return folder, victim
}

// unchanged compares also the times of the last change, which nobody can set.
func (o *outside) unchanged(t testing.TB) {
	if folder, victim := o.stat(t); folder != o.folder || victim != o.victim {
		t.Fatalf("the folder outside was %+v with %+v, is %+v with %+v", o.folder, o.victim, folder, victim)
	}
}
