package layer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
)

func TestLayerIsVisibleFromCommitToRemove(t *testing.T) {
	eachForm(t, func(t *testing.T, s Store) {
		data := archive(t, file("a", "text"), dir("d"), hardlink("d/b", "a"), file(".wh.x", ""))
		p, err := s.Write(context.Background(), bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		id := p.DiffID()
		if _, err := s.Path(id); !errors.Is(err, ErrNotFound) {
			t.Fatalf("path before commit: %v, want ErrNotFound", err)
		}
		if err := p.Commit(); err != nil {
			t.Fatal(err)
		}
		if err := p.Discard(); err != nil {
			t.Fatalf("discard after commit: %v", err)
		}
		list, err := s.List()
		if err != nil || len(list) != 1 || list[0] != p.Info() {
			t.Fatalf("list %v, %v; want %v", list, err, p.Info())
		}
		if got := list[0]; got.DiffID != id || got.Inodes != 4 || got.Size < 4096 || got.Size > 64<<10 {
			t.Errorf("info %+v, want 4 inodes (root, a, d, x) and a few blocks", got)
		}
		again, err := open(s.(*store).root, s.Form(), nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := again.Path(id); err != nil {
			t.Fatalf("path after opening again: %v", err)
		}
		path, _ := s.Path(id)
		if err := s.Remove(id); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the layer is still at %s: %v", path, err)
		}
		if _, err := s.Path(id); !errors.Is(err, ErrNotFound) {
			t.Errorf("path after remove: %v, want ErrNotFound", err)
		}
		if err := s.Remove(id); !errors.Is(err, ErrNotFound) {
			t.Errorf("second remove: %v, want ErrNotFound", err)
		}
		nothingLeft(t, s)
	})
}

func TestInodesAreCountedAsTheyAre(t *testing.T) {
	eachForm(t, func(t *testing.T, s Store) {
		data := archive(t, file("a", "1"), hardlink("b", "a"), file("a", "2"), dir("d/e"), file("d/e/f", ""), file("d", ""), symlink("s", "x"), file(".wh.w", ""), file("x/y/z", ""))
		id := write(t, s, data)
		list, err := s.List()
		if err != nil {
			t.Fatal(err)
		}
		want := uint64(len(view(t, lower(t, s, id)))) // no name shares an inode
		if list[0].Inodes != want {
			t.Fatalf("%d inodes, want %d", list[0].Inodes, want)
		}
	})
}

func TestCommitSucceedsWhenTheLayerIsThereAlready(t *testing.T) {
	eachForm(t, func(t *testing.T, s Store) {
		data := archive(t, file("a", "text"))
		id := write(t, s, data)
		path, _ := s.Path(id)
		before, err := os.Lstat(path)
		if err != nil {
			t.Fatal(err)
		}
		write(t, s, data)
		after, err := os.Lstat(path)
		if err != nil || !os.SameFile(before, after) {
			t.Fatalf("the layer was replaced: %v", err)
		}
		nothingLeft(t, s)
	})
}

func TestArchiveCutOffAnywhereIsRefusedAndLeavesNothing(t *testing.T) {
	eachForm(t, func(t *testing.T, s Store) {
		data := archive(t, dir("d"), file("d/a", strings.Repeat("text", 300)), hardlink("b", "d/a"), file("long/"+strings.Repeat("n", 200), "x"), symlink("s", "d"))
		cuts := []int{len(data) - 1, len(data) - 512, len(data) - 513, len(data) - 1024, 1, 511}
		for i := 0; i < len(data)-1024; i += 256 {
			cuts = append(cuts, i)
		}
		for _, cut := range cuts {
			_, err := s.Write(context.Background(), bytes.NewReader(data[:cut]))
			if !errors.Is(err, ErrInvalid) {
				t.Fatalf("cut at %d of %d: %v, want ErrInvalid", cut, len(data), err)
			}
		}
		nothingLeft(t, s)
	})
}

func TestBytesAfterTheArchiveBelongToTheDigest(t *testing.T) {
	eachForm(t, func(t *testing.T, s Store) {
		write(t, s, append(archive(t, file("a", "")), bytes.Repeat([]byte("after"), 1e6)...))
	})
}

func TestFailingReaderIsNotTheArchivesFault(t *testing.T) {
	broken := errors.New("connection reset")
	eachForm(t, func(t *testing.T, s Store) {
		data := archive(t, file("a", strings.Repeat("x", 3<<20)))
		for _, n := range []int{0, 100, 512, 1 << 20, len(data) - 1, len(data)} {
			_, err := s.Write(context.Background(), io.MultiReader(bytes.NewReader(data[:n]), errorReader{broken}))
			if !errors.Is(err, broken) || errors.Is(err, ErrInvalid) {
				t.Errorf("after %d bytes: %v, want %v", n, err, broken)
			}
		}
		nothingLeft(t, s)
	})
}

type errorReader struct{ err error }

func (r errorReader) Read([]byte) (int, error) { return 0, r.err }

func TestCanceledWriteStopsReadingAndLeavesNothing(t *testing.T) {
	eachForm(t, func(t *testing.T, s Store) {
		ctx, cancel := context.WithCancel(context.Background())
		endless := &countingReader{after: 8 << 20, do: cancel, head: raw('0', "a", 1<<33-512, nil)}
		_, err := s.Write(ctx, endless)
		if !errors.Is(err, context.Canceled) || errors.Is(err, ErrInvalid) {
			t.Fatalf("write: %v, want context.Canceled", err)
		}
		read := endless.n
		time.Sleep(20 * time.Millisecond)
		if endless.n != read {
			t.Error("it read on after Write had returned")
		}
		nothingLeft(t, s)
	})
}

// countingReader gives a head and then bytes without end, and calls do once.
type countingReader struct {
	head     []byte
	n, after int
	do       func()
}

func (r *countingReader) Read(p []byte) (int, error) {
	n := copy(p, r.head)
	r.head = r.head[n:]
	if n == 0 {
		n = len(p)
	}
	if r.n += n; r.n > r.after {
		r.do()
	}
	return n, nil
}

func TestDiscardedLayerLeavesNothing(t *testing.T) {
	eachForm(t, func(t *testing.T, s Store) {
		p, err := s.Write(context.Background(), bytes.NewReader(archive(t, file("a/b/c", "text"))))
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := p.Discard(); err != nil {
				t.Fatal(err)
			}
		}
		if err := p.Commit(); err == nil {
			t.Error("commit after discard succeeded")
		}
		nothingLeft(t, s)
	})
}

