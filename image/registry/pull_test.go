package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"cri-mini/image/manifest"
	"cri-mini/internal/testregistry"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func TestPullOverTLSAndPlainByTagAndDigest(t *testing.T) {
	for _, tls := range []bool{true, false} {
		for _, docker := range []bool{true, false} {
			for _, index := range []bool{true, false} {
				t.Run(fmt.Sprintf("tls=%v docker=%v index=%v", tls, docker, index), func(t *testing.T) {
					f := newFixture(t, testregistry.Options{TLS: tls})
					img := simple()
					img.Docker, img.Index = docker, index
					pushed := f.r.Push("a/app", "1", img)
					for _, name := range []string{"a/app:1", "a/app@" + pushed.Digest.String(), "a/app@" + pushed.Manifest.String()} {
						got, layers, err := fetchAll(t.Context(), f.open(name, nil))
						if err != nil {
							t.Fatalf("pull %s: %v", name, err)
						}
						if id := digest.FromBytes(got.Config).String(); id != pushed.ID || len(layers) != 1 || digest.FromBytes(layers[0]) != pushed.Layers[0] {
							t.Errorf("pull %s: config %s, want %s; %d layers", name, id, pushed.ID, len(layers))
						}
						if got.ManifestDigest != pushed.Manifest || (strings.HasSuffix(name, ":1") && got.Digest != pushed.Digest) {
							t.Errorf("pull %s: digests %s, %s; want %s, %s", name, got.Digest, got.ManifestDigest, pushed.Digest, pushed.Manifest)
						}
					}
				})
			}
		}
	}
}

func TestTLSWithoutTrustIsRefused(t *testing.T) {
	f := newFixture(t, testregistry.Options{TLS: true})
	f.r.Push("app", "1", simple())
	f.client.o.ConfigDir = t.TempDir()
	start := time.Now()
	_, err := f.open("app:1", nil).Resolve(t.Context(), platform)
	if err == nil || !strings.Contains(err.Error(), "certificate") || !strings.Contains(err.Error(), f.r.Host()) {
		t.Fatalf("pull = %v, want an error about the certificate that names the host", err)
	}
	if f.r.Count("/v2/") > 0 {
		t.Fatal("it then asked without TLS")
	}
	if d := time.Since(start); d > 5*time.Second {
		t.Fatalf("it took %v to say so", d)
	}
	f.hosts(f.r.Host(), fmt.Sprintf("server = %q\nskip_verify = true\n", f.r.URL()))
	f.client.o.ConfigDir = f.config
	if _, err := f.open("app:1", nil).Resolve(t.Context(), platform); err != nil {
		t.Fatalf("with skip_verify: %v", err)
	}
}

func TestPlatformIsChosenFromIndex(t *testing.T) {
	f := newFixture(t, testregistry.Options{})
	other := simple()
	other.Platform = ocispec.Platform{OS: "linux", Architecture: "s390x"}
	img := simple()
	img.Also = []testregistry.Image{other}
	pushed := f.r.Push("app", "1", img)
	got, err := f.open("app:1", nil).Resolve(t.Context(), platform)
	if err != nil || got.ManifestDigest != pushed.Manifest {
		t.Fatalf("Resolve = %s, %v; want %s", got.ManifestDigest, err, pushed.Manifest)
	}
	_, err = f.open("app:1", nil).Resolve(t.Context(), manifest.Platform{OS: "linux", Architecture: "riscv64"})
	if err == nil || !strings.Contains(err.Error(), "riscv64") || !strings.Contains(err.Error(), "s390x") {
		t.Fatalf("for riscv64: %v, want an error with what is wanted and what there is", err)
	}
}

