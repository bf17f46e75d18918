package image

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"cri-mini/image/layer"
	"cri-mini/internal/testregistry"

	"github.com/opencontainers/go-digest"
)

// verify tells what Verify tells, by layer.
func (f *fixture) verify(o VerifyOptions, names ...string) map[string]Verified {
	f.t.Helper()
	found := map[string]Verified{}
	err := f.Verify(f.t.Context(), names, o, func(v Verified) {
		if _, twice := found[v.Layer.String()]; twice {
			f.t.Errorf("layer %s was told of twice", v.Layer)
		}
		found[v.Layer.String()] = v
	})
	if err != nil {
		f.t.Fatal(err)
	}
	return found
}

// spoil changes one byte of a file in a layer, and hides that by its time.
func (f *fixture) spoil(diffID, name, content string) {
	f.t.Helper()
	path, err := f.store.Path(digest.Digest(diffID))
	if err != nil {
		f.t.Fatal(err)
	}
	if err := spoilAt(path, f.form, name, content); err != nil {
		f.t.Fatal(err)
	}
}

func spoilAt(path, form, name, content string) error {
	if form == layer.Directory {
		path = filepath.Join(path, name)
	}
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	at := bytes.Index(data, []byte(content))
	if at < 0 {
		return fmt.Errorf("%s: no %.20q", path, content)
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt([]byte{data[at] ^ 1}, int64(at))
	return errors.Join(err, f.Close(), os.Chtimes(path, info.ModTime(), info.ModTime()))
}

func TestRepairFetchesOnlyTheDamagedLayer(t *testing.T) {
	inBothForms(t, func(t *testing.T, form string) {
		f := newFixtureIn(t, form, testregistry.Options{})
		pushed := f.r.Push("app", "1", image(text("a", "content a"), text("b", "content b"), text("c", "content c")))
		f.r.Push("other", "1", image(text("b", "content b")))
		img := f.pull("app:1")
		f.pull("other:1")
		for id, v := range f.verify(VerifyOptions{}) {
			if !v.Whole() {
				t.Errorf("layer %s is not whole: %+v", id, v)
			}
		}
		if err := f.Hold(img.ID, "container"); err != nil {
			t.Fatal(err)
		}
		layers, err := f.Layers(img.ID)
		if err != nil {
			t.Fatal(err)
		}
		mounted, err := os.Open(layers[1].Path) // as the mount of a container does
		if err != nil {
			t.Fatal(err)
		}
		defer mounted.Close()
		bytesBefore, inodesBefore := f.Usage()
		f.spoil(img.Layers[1], "b", "content b")
		found := f.verify(VerifyOptions{})
		for i, id := range img.Layers {
			want := []layer.Difference{{Path: "b", What: "content differs"}}
			if i != 1 {
				want = nil
			}
			if !slices.Equal(found[id].Differences, want) {
				t.Errorf("layer %d: found %v, want %v", i, found[id].Differences, want)
			}
		}
		if got, want := found[img.Layers[1]].Images, []string{f.name("app:1"), f.name("other:1")}; !slices.Equal(slices.Sorted(slices.Values(got)), want) {
			t.Errorf("the damaged layer is of %q, want %q", got, want)
		}

		f.r.Forget()
		if v := f.verify(VerifyOptions{Repair: true}, f.name("app:1"))[img.Layers[1]]; !v.Repaired || v.Failed != nil || !v.Whole() {
			t.Errorf("repair: %+v", v)
		}
		for i, blob := range pushed.Layers {
			want := map[bool]int{true: 1}[i == 1]
			if got := f.r.Count(blob.String()); got != want {
				t.Errorf("layer %d was asked for %d times, want %d", i, got, want)
			}
		}
		for id, v := range f.verify(VerifyOptions{}) {
			if !v.Whole() {
				t.Errorf("after the repair layer %s is not whole: %+v", id, v)
			}
		}
		if f.read(img.ID, "b") != "content b" {
			t.Error("the repaired layer has another content")
		}
		if b, i := f.Usage(); b != bytesBefore || i != inodesBefore {
			t.Errorf("usage %d, %d after the repair, %d, %d before", b, i, bytesBefore, inodesBefore)
		}

		// The container goes on with what it has, also after a restart.
		stillThere := func() bool {
			if form == layer.Directory {
				_, err := os.Stat(fmt.Sprintf("/proc/self/fd/%d/b", mounted.Fd()))
				return err == nil
			}
			list, err := os.ReadDir(filepath.Join(f.root, "layers/replaced"))
			return err == nil && len(list) == 1
		}
		f.collect()
		if !stillThere() {
			t.Fatal("the layer that a container uses is gone")
		}
		f.restart()
		if err := f.Hold(img.ID, "container"); err != nil {
			t.Fatal(err)
		}
		f.collect()
		if err := f.Hold(img.ID, "later"); err != nil { // it has the new one
			t.Fatal(err)
		}
		if !stillThere() {
			t.Fatal("the layer that a container uses is gone after a restart")
		}
		f.Release("container")
		f.restart()
		if left, err := os.ReadDir(filepath.Join(f.root, "layers/replaced")); err != nil || len(left) > 0 {
			t.Errorf("left of the replaced layer: %v, %v", left, err)
		}
		if stillThere() {
			t.Error("the replaced layer is still there when nobody uses it")
		}
		f.Release("later")
		for _, name := range []string{"app:1", "other:1"} {
			if err := f.Remove(f.name(name)); err != nil {
				t.Fatal(err)
			}
		}
		f.wantEmpty("in the end")
	})
}

func TestLayerOfAnOlderVersionIsNotVerifiableUntilRepaired(t *testing.T) {
	inBothForms(t, func(t *testing.T, form string) {
		f := newFixtureIn(t, form, testregistry.Options{})
		f.r.Push("app", "1", image(text("a", "content a")))
		img := f.pull("app:1")
		path, err := f.store.Path(digest.Digest(img.Layers[0]))
		if err != nil {
			t.Fatal(err)
		}
		f.Close() // what is written of it is written
		if err := os.Remove(filepath.Join(filepath.Dir(path), "index")); err != nil {
			t.Fatal(err)
		}
		f.open()
		if v := f.verify(VerifyOptions{})[img.Layers[0]]; v.Unknown != layer.ErrNoIndex || v.Whole() || len(v.Differences) > 0 {
			t.Errorf("without an index: %+v", v)
		}
		if v := f.verify(VerifyOptions{Repair: true})[img.Layers[0]]; !v.Repaired || !v.Whole() {
			t.Errorf("repair: %+v", v)
		}
		if v := f.verify(VerifyOptions{})[img.Layers[0]]; !v.Whole() || f.read(img.ID, "a") != "content a" {
			t.Errorf("after the repair: %+v", v)
		}
	})
}

func TestRepairThatCannotBeLeavesWhatIsThere(t *testing.T) {
	f := newFixture(t, testregistry.Options{})
	f.r.Push("app", "1", image(text("a", "content a")))
	img := f.pull("app:1")
	f.spoil(img.Layers[0], "a", "content a")
	spoiled := f.read(img.ID, "a")
	f.r.Fault(testregistry.Fault{Path: "blobs/", Status: 404})
	f.r.Fault(testregistry.Fault{Path: "manifests/sha256", Status: 404})
	check := func(why, want string) {
		t.Helper()
		v := f.verify(VerifyOptions{Repair: true})[img.Layers[0]]
		if v.Repaired || v.Whole() || v.Failed == nil || !strings.Contains(v.Failed.Error(), want) {
			t.Errorf("%s: %+v, want a failure with %q", why, v, want)
		}
		if f.read(img.ID, "a") != spoiled {
			t.Errorf("%s: the layer was changed", why)
		}
	}
	check("nothing at the registry", "404 Not Found")
	f.r.ClearFaults()
	f.r.Fault(testregistry.Fault{Path: "manifests/sha256", Status: 404})
	f.r.Push("app", "1", image(text("a", "another content")))
	check("another image under the tag", "image without this layer by now")
	f.r.ClearFaults()
	f.r.Fault(testregistry.Fault{Path: "blobs/", Flip: true})
	check("other bytes", "digest")
	f.r.ClearFaults()
	f.collect()
	if v := f.verify(VerifyOptions{Repair: true})[img.Layers[0]]; !v.Repaired {
		t.Errorf("repair by digest when the tag has moved: %+v", v)
	}

	rootfs := t.TempDir()
	if err := os.WriteFile(filepath.Join(rootfs, "x"), []byte("imported"), 0o600); err != nil {
		t.Fatal(err)
	}
	imported, err := f.ImportRootfs(t.Context(), rootfs, "", Config{})
	if err != nil {
		t.Fatal(err)
	}
	f.spoil(imported.Layers[0], "x", "imported")
	if v := f.verify(VerifyOptions{Repair: true}, imported.ID)[imported.Layers[0]]; v.Failed != errNoSource {
		t.Errorf("repair of an imported image: %+v", v)
	}
	if err := f.Verify(t.Context(), []string{"no/such:1"}, VerifyOptions{}, nil); !errors.Is(err, ErrNotFound) {
		t.Errorf("verify of an unknown image: %v", err)
	}
}

// unsynced is a store on a disk that does not confirm what is replaced.
type unsynced struct{ layer.Store }

type unsyncedPending struct{ layer.Pending }

func (s unsynced) Write(ctx context.Context, tar io.Reader) (layer.Pending, error) {
	p, err := s.Store.Write(ctx, tar)
	if err != nil {
		return nil, err
	}
	return unsyncedPending{p}, nil
}

func (p unsyncedPending) Replace(ctx context.Context) error {
	return errors.Join(p.Pending.Replace(ctx), layer.ErrNotDurable)
}

func TestLayerIsReplacedOnceAndGoesWithItsContainersAlsoWhenTheDiskDoesNotConfirmIt(t *testing.T) {
	inBothForms(t, func(t *testing.T, form string) {
		f := newFixtureIn(t, form, testregistry.Options{})
		f.r.Push("app", "1", image(text("a", "content a")))
		img := f.pull("app:1")
		if err := f.Hold(img.ID, "container"); err != nil {
			t.Fatal(err)
		}
		f.spoil(img.Layers[0], "a", "content a")
		f.store = unsynced{f.store}
		if v := f.verify(VerifyOptions{Repair: true})[img.Layers[0]]; v.Repaired || !errors.Is(v.Failed, layer.ErrNotDurable) {
			t.Errorf("repair: %+v, want the failure %q", v, layer.ErrNotDurable)
		}
		if v := f.verify(VerifyOptions{})[img.Layers[0]]; !v.Whole() {
			t.Errorf("after the repair: %+v", v)
		}
		if list, err := f.store.Replaced(); err != nil || len(list) != 1 || len(f.replaced) != 1 {
			t.Errorf("replaced: %v, %v, watched %v; want one that is watched", list, err, f.replaced)
		}
		f.Release("container")
		if list, err := f.store.Replaced(); err != nil || len(list) != 0 {
			t.Errorf("replaced: %v, %v; want none when nobody uses it", list, err)
		}
	})
}

func TestWhatIsNoLayerStaysAmongTheLayers(t *testing.T) {
	f := newFixture(t, testregistry.Options{})
	dir := filepath.Join(f.root, "layers/layers")
	leftover := filepath.Join(dir, "sha256-"+strings.Repeat("a", 64))
	foreign := []string{filepath.Join(dir, "lost+found"), filepath.Join(dir, "sha256-notes")}
	for _, name := range append(foreign, leftover) {
		if err := os.Mkdir(name, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	things, err := f.StoredLayers()
	if err != nil || len(things) != 3 {
		t.Fatalf("listed: %+v, %v; want three", things, err)
	}
	for _, thing := range things {
		if got, want := thing.Foreign != "", slices.Contains(foreign, thing.Name); got != want {
			t.Errorf("%s is foreign: %v, want %v", thing.Name, got, want)
		}
	}
	f.restart()
	f.collect()
	for _, name := range foreign {
		if _, err := os.Stat(name); err != nil {
			t.Errorf("a sweep took what is not ours: %v", err)
		}
	}
	if _, err := os.Stat(leftover); err == nil {
		t.Error("a layer that a power cut has taken is still there")
	}
}

func TestRepairsAtTheSameTimeAreOne(t *testing.T) {
	f := newFixture(t, testregistry.Options{})
	pushed := f.r.Push("app", "1", image(text("a", strings.Repeat("content a", 10000))))
	img := f.pull("app:1")
	for attempt := 1; !f.repairTogether(img, pushed.Layers[0].String()); attempt++ {
		if attempt == 10 {
			t.Fatal("five repairs were never at work together")
		}
	}
	f.r.ClearFaults()
	f.r.Fault(testregistry.Fault{Path: pushed.Layers[0].String(), Stall: 10})
	f.spoil(img.Layers[0], "a", "content a")
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := f.Verify(ctx, nil, VerifyOptions{Repair: true}, func(Verified) {}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("repair that is given up: %v", err)
	}
	if err := f.Remove(img.ID); err != nil {
		t.Fatal(err)
	}
	f.wantEmpty("after a repair that was given up")
}

// repairTogether has five clients repair one layer; false if they did not meet.
func (f *fixture) repairTogether(img Image, blob string) (met bool) {
	f.t.Helper()
	f.spoil(img.Layers[0], "a", "content a")
	f.r.Forget()
	f.r.Fault(testregistry.Fault{Path: blob, Delay: 500 * time.Millisecond})
	defer f.r.ClearFaults()
	var all sync.WaitGroup
	const clients = 5
	done := make(chan struct{})
	for range clients {
		all.Go(func() {
			err := f.Verify(f.t.Context(), nil, VerifyOptions{Repair: true}, func(v Verified) {
				if !v.Whole() {
					f.t.Errorf("repair: %+v", v)
				}
			})
			if err != nil {
				f.t.Error(err)
			}
		})
	}
	go func() { all.Wait(); close(done) }()
	for {
		f.mu.Lock()
		flight := f.flights[digest.Digest(img.Layers[0])]
		met = met || flight != nil && flight.waiters == clients
		f.mu.Unlock()
		select {
		case <-done:
			if got := f.r.Count(blob); met && got != 1 {
				f.t.Errorf("the layer was asked for %d times, want 1", got)
			}
			return met
		case <-time.After(time.Millisecond):
		}
	}
}

const repairAndDie = "repair-and-die"

// repairUntilKilled is another process that damages and repairs a layer, to be
// killed at any moment.
func repairUntilKilled(form, root, name string) {
	s, err := Open(root, Options{LayerForm: form, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		panic(err)
	}
	if err := s.Collect(); err != nil {
		panic(err)
	}
	img, err := s.Get(name)
	if err != nil {
		panic(err)
	}
	path, err := s.store.Path(digest.Digest(img.Layers[0]))
	if err != nil {
		panic(err)
	}
	for {
		if err := spoilAt(path, form, "a", "ontent a"); err != nil { // back again by the next time
			panic(err)
		}
		for range 2 {
			err := s.Verify(context.Background(), nil, VerifyOptions{Repair: true}, func(v Verified) {
				if v.Failed != nil {
					panic(v.Failed)
				}
			})
			if err != nil {
				panic(err)
			}
		}
	}
}

func TestRepairKilledAtAnyMomentLeavesTheOldOrTheNewLayer(t *testing.T) {
	inBothForms(t, func(t *testing.T, form string) {
		f := newFixtureIn(t, form, testregistry.Options{})
		pushed := f.r.Push("app", "1", image(text("a", "content a")))
		img := f.pull("app:1")
		midway, old := 0, 0
		for round := range 20 {
			f.Close()
			f.r.Forget()
			cmd := exec.Command("/proc/self/exe", repairAndDie, form, f.root, f.name("app:1"))
			cmd.Stderr = os.Stderr
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			for f.r.Count(pushed.Layers[0].String()) == 0 {
				time.Sleep(time.Millisecond)
			}
			time.Sleep(time.Duration(round) * time.Millisecond)
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			cmd.Wait()
			for _, dir := range []string{"unfinished", "replaced", "removed"} {
				if left, _ := os.ReadDir(filepath.Join(f.root, "layers", dir)); len(left) > 0 {
					midway++
					break
				}
			}
			f.open()
			f.collect()
			if _, err := f.Get(f.name("app:1")); err != nil {
				t.Fatalf("round %d: %v", round, err)
			}
			v := f.verify(VerifyOptions{})[img.Layers[0]]
			content := f.read(img.ID, "a")
			switch {
			case v.Whole() && content == "content a":
			case slices.Equal(v.Differences, []layer.Difference{{Path: "a", What: "content differs"}}) && content != "content a":
				old++
			default:
				t.Fatalf("round %d: neither the old nor the new layer: %+v, content %q", round, v, content)
			}
			if v := f.verify(VerifyOptions{Repair: true})[img.Layers[0]]; !v.Whole() {
				t.Fatalf("round %d: %+v", round, v)
			}
			f.Close()
			for _, dir := range []string{"unfinished", "replaced", "removed"} {
				if left, _ := os.ReadDir(filepath.Join(f.root, "layers", dir)); len(left) > 0 {
					t.Fatalf("round %d: left in %s: %v", round, dir, left)
				}
			}
			f.open()
		}
		if midway == 0 {
			t.Error("no kill came midway: nothing was tested")
		}
		t.Logf("%d kills came midway, %d left the old layer", midway, old)
	})
}
