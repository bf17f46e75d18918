package registry

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"cri-mini/test/critest/internal/testimage"
)

// newImages builds the set from stand-ins that cost nothing to make.
func newImages(t *testing.T) *testimage.Set {
	t.Helper()
	program := filepath.Join(t.TempDir(), "busybox")
	if err := os.WriteFile(program, []byte("#!/bin/sh\necho busybox ls sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	images, err := testimage.Build(testimage.Programs{Busybox: program, Webserver: program, NoNewPrivs: program})
	if err != nil {
		t.Fatal(err)
	}
	return images
}

func get(t *testing.T, h http.Handler, path string, headers ...string) *httptest.ResponseRecorder {
	t.Helper()
	request := httptest.NewRequest(http.MethodGet, path, nil)
	for i := 0; i < len(headers); i += 2 {
		request.Header.Set(headers[i], headers[i+1])
	}
	answer := httptest.NewRecorder()
	h.ServeHTTP(answer, request)
	return answer
}

func TestEveryReferenceOfAnImageLeadsToBytesOfItsDigest(t *testing.T) {
	h := &Handler{Images: newImages(t)}
	type descriptor struct {
		Digest   string
		Platform *struct{ Architecture string }
	}
	var walk func(kind, digest string)
	walk = func(kind, digest string) {
		answer := get(t, h, "/v2/some/where/test-image-tag/"+kind+"/"+digest)
		body, _ := io.ReadAll(answer.Body)
		if answer.Code != http.StatusOK {
			t.Fatalf("%s %s: status %d", kind, digest, answer.Code)
		}
		if got := fmt.Sprintf("sha256:%x", sha256.Sum256(body)); got != answer.Header().Get("Docker-Content-Digest") {
			t.Errorf("%s %s: the body's digest is %s", kind, digest, got)
		}
		if kind == "blobs" {
			return
		}
		var m struct {
			Manifests, Layers []descriptor
			Config            descriptor
		}
		if err := json.Unmarshal(body, &m); err != nil {
			t.Fatal(err)
		}
		for _, d := range m.Manifests {
			if d.Platform.Architecture != "pdp11" {
				walk("manifests", d.Digest)
			}
		}
		for _, d := range append(m.Layers, m.Config) {
			if d.Digest != "" {
				walk("blobs", d.Digest)
			}
		}
	}
	walk("manifests", "test")
}

func TestOneRegistryStandsInForAll(t *testing.T) {
	h := &Handler{Images: newImages(t)}
	for path, want := range map[string]int{
		"/v2/": http.StatusOK,
		"/v2/e2e-test-images/busybox/manifests/1.29-2": http.StatusOK,
		"/v2/pause/manifests/3.9":                      http.StatusOK,
		"/v2/a/b/pause/manifests/3.9":                  http.StatusOK,
		"/v2/pause/manifests/3.10":                     http.StatusNotFound,
		"/v2/xpause/manifests/3.9":                     http.StatusNotFound,
		"/":                                            http.StatusNotFound,
	} {
		if got := get(t, h, path).Code; got != want {
			t.Errorf("GET %s: status %d, want %d", path, got, want)
		}
	}
}

func TestARangeIsAnswered(t *testing.T) {
	images := newImages(t)
	digest := images.Tags["pause:3.9"]
	answer := get(t, &Handler{Images: images}, "/v2/pause/blobs/"+digest, "Range", "bytes=2-5")
	if want := string(images.Blobs[digest].Body[2:6]); answer.Code != http.StatusPartialContent || answer.Body.String() != want {
		t.Errorf("status %d, body %q, want 206 and %q", answer.Code, answer.Body, want)
	}
}

func TestAPasswordIsAskedFor(t *testing.T) {
	h := &Handler{Images: newImages(t), User: "u", Password: "p"}
	answer := get(t, h, "/v2/pause/manifests/3.9")
	if answer.Code != http.StatusUnauthorized || answer.Header().Get("WWW-Authenticate") == "" {
		t.Errorf("without password: status %d, challenge %q", answer.Code, answer.Header().Get("WWW-Authenticate"))
	}
	if answer := get(t, h, "/v2/pause/manifests/3.9", "Authorization", "Basic dTpw"); answer.Code != http.StatusOK {
		t.Errorf("with password: status %d", answer.Code)
	}
}
