// Package registry serves a set of test images by the read half of the
// distribution protocol.
//
// A Handler answers for every repository whose path ends in the name of a test
// image, so one instance stands in for any number of registries. It knows
// nothing of what the images contain, and cannot be pushed to.
package registry

import (
	"bytes"
	"crypto/subtle"
	"fmt"
	"net/http"
	"path"
	"strings"
	"time"

	"cri-mini/test/critest/internal/testimage"
)

// Handler serves Images. With a User it asks for basic authentication.
type Handler struct {
	Images         *testimage.Set
	User, Password string
}

func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Docker-Distribution-Api-Version", "registry/2.0")
	if !h.allowed(r) {
		w.Header().Set("WWW-Authenticate", `Basic realm="test images"`)
		refuse(w, http.StatusUnauthorized, "UNAUTHORIZED", "authentication required")
		return
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		refuse(w, http.StatusMethodNotAllowed, "UNSUPPORTED", "this registry cannot be pushed to")
		return
	}
	name, isAPI := strings.CutPrefix(r.URL.Path, "/v2/")
	if isAPI && name == "" {
		return
	}
	if repository, digest, ok := strings.Cut(name, "/blobs/"); isAPI && ok {
		h.serve(w, r, repository, digest)
	} else if repository, reference, ok := strings.Cut(name, "/manifests/"); isAPI && ok {
		if digest, tagged := h.Images.Tags[path.Base(repository)+":"+reference]; tagged {
			reference = digest
		}
		h.serve(w, r, repository, reference)
	} else {
		refuse(w, http.StatusNotFound, "NOT_FOUND", r.URL.Path)
	}
}

func (h *Handler) allowed(r *http.Request) bool {
	if h.User == "" {
		return true
	}
	user, password, _ := r.BasicAuth()
	return user == h.User && subtle.ConstantTimeCompare([]byte(password), []byte(h.Password)) == 1
}

func (h *Handler) serve(w http.ResponseWriter, r *http.Request, repository, digest string) {
	blob, ok := h.Images.Blobs[digest]
	if !ok {
		refuse(w, http.StatusNotFound, "MANIFEST_UNKNOWN", repository+" has no "+digest)
		return
	}
	w.Header().Set("Content-Type", blob.MediaType)
	w.Header().Set("Docker-Content-Digest", digest)
	w.Header().Set("ETag", `"`+digest+`"`)
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(blob.Body)) // answers ranges too
}

func refuse(w http.ResponseWriter, status int, code, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	fmt.Fprintf(w, `{"errors":[{"code":%q,"message":%q}]}`+"\n", code, message)
}
