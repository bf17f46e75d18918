package image

import (
	"bytes"
	"context"
	"errors"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"cri-mini/image/layer"
	"cri-mini/image/reference"
	"cri-mini/image/registry"
	"cri-mini/internal/testregistry"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func TestPulledImageIsTheSameByEveryReference(t *testing.T) {
	inBothForms(t, func(t *testing.T, form string) {
		f := newFixtureIn(t, form, testregistry.Options{TLS: true})
		pushed := f.r.Push("team/app", "latest", image(text("a", "lower"), text("b", "upper")))
		img := f.pull("team/app")
		if img.ID != pushed.ID || img.Size == 0 {
			t.Errorf("ID %s, size %d; want %s and a size", img.ID, img.Size, pushed.ID)
		}
		if want := []string{f.name("team/app:latest")}; !reflect.DeepEqual(img.Tags, want) {
			t.Errorf("Tags %q, want %q", img.Tags, want)
		}
		if want := []string{f.name("team/app@" + pushed.Digest.String())}; !reflect.DeepEqual(img.Digests, want) {
			t.Errorf("Digests %q, want %q", img.Digests, want)
		}
		if c := img.Config; c.Cmd[0] != "/bin/hello" || c.Env[0] != "A=b" || c.WorkingDir != "/srv" {
			t.Errorf("Config %+v", c)
		}
		bare := strings.TrimPrefix(img.ID, "sha256:")
		for _, name := range []string{f.name("team/app"), img.Tags[0], img.Digests[0], img.ID, bare, short(img.ID), img.Tags[0] + "@" + pushed.Digest.String()} {
			if got, err := f.Get(name); err != nil || !reflect.DeepEqual(got, img) {
				t.Errorf("Get(%s) = %+v, %v; want %+v", name, got, err, img)
			}
		}
		if list := f.List(); len(list) != 1 || !reflect.DeepEqual(list[0], img) {
			t.Errorf("List() = %+v, want the image", list)
		}
		if got := f.read(img.ID, "a") + " " + f.read(img.ID, "b"); got != "lower upper" {
			t.Errorf("files say %q", got)
		}
		for _, name := range []string{f.name("team/app:other"), f.name("other"), digest.FromString("x").String(), "0123456789", bare[:5]} {
			if got, err := f.Get(name); !errors.Is(err, ErrNotFound) {
				t.Errorf("Get(%s) = %v, %v; want ErrNotFound", name, got.ID, err)
			}
		}
		if _, err := f.Get("BAD NAME"); !errors.Is(err, reference.ErrInvalid) {
			t.Errorf("Get of a bad name = %v, want ErrInvalid", err)
		}
	})
}

func TestPullByDigestGivesNoTag(t *testing.T) {
	f := newFixture(t, testregistry.Options{})
	pushed := f.r.Push("app", "1", image(text("a", "a")))
	img := f.pull("app@" + pushed.Digest.String())
	if len(img.Tags) != 0 || !reflect.DeepEqual(img.Digests, []string{f.name("app@" + pushed.Digest.String())}) {
		t.Fatalf("Tags %q, Digests %q", img.Tags, img.Digests)
	}
	if _, err := f.Get(f.name("app:1")); !errors.Is(err, ErrNotFound) {
		t.Fatalf("by tag: %v", err)
	}
}

func TestCompressionsAndTypes(t *testing.T) {
	inBothForms(t, func(t *testing.T, form string) {
		for _, docker := range []bool{true, false} {
			for _, c := range []string{testregistry.Gzip, testregistry.Zstd, testregistry.None} {
				f := newFixtureIn(t, form, testregistry.Options{})
				l := text("a", c)
				l.Compression = c
				img := image(l)
				img.Docker = docker
				f.r.Push("app", "1", img)
				if got := f.read(f.pull("app:1").ID, "a"); got != c {
					t.Errorf("docker=%v %s: file says %q", docker, c, got)
				}
			}
		}
	})
}

func TestOneImageUnderManyNamesIsRemovedWithAll(t *testing.T) {
	f := newFixture(t, testregistry.Options{})
	other := testregistry.New(testregistry.Options{})
	t.Cleanup(other.Close)
	img := image(text("a", "a"))
	for _, tag := range []string{"3", "1", "2"} {
		f.r.Push("app", tag, img)
		f.pull("app:" + tag)
	}
	other.Push("copy", "1", img)
	got, err := f.Pull(t.Context(), other.Host()+"/copy:1", PullOptions{})
	if err != nil || len(f.List()) != 1 {
		t.Fatalf("List() has %d images, %v; want 1", len(f.List()), err)
	}
	if len(got.Tags) != 4 || len(got.Digests) != 2 {
		t.Fatalf("Tags %q, Digests %q; want 4 and 2", got.Tags, got.Digests)
	}
	for i := 1; i < len(got.Tags); i++ {
		if got.Tags[i-1] >= got.Tags[i] {
			t.Errorf("Tags are not sorted: %q", got.Tags)
		}
	}
	if err := f.Remove(f.name("app:2")); err != nil {
		t.Fatal(err)
	}
	if list := f.List(); len(list) != 0 {
		t.Fatalf("after Remove of one tag: %v", list)
	}
	if err := f.Remove(f.name("app:2")); err != nil {
		t.Fatalf("Remove again: %v", err)
	}
	f.wantEmpty("after Remove")
}

func TestTagMovesToTheImagePulledLast(t *testing.T) {
	f := newFixture(t, testregistry.Options{})
	f.r.Push("app", "1", image(text("a", "shared"), text("b", "old")))
	old := f.pull("app:1")
	f.r.Push("app", "1", image(text("a", "shared"), text("b", "new")))
	now := f.pull("app:1")
	for range 2 {
		if got, err := f.Get(f.name("app:1")); err != nil || got.ID != now.ID {
			t.Fatalf("the tag is with %s, %v; want %s", got.ID, err, now.ID)
		}
		got, err := f.Get(old.ID)
		if err != nil || len(got.Tags) != 0 || !reflect.DeepEqual(got.Digests, old.Digests) {
			t.Fatalf("the older image: %+v, %v; want no tag and %q", got, err, old.Digests)
		}
		f.restart()
	}
	if err := f.Remove(old.ID); err != nil {
		t.Fatal(err)
	}
	if f.read(now.ID, "a")+f.read(now.ID, "b") != "sharednew" {
		t.Fatal("a shared layer went with the older image")
	}
	f.Remove(now.ID)
	f.wantEmpty("after both are removed")
}

// TestBadImagesAreRefusedAndLeaveNothing holds it for what only shows while or
// after unpacking; the registry package has its own for the rest.
func TestBadImagesAreRefusedAndLeaveNothing(t *testing.T) {
	inBothForms(t, func(t *testing.T, form string) {
		good := text("good", strings.Repeat("good", 1000))
		user := func(u string) testregistry.Image {
			img := image(good)
			img.Config.User = u
			return img
		}
		wrongID := good
		wrongID.DiffID = digest.FromString("other")
		sha512 := good
		sha512.DiffID = digest.SHA512.FromString("other")
		broken := text("broken", "x")
		broken.Blob = []byte("\x1f\x8bthis is not gzip")
		cut := text("cut", strings.Repeat("x", 100_000))
		cut.Compression = testregistry.None
		cut.Tar = cut.Archive()[:5000]
		xz := text("xz", "x")
		xz.Blob = []byte("\xfd7zXZ\x00 is not known here")
		arm := image(good)
		arm.Platform.Architecture = "s390x"
		zero := image(good)
		zero.Config.Env = []string{"A=b\x00c"}
		for name, test := range map[string]struct {
			img  testregistry.Image
			want []string
		}{
			"wrong diff id":   {image(good, wrongID), []string{"layer 2 of 2", wrongID.DiffID.String()}},
			"sha512 diff id":  {image(good, sha512), []string{"diff id 1", "sha512"}},
			"escaping path":   {image(good, testregistry.Layer{Files: []testregistry.File{{Name: "../../etc/evil", Data: "x"}}}), []string{"layer 2 of 2", "evil"}},
			"no archive":      {image(good, testregistry.Layer{Tar: []byte(strings.Repeat("junk", 1000))}), []string{"layer 2 of 2"}},
			"broken gzip":     {image(good, broken), []string{"layer 2 of 2", "gzip"}},
			"cut archive":     {image(good, cut), []string{"layer 2 of 2", "cut"}},
			"unknown packing": {image(good, xz), []string{"layer 2 of 2", "compression"}},
			"other platform":  {arm, []string{"s390x"}},
			"user too large":  {user("2147483648"), []string{"User", "2147483648"}},
			"group too large": {user("1:99999999999999999999"), []string{"User", "99999999999999999999"}},
			"user negative":   {user("-1"), []string{"User", "-1"}},
			"zero byte":       {zero, []string{"Env"}},
		} {
			t.Run(name, func(t *testing.T) {
				f := newFixtureIn(t, form, testregistry.Options{})
				f.r.Push("app", "1", test.img)
				_, err := f.Pull(t.Context(), f.name("app:1"), PullOptions{})
				if err == nil {
					t.Fatal("it was pulled")
				}
				for _, want := range append(test.want, f.name("app:1")) {
					if !strings.Contains(err.Error(), want) && want != f.name("app:1") {
						t.Errorf("error %q does not have %q", err, want)
					}
				}
				f.wantEmpty(name)
			})
		}
	})
}

func TestUnknownImageAndBadNames(t *testing.T) {
	f := newFixture(t, testregistry.Options{TLS: true})
	_, err := f.Pull(t.Context(), f.name("none:1"), PullOptions{})
	if !errors.Is(err, registry.ErrNotFound) || !strings.Contains(err.Error(), "none:1") {
		t.Errorf("unknown image: %v", err)
	}
	for _, name := range []string{"", "UPPER", "a b", "x@sha256:1", digest.FromString("x").String()} {
		if _, err := f.Pull(t.Context(), name, PullOptions{}); !errors.Is(err, reference.ErrInvalid) || !strings.Contains(err.Error(), name) {
			t.Errorf("Pull(%q) = %v, want ErrInvalid with the name", name, err)
		}
	}
	f.wantEmpty("after bad names")
}

func TestManifestAndConfigMustAgreeOnLayers(t *testing.T) {
	f := newFixture(t, testregistry.Options{})
	a, b := f.r.Push("a", "1", image(text("a", "a"))), f.r.Push("b", "1", image(text("a", "a"), text("b", "b")))
	manifest := `{"schemaVersion":2,"mediaType":"` + ocispec.MediaTypeImageManifest + `","config":{"mediaType":"` + ocispec.MediaTypeImageConfig +
		`","digest":"` + b.ID + `","size":CS},"layers":[{"mediaType":"` + ocispec.MediaTypeImageLayerGzip + `","digest":"` + a.Layers[0].String() + `","size":LS}]}`
	f.pull("b:1")
	raw, err := f.RawConfig(b.ID)
	if err != nil {
		t.Fatal(err)
	}
	f.Remove(b.ID)
	manifest = strings.ReplaceAll(strings.ReplaceAll(manifest, "CS", itoa(len(raw))), "LS", "100")
	f.r.PutManifest("mixed", "1", ocispec.MediaTypeImageManifest, []byte(manifest))
	if _, err := f.Pull(t.Context(), f.name("mixed:1"), PullOptions{}); err == nil || !strings.Contains(err.Error(), "has 1 layers, its config promises 2") {
		t.Fatalf("pull = %v", err)
	}
	f.wantEmpty("after the refusal")
}

func TestConcurrentPullsShareDownloads(t *testing.T) {
	f := newFixture(t, testregistry.Options{})
	shared := text("shared", strings.Repeat("s", 100_000))
	a := f.r.Push("a", "1", image(shared, text("x", "a")))
	f.r.Push("b", "1", image(shared, text("x", "b")))
	f.r.Fault(testregistry.Fault{Path: a.Layers[0].String(), Delay: 200 * time.Millisecond})
	var wg sync.WaitGroup
	for range 5 {
		for _, n := range []string{"a:1", "b:1"} {
			wg.Go(func() {
				if _, err := f.Pull(t.Context(), f.name(n), PullOptions{}); err != nil {
					t.Errorf("pull %s: %v", n, err)
				}
			})
		}
	}
	wg.Wait()
	if n := f.r.Count(a.Layers[0].String()); n != 1 {
		t.Errorf("the shared layer was fetched %d times, want 1", n)
	}
	if len(f.List()) != 2 {
		t.Errorf("List() = %v, want 2 images", f.List())
	}
	f.Remove(f.name("a:1"))
	f.Remove(f.name("b:1"))
	f.wantEmpty("after both are removed")
}

func TestCancelledPullDoesNotStopAnother(t *testing.T) {
	f := newFixture(t, testregistry.Options{})
	pushed := f.r.Push("app", "1", image(text("a", "a")))
	f.r.Fault(testregistry.Fault{Path: pushed.Layers[0].String(), Delay: 500 * time.Millisecond})
	ctx, cancel := context.WithTimeout(t.Context(), 150*time.Millisecond)
	defer cancel()
	first := make(chan error)
	go func() {
		_, err := f.Pull(ctx, f.name("app:1"), PullOptions{})
		first <- err
	}()
	time.Sleep(50 * time.Millisecond) // the first one is on its way and owns the download
	f.pull("app:1")
	if err := <-first; !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the first pull: %v, want DeadlineExceeded", err)
	}
	if n := f.r.Count(pushed.Layers[0].String()); n != 1 {
		t.Errorf("the layer was fetched %d times, want 1", n)
	}
}

