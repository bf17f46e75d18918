package image

import (
	"errors"
	"testing"

	"cri-mini/internal/testregistry"
)

func TestRemovedImageKeepsItsLayersForItsHolders(t *testing.T) {
	inBothForms(t, func(t *testing.T, form string) {
		for _, restart := range []bool{false, true} {
			f := newFixtureIn(t, form, testregistry.Options{})
			f.r.Push("app", "1", image(text("a", "a"), text("b", "b")))
			img := f.pull("app:1")
			for _, owner := range []string{"one", "two", "two"} {
				if err := f.Hold(img.ID, owner); err != nil {
					t.Fatal(err)
				}
			}
			if err := f.Remove(f.name("app:1")); err != nil {
				t.Fatal(err)
			}
			if restart {
				f.restart()
				for _, owner := range []string{"one", "two"} {
					if err := f.Hold(img.ID, owner); err != nil {
						t.Fatalf("hold again: %v", err)
					}
				}
				f.collect()
			}
			if _, err := f.Get(img.ID); !errors.Is(err, ErrNotFound) || len(f.List()) != 0 {
				t.Errorf("a removed image is shown: %v, %v", err, f.List())
			}
			f.Release("one")
			f.Release("nobody")
			if got := f.read(img.ID, "b"); got != "b" {
				t.Errorf("held layer says %q", got)
			}
			f.Release("two")
			if _, err := f.Layers(img.ID); !errors.Is(err, ErrNotFound) {
				t.Errorf("Layers after the last release: %v", err)
			}
			if err := f.Hold(img.ID, "three"); !errors.Is(err, ErrNotFound) {
				t.Errorf("Hold of what is gone: %v", err)
			}
			f.wantEmpty("after the last release")
		}
	})
}

func TestCollectRemovesImagesThatNobodyHoldsAfterRestart(t *testing.T) {
	f := newFixture(t, testregistry.Options{})
	f.r.Push("app", "1", image(text("a", "a")))
	img := f.pull("app:1")
	f.Hold(img.ID, "one")
	f.Remove(img.ID)
	f.restart()
	f.collect()
	f.wantEmpty("after Collect")
}

func TestRemovedAndHeldImageComesBackByPull(t *testing.T) {
	f := newFixture(t, testregistry.Options{})
	f.r.Push("app", "1", image(text("a", "a")))
	img := f.pull("app:1")
	f.Hold(img.ID, "one")
	f.Remove(img.ID)
	f.r.Forget()
	again := f.pull("app:1")
	if again.ID != img.ID || f.r.Count("blobs/") > 1 {
		t.Errorf("pulled %s with %d blobs, want %s with the config only", again.ID, f.r.Count("blobs/"), img.ID)
	}
	f.Release("one")
	if f.read(img.ID, "a") != "a" {
		t.Error("the image lost its layer")
	}
	f.Remove(img.ID)
	f.wantEmpty("in the end")
}

func TestTagLostByHeldImageWithoutDigest(t *testing.T) {
	f := newFixture(t, testregistry.Options{})
	first, err := f.ImportRootfs(t.Context(), folderWith(t, "a", "first"), "registry.test/x:1", Config{})
	if err != nil {
		t.Fatal(err)
	}
	f.Hold(first.ID, "one")
	second, err := f.ImportRootfs(t.Context(), folderWith(t, "a", "second"), "registry.test/x:1", Config{})
	if err != nil {
		t.Fatal(err)
	}
	if list := f.List(); len(list) != 1 || list[0].ID != second.ID {
		t.Errorf("List() = %v, want only the second", list)
	}
	if f.read(first.ID, "a") != "first" {
		t.Error("the held layer is gone")
	}
	f.Release("one")
	f.Remove(second.ID)
	f.wantEmpty("in the end")
}
