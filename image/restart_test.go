package image

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"cri-mini/internal/testregistry"
	"cri-mini/internal/testtool"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

func TestRestartKeepsEverything(t *testing.T) {
	inBothForms(t, func(t *testing.T, form string) {
		f := newFixtureIn(t, form, testregistry.Options{})
		for _, n := range []string{"a", "b", "c"} {
			f.r.Push(n, "1", image(text("shared", "s"), text("own", n)))
			f.pull(n + ":1")
		}
		list := f.List()
		bytes, inodes := f.Usage()
		f.restart()
		f.collect()
		if got := f.List(); !reflect.DeepEqual(got, list) {
			t.Errorf("List() after restart\n%+v\nwant\n%+v", got, list)
		}
		if b, i := f.Usage(); b != bytes || i != inodes || b == 0 || i == 0 {
			t.Errorf("Usage() after restart %d, %d; want %d, %d", b, i, bytes, inodes)
		}
		if bytes < list[0].Size || list[0].Size == 0 {
			t.Errorf("usage %d, size of one image %d", bytes, list[0].Size)
		}
	})
}

func TestCrashLeftoversAreCollected(t *testing.T) {
	f := newFixture(t, testregistry.Options{})
	f.r.Push("app", "1", image(text("a", "a")))
	img := f.pull("app:1")
	f.r.Push("other", "1", image(text("b", "b")))
	other := f.pull("other:1")
	f.Close()
	// A layer without a record is what a crash before the record leaves.
	if err := os.Remove(f.recordFile(digest.Digest(other.ID))); err != nil {
		t.Fatal(err)
	}
	want := f.filesOnDisk()
	for _, name := range []string{"records/" + short(img.ID) + ".json.new-123", "tmp/half"} {
		if err := os.WriteFile(filepath.Join(f.root, name), []byte("half"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	f.open()
	f.collect()
	f.Close()
	left := f.filesOnDisk()
	for _, name := range left {
		if strings.Contains(name, strings.TrimPrefix(other.Layers[0], "sha256:")) || strings.HasPrefix(name, "tmp/") || strings.Contains(name, ".new-") {
			t.Errorf("left: %s", name)
		}
	}
	if len(left) >= len(want) {
		t.Errorf("%d files before, %d after", len(want), len(left))
	}
	f.open()
	if f.read(img.ID, "a") != "a" {
		t.Error("the good image suffered")
	}
}

func TestBadRecordIsPutAsideAndTheOthersLive(t *testing.T) {
	for name, spoil := range map[string]func(path string, data []byte) error{
		"cut":   func(path string, data []byte) error { return os.WriteFile(path, data[:len(data)/2], 0o600) },
		"empty": func(path string, data []byte) error { return os.WriteFile(path, nil, 0o600) },
		"other name": func(path string, data []byte) error {
			return os.Rename(path, filepath.Dir(path)+"/"+strings.Repeat("0", 64)+".json")
		},
		"new version": func(path string, data []byte) error { return replace(path, data, `"Version": 1`, `"Version": 99`) },
		"unknown key": func(path string, data []byte) error {
			return replace(path, data, `"Version": 1`, `"Version": 1, "X": 2`)
		},
		"is a folder": func(path string, data []byte) error { os.Remove(path); return os.Mkdir(path, 0o700) },
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, testregistry.Options{})
			f.r.Push("bad", "1", image(text("a", "bad")))
			f.r.Push("good", "1", image(text("a", "good")))
			bad, good := f.pull("bad:1"), f.pull("good:1")
			f.Close()
			path := f.recordFile(digest.Digest(bad.ID))
			data, err := os.ReadFile(path)
			if err == nil {
				err = spoil(path, data)
			}
			if err != nil {
				t.Fatal(err)
			}
			f.open()
			if list := f.List(); len(list) != 1 || list[0].ID != good.ID {
				t.Errorf("List() = %v, want only the good one", list)
			}
			if log := f.log.String(); !strings.Contains(log, "put aside") {
				t.Errorf("nothing in the log: %s", log)
			}
			aside, err := filepath.Glob(filepath.Join(f.root, "records", "*.bad"))
			if err != nil || len(aside) != 1 {
				t.Errorf("put aside: %q, %v; want one", aside, err)
			}
			f.collect()
			if _, err := f.store.Path(digest.Digest(bad.Layers[0])); err != nil {
				t.Errorf("a layer that a container may use was removed: %v", err)
			}
			f.pull("bad:1")
			if f.read(bad.ID, "a") != "bad" {
				t.Error("the bad image cannot be pulled again")
			}
		})
	}
}