// TestBadContentIsRefused holds that no lie of a registry is believed, that the
// error says what is wrong, and that it comes soon.
func TestBadContentIsRefused(t *testing.T) {
	for name, test := range map[string]struct {
		fault func(p testregistry.Pushed) testregistry.Fault
		want  string // in the error
		cause error
		other bool // the config may arrive; only the layer is bad
	}{
		"unknown tag": {want: "404", cause: ErrNotFound, fault: func(testregistry.Pushed) testregistry.Fault {
			return testregistry.Fault{Path: "manifests", Status: 404}
		}},
		"forbidden": {want: "403", cause: ErrUnauthorized, fault: func(testregistry.Pushed) testregistry.Fault {
			return testregistry.Fault{Path: "manifests", Status: 403}
		}},
		"server error": {want: "500", cause: ErrUnavailable, fault: func(testregistry.Pushed) testregistry.Fault {
			return testregistry.Fault{Path: "manifests", Status: 500}
		}},
		"manifest flipped": {want: "digest", cause: ErrCorrupt, fault: func(testregistry.Pushed) testregistry.Fault { return testregistry.Fault{Path: "manifests", Flip: true} }},
		"manifest digest lie": {want: "digest", cause: ErrCorrupt, fault: func(testregistry.Pushed) testregistry.Fault {
			return testregistry.Fault{Path: "manifests", Digest: digest.FromString("x").String()}
		}},
		"manifest digest junk": {want: "Docker-Content-Digest", cause: ErrCorrupt, fault: func(testregistry.Pushed) testregistry.Fault {
			return testregistry.Fault{Path: "manifests", Digest: "junk"}
		}},
		"manifest is index": {want: "was sent as", cause: ErrCorrupt, fault: func(testregistry.Pushed) testregistry.Fault {
			return testregistry.Fault{Path: "manifests", Type: ocispec.MediaTypeImageIndex}
		}},
		"huge manifest": {want: "at most", cause: ErrCorrupt, fault: func(testregistry.Pushed) testregistry.Fault {
			return testregistry.Fault{Path: "manifests", Append: strings.Repeat(" ", 5<<20)}
		}},
		"config flipped": {want: "digest", cause: ErrCorrupt, fault: func(p testregistry.Pushed) testregistry.Fault { return testregistry.Fault{Path: p.ID, Flip: true} }},
		"config missing": {want: "404", cause: ErrNotFound, fault: func(p testregistry.Pushed) testregistry.Fault { return testregistry.Fault{Path: p.ID, Status: 404} }},
		"layer flipped": {want: "digest", cause: ErrCorrupt, other: true, fault: func(p testregistry.Pushed) testregistry.Fault {
			return testregistry.Fault{Path: p.Layers[0].String(), Flip: true}
		}},
		"layer truncated": {want: "were promised", cause: ErrCorrupt, other: true, fault: func(p testregistry.Pushed) testregistry.Fault {
			return testregistry.Fault{Path: p.Layers[0].String(), Truncate: 100}
		}},
		"layer too long": {want: "were promised", cause: ErrCorrupt, other: true, fault: func(p testregistry.Pushed) testregistry.Fault {
			return testregistry.Fault{Path: p.Layers[0].String(), Append: "x"}
		}},
		"layer without end": {want: "larger than", cause: ErrCorrupt, other: true, fault: func(p testregistry.Pushed) testregistry.Fault {
			return testregistry.Fault{Path: p.Layers[0].String(), Append: "x", Chunked: true}
		}},
		"layer ends early": {want: "ended after", cause: ErrUnavailable, other: true, fault: func(p testregistry.Pushed) testregistry.Fault {
			return testregistry.Fault{Path: p.Layers[0].String(), Truncate: 10, Chunked: true, NoRange: true}
		}},
		"layer always breaking": {want: "ended after", cause: ErrUnavailable, other: true, fault: func(p testregistry.Pushed) testregistry.Fault {
			return testregistry.Fault{Path: p.Layers[0].String(), Drop: 10}
		}},
		"layer never ending": {want: "too slow", cause: ErrUnavailable, other: true, fault: func(p testregistry.Pushed) testregistry.Fault {
			return testregistry.Fault{Path: p.Layers[0].String(), Stall: 10, Times: 40}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t, testregistry.Options{TLS: true})
			f.client.o.Window = 20 * time.Millisecond
			pushed := f.r.Push("app", "1", simple())
			f.r.Fault(test.fault(pushed))
			start := time.Now()
			repo := f.open("app:1", nil)
			_, _, err := fetchAll(t.Context(), repo)
			if !errors.Is(err, test.cause) || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), f.r.Host()) {
				t.Errorf("pull = %v; want %v, with %q and the host", err, test.cause, test.want)
			}
			if _, err := repo.Resolve(t.Context(), platform); (err == nil) != test.other {
				t.Errorf("manifest and config alone: %v", err)
			}
			if d := time.Since(start); d > 8*time.Second {
				t.Errorf("it took %v to fail", d)
			}
		})
	}
}