// The same few layers, written many times at once, with removals and sweeps in
// between: each call succeeds, and what is there in the end is complete.
func TestStoreIsSafeForManyAtOnce(t *testing.T) {
	eachForm(t, func(t *testing.T, s Store) {
		var archives [3][]byte
		for i := range archives {
			archives[i] = archive(t, file("n", fmt.Sprint(i)), dir("d"), file("d/x", strings.Repeat("x", 100_000)), hardlink("h", "n"))
		}
		var all sync.WaitGroup
		for worker := range 8 {
			all.Go(func() {
				random := rand.New(rand.NewPCG(1, uint64(worker)))
				for range 25 {
					data := archives[random.IntN(len(archives))]
					p, err := s.Write(context.Background(), bytes.NewReader(data))
					if err != nil {
						t.Errorf("write: %v", err)
						return
					}
					switch random.IntN(4) {
					case 0:
						err = p.Discard()
					case 1:
						err = errors.Join(s.Sweep(), p.Commit())
					case 2:
						if err = p.Commit(); err == nil {
							if err = s.Remove(p.DiffID()); errors.Is(err, ErrNotFound) {
								err = nil // another worker was faster
							}
						}
					default:
						err = p.Commit()
					}
					if err != nil {
						t.Error(err)
					}
				}
			})
		}
		all.Wait()
		nothingLeft(t, s)
		for i, data := range archives {
			id := write(t, s, data)
			lines := strings.Join(view(t, lower(t, s, id)), "\n")
			if !strings.Contains(lines, fmt.Sprintf(`"n" -rw-r--r-- 0:0 links=2#1 "%d"`, i)) || !strings.Contains(lines, "100000 bytes") {
				t.Errorf("layer %d is not complete:\n%s", i, lines)
			}
		}
	})
}

func TestSweepRemovesWhatACrashLeftAndNothingElse(t *testing.T) {
	eachForm(t, func(t *testing.T, s Store) {
		id := write(t, s, archive(t, file("kept", "")))
		alive, err := s.Write(context.Background(), bytes.NewReader(archive(t, file("alive", ""))))
		if err != nil {
			t.Fatal(err)
		}
		root := s.(*store).root
		for _, dead := range []string{"unfinished/w-dead/tree/a/b", "removed/r-dead/tree/a"} {
			if err := os.MkdirAll(filepath.Join(root, dead), 0o700); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.Sweep(); err != nil {
			t.Fatal(err)
		}
		s.(*store).Wait()
		for _, dead := range []string{"unfinished/w-dead", "removed/r-dead"} {
			if _, err := os.Lstat(filepath.Join(root, dead)); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s is still there: %v", dead, err)
			}
		}
		if err := alive.Commit(); err != nil {
			t.Errorf("commit of what was being written during the sweep: %v", err)
		}
		if _, err := s.Path(id); err != nil {
			t.Error(err)
		}
		nothingLeft(t, s)
	})
}