func replace(path string, data []byte, old, new string) error {
	return os.WriteFile(path, []byte(strings.Replace(string(data), old, new, 1)), 0o600)
}

func TestImageThatLostALayerIsPulledAgain(t *testing.T) {
	inBothForms(t, func(t *testing.T, form string) {
		f := newFixtureIn(t, form, testregistry.Options{})
		f.r.Push("app", "1", image(text("a", "a"), text("b", "b")))
		img := f.pull("app:1")
		if err := f.store.Remove(digest.Digest(img.Layers[1])); err != nil {
			t.Fatal(err)
		}
		f.restart()
		if list := f.List(); len(list) != 0 {
			t.Fatalf("an incomplete image is shown: %v", list)
		}
		if got := f.pull("app:1"); got.ID != img.ID || f.read(img.ID, "b") != "b" {
			t.Fatalf("pulled again: %+v", got)
		}
		f.restart()
		f.collect()
		if got, err := f.Get(f.name("app:1")); err != nil || !reflect.DeepEqual(got, img) {
			t.Fatalf("after restart: %+v, %v", got, err)
		}
		f.Remove(img.ID)
		f.wantEmpty("in the end")
	})
}

func TestTagClaimedTwiceAfterCrashGoesToTheYounger(t *testing.T) {
	f := newFixture(t, testregistry.Options{})
	f.r.Push("app", "1", image(text("a", "old")))
	old := f.pull("app:1")
	path := f.recordFile(digest.Digest(old.ID))
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	f.r.Push("app", "1", image(text("a", "new")))
	now := f.pull("app:1")
	f.Close()
	if err := os.WriteFile(path, data, 0o600); err != nil { // as if the crash came before
		t.Fatal(err)
	}
	f.open()
	got, err := f.Get(f.name("app:1"))
	if err != nil || got.ID != now.ID {
		t.Fatalf("the tag is with %s, %v; want %s", got.ID, err, now.ID)
	}
	if other, err := f.Get(old.ID); err != nil || len(other.Tags) != 0 {
		t.Fatalf("the older image: %v, %v; want no tags", other.Tags, err)
	}
}

const pullAndDie = "pull-and-die"

// pullUntilKilled is another process that pulls, to be killed at any moment.
func pullUntilKilled(form, root, name string) {
	s, err := Open(root, Options{LayerForm: form})
	if err != nil {
		panic(err)
	}
	for {
		if _, err := s.Pull(context.Background(), name, PullOptions{}); err != nil {
			panic(err)
		}
		if err := s.Remove(name); err != nil {
			panic(err)
		}
	}
}

func TestKilledAtAnyMomentLeavesNothingAfterCollect(t *testing.T) {
	inBothForms(t, func(t *testing.T, form string) {
		f := newFixtureIn(t, form, testregistry.Options{})
		var layers []testregistry.Layer
		for _, n := range []string{"a", "b", "c"} {
			layers = append(layers, text(n, strings.Repeat(n, 300_000)))
		}
		f.r.Push("app", "1", image(layers...))
		midway := 0
		for round := range 20 {
			f.Close()
			f.r.Forget()
			cmd := exec.Command("/proc/self/exe", pullAndDie, form, f.root, f.name("app:1"))
			cmd.Stderr = os.Stderr
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			for f.r.Count("blobs/") == 0 {
				time.Sleep(time.Millisecond)
			}
			time.Sleep(time.Duration(round) * 2 * time.Millisecond)
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			cmd.Wait()
			if len(f.filesOnDisk()) > 0 {
				midway++
			}
			f.open()
			f.collect()
			for _, img := range f.List() {
				if _, err := f.Layers(img.ID); err != nil {
					t.Errorf("round %d: an image is shown and has no layers: %v", round, err)
				}
			}
			if err := f.Remove(f.name("app:1")); err != nil {
				t.Fatal(err)
			}
			f.wantEmpty("after a kill")
		}
		if midway < 5 {
			t.Errorf("only %d of 20 kills came midway", midway)
		}
		f.pull("app:1")
	})
}