func TestForeignURLsAreIgnored(t *testing.T) {
	f := newFixture(t, testregistry.Options{})
	elsewhere := testregistry.New(testregistry.Options{})
	t.Cleanup(elsewhere.Close)
	img := simple()
	img.Layers[0].URLs = []string{elsewhere.URL() + "/secret"}
	img.Layers[0].MediaType = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
	f.r.Push("app", "1", img)
	if _, layers, err := fetchAll(t.Context(), f.open("app:1", nil)); err != nil || len(layers) != 1 {
		t.Fatalf("pull: %v", err)
	}
	if n := len(elsewhere.Requests()); n != 0 {
		t.Fatalf("the foreign address was asked %d times", n)
	}
}

func TestTransientAnswersAreRetried(t *testing.T) {
	for _, status := range []int{429, 500, 502, 503, 504} {
		f := newFixture(t, testregistry.Options{})
		f.r.Push("app", "1", simple())
		f.r.Fault(testregistry.Fault{Status: status, Times: 3})
		if _, _, err := fetchAll(t.Context(), f.open("app:1", nil)); err != nil {
			t.Errorf("after three times %d: %v", status, err)
		}
	}
	f := newFixture(t, testregistry.Options{})
	f.r.Push("app", "1", simple())
	f.r.Fault(testregistry.Fault{Status: 429, Times: 1, RetryAfter: 1})
	start := time.Now()
	if _, _, err := fetchAll(t.Context(), f.open("app:1", nil)); err != nil || time.Since(start) < time.Second {
		t.Errorf("with Retry-After 1: %v after %v", err, time.Since(start))
	}
}

func TestBrokenDownloadGoesOnWhereItEnded(t *testing.T) {
	for _, noRange := range []bool{false, true} {
		f := newFixture(t, testregistry.Options{TLS: true})
		pushed := f.r.Push("app", "1", simple())
		layer := pushed.Layers[0].String()
		f.r.Fault(testregistry.Fault{Path: layer, Drop: 30_000, Times: 1})
		f.r.Fault(testregistry.Fault{Path: layer, Drop: 40_000, Times: 1, NoRange: noRange})
		f.r.Fault(testregistry.Fault{Path: layer, Stall: 1000, Times: 1})
		if _, _, err := fetchAll(t.Context(), f.open("app:1", nil)); err != nil {
			t.Fatalf("noRange=%v: %v", noRange, err)
		}
		var ranges []string
		for _, q := range f.r.Requests() {
			if strings.Contains(q.Path, layer) {
				ranges = append(ranges, q.Range)
			}
		}
		if len(ranges) != 4 || ranges[0] != "" || ranges[1] != "bytes=30000-" || !strings.HasPrefix(ranges[3], "bytes=") || ranges[3] == ranges[2] {
			t.Fatalf("noRange=%v: ranges asked for %q", noRange, ranges)
		}
	}
}

