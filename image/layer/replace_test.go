package layer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"cri-mini/image/layer/index"
)

func pendingOf(t *testing.T, s Store, data []byte) Pending {
	t.Helper()
	p, err := s.Write(context.Background(), bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// What is mounted goes on as it was, also where nobody has looked before.
func TestMountedLayerGoesOnAfterItsReplacement(t *testing.T) {
	eachForm(t, func(t *testing.T, s Store) {
		data := archive(t, file("d/seen", "seen before"), file("d/unseen", "never looked at"))
		id := write(t, s, data)
		mounted := stack(t, lower(t, s, id))
		read := func(name, want string) {
			t.Helper()
			if got, err := os.ReadFile(fmt.Sprintf("/proc/self/fd/%d/%s", mounted, name)); err != nil || string(got) != want {
				t.Errorf("%s: %q, %v; want %q", name, got, err, want)
			}
		}
		read("d/seen", "seen before")
		before, _ := s.Path(id)
		old, err := os.Stat(before)
		if err != nil {
			t.Fatal(err)
		}
		if err := pendingOf(t, s, data).Replace(t.Context()); err != nil {
			t.Fatal(err)
		}
		if now, err := os.Stat(before); err != nil || os.SameFile(old, now) {
			t.Errorf("the layer was not replaced: %v", err)
		}
		s.(*store).Wait()
		if err := s.Sweep(); err != nil {
			t.Fatal(err)
		}
		s.(*store).Wait()
		read("d/unseen", "never looked at")
		read("d/seen", "seen before")
		list, err := s.Replaced()
		if err != nil || len(list) != 1 || list[0].DiffID != id {
			t.Fatalf("replaced: %v, %v; want one copy of %s", list, err, id)
		}
		sameLines(t, verify(t, s, id), nil)
		if !s.(*store).synced(folderName(id)) {
			t.Error("the new layer is not marked as durable")
		}
		if err := s.RemoveReplaced(list[0]); err != nil {
			t.Fatal(err)
		}
		nothingLeft(t, s)
	})
}

func TestReplaceBringsBackALayerThatIsGone(t *testing.T) {
	eachForm(t, func(t *testing.T, s Store) {
		data := archive(t, file("a", "text"))
		if err := pendingOf(t, s, data).Replace(t.Context()); err != nil {
			t.Fatal(err)
		}
		sameLines(t, verify(t, s, digest.FromBytes(data)), nil)
		if list, err := s.Replaced(); err != nil || len(list) != 0 {
			t.Errorf("replaced: %v, %v; want none", list, err)
		}
		nothingLeft(t, s)
	})
}

// A disk that does not keep what is written must not cost us what is there.
func TestReplaceGivesNothingUpForALayerThatIsNotWhole(t *testing.T) {
	eachForm(t, func(t *testing.T, s Store) {
		data := archive(t, file("a", strings.Repeat("text", 5000)))
		id := write(t, s, data)
		path, _ := s.Path(id)
		old, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		p := pendingOf(t, s, data)
		spoiled := filepath.Join(p.(*pending).path, s.(*store).payload)
		if s.Form() == Directory {
			spoiled = filepath.Join(spoiled, "a")
		}
		if err := zero(spoiled); err != nil {
			t.Fatal(err)
		}
		if err := p.Replace(t.Context()); err == nil || !strings.Contains(err.Error(), "the disk does not keep what is written") {
			t.Errorf("replace by a layer full of zeros: %v", err)
		}
		if err := p.Discard(); err != nil {
			t.Fatal(err)
		}
		if now, err := os.Stat(path); err != nil || !os.SameFile(old, now) {
			t.Errorf("the layer was replaced: %v", err)
		}
		sameLines(t, verify(t, s, id), nil)
		nothingLeft(t, s)
	})
}

// spoiledExchange has a layer mounted and its replacement fail by spoil, and
// holds that the mounted one is whole after Discard.
func spoiledExchange(t *testing.T, s Store, spoil func(*pending) error) (id digest.Digest, replaced []Replaced) {
	t.Helper()
	data := archive(t, file("d/unseen", "never looked at"))
	id = write(t, s, data)
	s.(*store).Wait() // nobody else opens anything
	mounted := stack(t, lower(t, s, id))
	p := pendingOf(t, s, data).(*pending)
	if err := p.prove(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := spoil(p); err == nil {
		t.Error("the replacement succeeded")
	}
	if err := p.Discard(); err != nil {
		t.Error(err)
	}
	name := fmt.Sprintf("/proc/self/fd/%d/d/unseen", mounted)
	if got, err := os.ReadFile(name); err != nil || string(got) != "never looked at" {
		t.Errorf("what is mounted: %q, %v", got, err)
	}
	sameLines(t, verify(t, s, id), nil)
	replaced, err := s.Replaced()
	if err != nil {
		t.Fatal(err)
	}
	return id, replaced
}

func TestReplaceWithoutDescriptorsTakesNothingFromContainers(t *testing.T) {
	eachForm(t, func(t *testing.T, s Store) {
		_, replaced := spoiledExchange(t, s, func(p *pending) error {
			var before unix.Rlimit
			if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
				t.Fatal(err)
			}
			if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 3, Max: before.Max}); err != nil {
				t.Fatal(err)
			}
			err := p.takePlace()
			if back := unix.Setrlimit(unix.RLIMIT_NOFILE, &before); back != nil {
				t.Fatal(back)
			}
			if !errors.Is(err, unix.EMFILE) || errors.Is(err, ErrNotDurable) {
				t.Errorf("replace: %v, want %v", err, unix.EMFILE)
			}
			return err
		})
		if len(replaced) > 0 {
			t.Errorf("replaced: %v, want none", replaced)
		}
		nothingLeft(t, s)
	})
}

func TestReplacedLayerStaysWhenItsPlaceCannotBeSynced(t *testing.T) {
	eachForm(t, func(t *testing.T, s Store) {
		id, replaced := spoiledExchange(t, s, func(p *pending) error {
			p.lock.Close() // its second Close fails, as a sync may
			err := p.takePlace()
			if !errors.Is(err, ErrNotDurable) {
				t.Errorf("replace: %v, want %v", err, ErrNotDurable)
			}
			return err
		})
		if len(replaced) != 1 || replaced[0].DiffID != id {
			t.Fatalf("replaced: %v, want one copy of %s", replaced, id)
		}
		if err := s.RemoveReplaced(replaced[0]); err != nil {
			t.Fatal(err)
		}
		nothingLeft(t, s)
	})
}

func TestErrorsOfTheDiskAreDamageAndOthersAreNot(t *testing.T) {
	for err, want := range map[error]bool{
		unix.EIO: true, unix.EUCLEAN: true, unix.EXDEV: true, unix.ENOENT: true,
		unix.ENOMEM: false, unix.EMFILE: false, context.Canceled: false, index.ErrDamaged: false,
	} {
		if got := isDamage(fmt.Errorf("read: %w", err)); got != want {
			t.Errorf("%v is damage: %v, want %v", err, got, want)
		}
	}
	if isDamage(errors.New("other")) || isDamage(nil) {
		t.Error("what is no error of the kernel is damage")
	}
}