// A power cut is played by the mark of another boot.
func TestLayerNotOnDiskBeforeAPowerCutIsFetchedAgain(t *testing.T) {
	eachForm(t, func(t *testing.T, s Store) {
		root := s.(*store).root
		synced, data := write(t, s, archive(t, file("synced", ""))), archive(t, file("lost", ""))
		lost := write(t, s, data)
		s.(*store).Wait()
		for _, id := range []digest.Digest{synced, lost} {
			if !s.(*store).synced(folderName(id)) {
				t.Errorf("%s is not synced", id)
			}
		}
		folder := filepath.Join(root, layersDir, folderName(lost))
		if err := errors.Join(os.Remove(filepath.Join(folder, syncedFile)), os.Truncate(filepath.Join(folder, bootFile), 0), os.Truncate(filepath.Join(folder, infoFile), 0)); err != nil {
			t.Fatal(err)
		}
		again, err := open(root, s.Form(), nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := again.Path(lost); !errors.Is(err, ErrNotFound) {
			t.Errorf("path of a layer that may be empty: %v, want ErrNotFound", err)
		}
		if _, err := again.Path(synced); err != nil {
			t.Error(err)
		}
		write(t, again, data) // even before the sweep
		if err := again.Sweep(); err != nil {
			t.Fatal(err)
		}
		if _, err := again.Path(lost); err != nil {
			t.Errorf("path of the layer written again: %v", err)
		}
		nothingLeft(t, again)
	})
}

// What a power cut leaves of a layer that was not synced may be anything; here
// it is zeros, with all names and attributes as they should be.
func TestLayerFullOfZerosAfterAPowerCutIsNeverServed(t *testing.T) {
	eachForm(t, func(t *testing.T, s Store) {
		data := archive(t, file("a", strings.Repeat("text", 5000)))
		id := write(t, s, data)
		s.(*store).Wait()
		root := s.(*store).root
		folder := filepath.Join(root, layersDir, folderName(id))
		spoiled := filepath.Join(folder, imageFile)
		if s.Form() == Directory {
			spoiled = filepath.Join(folder, "tree/a")
		}
		other := []byte("00000000-0000-0000-0000-000000000000\n")
		if err := errors.Join(zero(spoiled), os.Remove(filepath.Join(folder, syncedFile)), os.WriteFile(filepath.Join(folder, bootFile), other, 0o600)); err != nil {
			t.Fatal(err)
		}
		for range 2 { // also when the start is cut off before the sweep
			again, err := open(root, s.Form(), nil)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := again.Path(id); !errors.Is(err, ErrNotFound) {
				t.Fatalf("path: %v, want ErrNotFound", err)
			}
		}
		again, err := open(root, s.Form(), nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := again.Sweep(); err != nil {
			t.Fatal(err)
		}
		again.Wait()
		if _, err := os.Lstat(folder); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("it is still there: %v", err)
		}
		sameLines(t, verify(t, again, write(t, again, data)), nil)
		nothingLeft(t, again)
	})
}

// While a layer is synced it may be removed and come again: the mark must not
// go to the new one.
func TestOnlyWhatWasSyncedIsMarkedSo(t *testing.T) {
	eachForm(t, func(t *testing.T, s Store) {
		st := s.(*store)
		data := archive(t, file("a", "text"))
		id := digest.FromBytes(data)
		broken := errors.New("no disk")
		syncs := 0
		st.sync = func(*os.File) error {
			if syncs++; syncs > 1 {
				return broken
			}
			if err := s.Remove(id); err != nil {
				t.Error(err)
			}
			write(t, s, data)
			return nil
		}
		write(t, s, data)
		st.Wait()
		if syncs != 2 || st.synced(folderName(id)) {
			t.Errorf("after %d syncs, the second of which failed, the layer is marked as synced: %v", syncs, st.synced(folderName(id)))
		}
		if _, err := s.Path(id); err != nil {
			t.Error(err)
		}
		nothingLeft(t, s)
	})
}

func TestUnreadableLayerIsReplacedByTheNextCommit(t *testing.T) {
	eachForm(t, func(t *testing.T, s Store) {
		data := archive(t, file("a", ""))
		id := write(t, s, data)
		s.(*store).Wait()
		root := s.(*store).root
		if err := os.WriteFile(filepath.Join(root, layersDir, folderName(id), infoFile), []byte("{"), 0o600); err != nil {
			t.Fatal(err)
		}
		again, err := open(root, s.Form(), nil)
		if err != nil {
			t.Fatal(err)
		}
		if list, _ := again.List(); len(list) != 0 {
			t.Fatalf("list %v, want none", list)
		}
		write(t, again, data)
		nothingLeft(t, again)
	})
}

func TestOpenKeepsTheFormOfAStore(t *testing.T) {
	for _, form := range []string{Directory, Erofs} {
		t.Run(form, func(t *testing.T) {
			s := openStore(t, form)
			write(t, s, archive(t, file("a", "")))
			s.(*store).Wait()
			root := s.(*store).root
			if auto, err := Open(root, Auto); err != nil || auto.Form() != form {
				t.Errorf("Open(auto) = %v, %v; want form %q", auto, err, form)
			}
			other := map[string]string{Directory: Erofs, Erofs: Directory}[form]
			if _, err := Open(root, other); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("has the form %q, not %q", form, other)) {
				t.Errorf("Open(%s) of a store in the form %s: %v", other, form, err)
			}
		})
	}
	if _, err := Open(t.TempDir(), "zip"); err == nil || !strings.Contains(err.Error(), `form "zip" is none of`) {
		t.Errorf("Open(zip): %v", err)
	}
}