func TestSlowButSteadyDownloadIsLeftAlone(t *testing.T) {
	f := newFixture(t, testregistry.Options{})
	f.client.o.MinProgress = 3 // in 300 ms; it brings about 30
	pushed := f.r.Push("app", "1", testregistry.Image{Platform: amd64(), Layers: []testregistry.Layer{testregistry.Files(map[string]string{"a": "b"})}})
	f.r.Fault(testregistry.Fault{Path: pushed.Layers[0].String(), Trickle: 10 * time.Millisecond})
	if _, _, err := fetchAll(t.Context(), f.open("app:1", nil)); err != nil {
		t.Fatal(err)
	}
	if n := f.r.Count(pushed.Layers[0].String()); n != 1 {
		t.Fatalf("it took %d connections, want 1", n)
	}
}

func TestCancelAndDeadlineAreProminentAndPrompt(t *testing.T) {
	for name, fault := range map[string]testregistry.Fault{
		"before answer": {Delay: time.Minute},
		"during layer":  {Path: "blobs", Stall: 10},
		"during retry":  {Status: 503, RetryAfter: 30},
	} {
		f := newFixture(t, testregistry.Options{TLS: true})
		f.client.o.Window = time.Minute
		f.r.Push("app", "1", simple())
		f.r.Fault(fault)
		for _, want := range []error{context.DeadlineExceeded, context.Canceled} {
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			if want == context.Canceled {
				ctx, cancel = context.WithCancel(t.Context())
				time.AfterFunc(100*time.Millisecond, cancel)
			}
			start := time.Now()
			_, _, err := fetchAll(ctx, f.open("app:1", nil))
			cancel()
			if !errors.Is(err, want) || time.Since(start) > time.Second {
				t.Errorf("%s: %v after %v, want %v at once", name, err, time.Since(start), want)
			}
		}
	}
}

func TestIndexMustDescribeTheManifest(t *testing.T) {
	f := newFixture(t, testregistry.Options{})
	pushed := f.r.Push("app", "1", simple())
	resolved, err := f.open("app:1", nil).Resolve(t.Context(), platform)
	if err != nil {
		t.Fatal(err)
	}
	data, err := json.Marshal(resolved.Manifest)
	if err != nil {
		t.Fatal(err)
	}
	right := ocispec.Descriptor{MediaType: resolved.Manifest.MediaType, Digest: pushed.Manifest, Size: int64(len(data)), Platform: &ocispec.Platform{OS: "linux", Architecture: "amd64"}}
	smaller, docker := right, right
	smaller.Size--
	docker.MediaType = "application/vnd.docker.distribution.manifest.v2+json"
	for _, test := range []struct {
		desc ocispec.Descriptor
		want string
	}{{right, ""}, {smaller, "bytes"}, {docker, "docker"}} {
		index := ocispec.Index{MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{test.desc}}
		index.SchemaVersion = 2
		data, err := json.Marshal(index)
		if err != nil {
			t.Fatal(err)
		}
		f.r.PutManifest("app", "2", index.MediaType, data)
		_, err = f.open("app:2", nil).Resolve(t.Context(), platform)
		if test.want == "" && err != nil {
			t.Errorf("the right index: %v", err)
		}
		if test.want != "" && (!errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), test.want)) {
			t.Errorf("an index with %+v: %v, want ErrCorrupt with %q", test.desc, err, test.want)
		}
	}
}

func TestIndexesThatLeadToEachOtherEnd(t *testing.T) {
	f := newFixture(t, testregistry.Options{})
	p := f.r.Push("app", "1", simple())
	desc := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: p.Manifest, Size: 1}
	for range 6 {
		index := ocispec.Index{MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{desc}}
		index.SchemaVersion = 2
		data, err := json.Marshal(index)
		if err != nil {
			t.Fatal(err)
		}
		desc = ocispec.Descriptor{MediaType: index.MediaType, Digest: f.r.PutManifest("app", "2", index.MediaType, data), Size: int64(len(data))}
	}
	if _, err := f.open("app:2", nil).Resolve(t.Context(), platform); err == nil || !strings.Contains(err.Error(), "indexes") {
		t.Fatalf("Resolve = %v", err)
	}
}