func TestOpenRefusesWhatItCannotUse(t *testing.T) {
	if _, err := Open(t.TempDir(), Options{LayerForm: "zip"}); err == nil || !strings.Contains(err.Error(), "zip") {
		t.Errorf("form zip: %v", err)
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(file, Options{}); err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("root is a file: %v", err)
	}
}

func TestTwoProcessesCannotShareAStore(t *testing.T) {
	f := newFixture(t, testregistry.Options{})
	if _, err := Open(f.root, Options{}); err == nil || !strings.Contains(err.Error(), f.root+" is in use") {
		t.Fatalf("Open of an open store = %v", err)
	}
}

func TestFullDiskFailsThePullAndLeavesNothing(t *testing.T) {
	f := newFixture(t, testregistry.Options{})
	f.Close()
	f.root = filepath.Join(t.TempDir(), "small")
	if err := os.Mkdir(f.root, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", f.root, "tmpfs", 0, "size=1m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		f.Close()
		if err := unix.Unmount(f.root, 0); err != nil {
			t.Error(err)
		}
	})
	f.open()
	f.r.Push("big", "1", image(text("small", "s"), text("big", strings.Repeat("big", 1<<20))))
	if _, err := f.Pull(t.Context(), f.name("big:1"), PullOptions{}); !errors.Is(err, unix.ENOSPC) || !strings.Contains(err.Error(), "layer 2 of 2") {
		t.Fatalf("pull onto a full disk = %v", err)
	}
	f.wantEmpty("after a full disk")
	f.r.Push("small", "1", image(text("small", "s")))
	f.pull("small:1")
}

// What the kubelet is told that the images take is what it would find.
func TestUsageIsWhatDuSays(t *testing.T) {
	inBothForms(t, func(t *testing.T, form string) {
		f := newFixtureIn(t, form, testregistry.Options{})
		du := testtool.Need(t, "du", "coreutils")
		compare := func(when string) (bytes uint64) {
			t.Helper()
			out, err := exec.Command(du, "-sB1", filepath.Join(f.root, "layers/layers")).Output()
			if err != nil {
				t.Fatal(err)
			}
			var want uint64
			if _, err := fmt.Sscan(string(out), &want); err != nil {
				t.Fatal(err)
			}
			bytes, _ = f.Usage()
			if bytes < want-want/10 || bytes > want+want/10 {
				t.Errorf("%s: %d bytes, du says %d", when, bytes, want)
			}
			return bytes
		}
		noise := func(seed byte) string { // that no file system packs
			data := make([]byte, 3<<20)
			rand.NewChaCha8([32]byte{seed}).Read(data)
			return string(data)
		}
		f.r.Push("a", "1", image(text("shared", noise(1)), text("a", noise(2))))
		f.r.Push("b", "1", image(text("shared", noise(1)), text("b", noise(3))))
		f.pull("a:1")
		one := compare("one image")
		f.pull("b:1")
		if two := compare("two that share a layer"); two < one+one/3 || two > one+2*one/3 {
			t.Errorf("two images that share half take %d, one takes %d", two, one)
		}
		for _, name := range []string{"a:1", "b:1"} {
			if err := f.Remove(f.name(name)); err != nil {
				t.Fatal(err)
			}
		}
		if bytes, inodes := f.Usage(); bytes != 0 || inodes != 0 {
			t.Errorf("without an image %d bytes and %d inodes", bytes, inodes)
		}
	})
}