func TestCancelledPullReturnsAtOnceAndLeavesNothing(t *testing.T) {
	f := newFixture(t, testregistry.Options{TLS: true})
	pushed := f.r.Push("app", "1", image(text("a", "a"), text("b", strings.Repeat("b", 100_000))))
	f.r.Fault(testregistry.Fault{Path: pushed.Layers[1].String(), Stall: 50})
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	start := time.Now()
	_, err := f.Pull(ctx, f.name("app:1"), PullOptions{})
	if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) > time.Second {
		t.Errorf("Pull = %v after %v", err, time.Since(start))
	}
	f.wantEmpty("after a cancelled pull")
	if _, err := f.Pull(canceled(t), f.name("app:1"), PullOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("Pull with an ended context = %v", err)
	}
}

func canceled(t *testing.T) context.Context {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return ctx
}

func TestWrongPasswordDoesNotStopAPullWithTheRightOne(t *testing.T) {
	f := newFixture(t, testregistry.Options{TLS: true, Username: "u", Password: "p"})
	f.r.Push("app", "1", image(text("a", "a")))
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			if _, err := f.Pull(t.Context(), f.name("app:1"), PullOptions{Auth: &Auth{Username: "u", Password: "wrong"}}); !errors.Is(err, registry.ErrUnauthorized) {
				t.Errorf("wrong password: %v", err)
			}
		})
		wg.Go(func() {
			if _, err := f.Pull(t.Context(), f.name("app:1"), PullOptions{Auth: &Auth{Username: "u", Password: "p"}}); err != nil {
				t.Errorf("right password: %v", err)
			}
		})
	}
	wg.Wait()
}

func TestPullsAndRemovalsAtTheSameTime(t *testing.T) {
	inBothForms(t, func(t *testing.T, form string) {
		f := newFixtureIn(t, form, testregistry.Options{})
		shared := text("shared", "s")
		f.r.Push("a", "1", image(shared, text("x", "a")))
		f.r.Push("b", "1", image(shared, text("x", "b")))
		var wg sync.WaitGroup
		for _, n := range []string{"a:1", "b:1", "a:1"} {
			wg.Go(func() {
				for range 30 {
					img, err := f.Pull(t.Context(), f.name(n), PullOptions{})
					if err != nil {
						t.Errorf("pull %s: %v", n, err)
					}
					// A pulled image has its layers, unless it is gone as a whole.
					if err := f.Hold(img.ID, n); err == nil {
						if _, err := f.Layers(img.ID); err != nil {
							t.Errorf("held image: %v", err)
						}
						f.Release(n)
					} else if !errors.Is(err, ErrNotFound) {
						t.Error(err)
					}
				}
			})
			wg.Go(func() {
				for range 60 {
					if err := f.Remove(f.name(n)); err != nil {
						t.Errorf("remove %s: %v", n, err)
					}
					f.List()
				}
			})
		}
		wg.Wait()
		f.Remove(f.name("a:1"))
		f.Remove(f.name("b:1"))
		f.wantEmpty("in the end")
	})
}

func TestProgressTellsOfEveryLayer(t *testing.T) {
	f := newFixture(t, testregistry.Options{})
	pushed := f.r.Push("app", "1", image(text("a", "a"), text("b", "b"), text("a", "a")))
	seen := map[digest.Digest][]string{}
	report := func(p Progress) {
		seen[p.Layer] = append(seen[p.Layer], p.Phase)
		if p.Total == 0 || p.Done > p.Total {
			t.Errorf("%+v: done is not within total", p)
		}
	}
	if _, err := f.Pull(t.Context(), f.name("app:1"), PullOptions{Progress: report}); err != nil {
		t.Fatal(err)
	}
	for _, l := range pushed.Layers {
		phases := seen[l]
		if len(phases) < 2 || phases[0] != Waiting || (phases[len(phases)-1] != Done && phases[len(phases)-1] != Exists) {
			t.Errorf("layer %s: %q", l, phases)
		}
	}
	clear(seen)
	if _, err := f.Pull(t.Context(), f.name("app:1"), PullOptions{Progress: report}); err != nil {
		t.Fatal(err)
	}
	for l, phases := range seen {
		if phases[len(phases)-1] != Exists {
			t.Errorf("second pull, layer %s: %q, want it to exist", l, phases)
		}
	}
}

func TestFailureOfOnePullDoesNotStopAnother(t *testing.T) {
	f := newFixture(t, testregistry.Options{})
	bad := testregistry.New(testregistry.Options{})
	t.Cleanup(bad.Close)
	img := image(text("a", "a"))
	bad.Fault(testregistry.Fault{Path: bad.Push("app", "1", img).Layers[0].String(), Flip: true, Delay: 300 * time.Millisecond})
	f.r.Push("app", "1", img)
	first := make(chan error)
	go func() {
		_, err := f.Pull(t.Context(), bad.Host()+"/app:1", PullOptions{})
		first <- err
	}()
	for bad.Count("blobs/") < 2 { // until it owns the download of the layer
		time.Sleep(time.Millisecond)
	}
	f.pull("app:1")
	if err := <-first; !errors.Is(err, registry.ErrCorrupt) {
		t.Errorf("the pull from the bad registry: %v", err)
	}
}

func TestLayerThatArrivesAfterEveryoneLeftIsRemoved(t *testing.T) {
	f := newFixture(t, testregistry.Options{})
	archive := text("a", "a").Archive()
	d := digest.FromBytes(archive)
	left := make(chan struct{})
	unpack := func(context.Context, func(int64)) (layer.Info, error) {
		<-left
		p, err := f.store.Write(context.Background(), bytes.NewReader(archive))
		if err != nil {
			return layer.Info{}, err
		}
		return p.Info(), p.Commit()
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	end := f.use([]digest.Digest{d})
	err := f.ensure(ctx, d, unpack, (&progress{}).layer(d, 1))
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("ensure = %v", err)
	}
	end()
	close(left)
	f.wantEmpty("after everyone left")
}
