package testregistry

import (
	"crypto/rand"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/opencontainers/go-digest"
)

var quiet = log.New(io.Discard, "", 0) // clients that go away are part of the tests

// CA is the certificate that clients must trust, in PEM.
func (r *Registry) CA() []byte {
	if r.server.Certificate() == nil {
		return nil
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: r.server.Certificate().Raw})
}

var route = regexp.MustCompile(`^/v2/(.+)/(manifests|blobs)/([^/]+)$`)

func (r *Registry) serve(w http.ResponseWriter, q *http.Request) {
	asked := &Request{
		Method: q.Method, Path: q.URL.Path, Query: q.URL.RawQuery, Range: q.Header.Get("Range"), Host: q.Host,
		Authorization: q.Header.Get("Authorization"), Header: q.Header.Clone(), Status: http.StatusOK,
	}
	r.mu.Lock()
	r.requests = append(r.requests, asked)
	r.mu.Unlock()
	rec := &recorder{ResponseWriter: w, sent: &r.sent, note: func(status int) {
		r.mu.Lock()
		defer r.mu.Unlock()
		asked.Status = status
	}}
	if q.URL.Path == "/token" {
		r.serveToken(rec, q)
		return
	}
	if fault := r.fault(q); fault != nil {
		r.misbehave(rec, q, fault)
		return
	}
	r.answer(rec, q)
}

func (r *Registry) answer(w http.ResponseWriter, q *http.Request) {
	if !r.authorized(q) {
		r.challenge(w, q)
		return
	}
	if q.URL.Path == "/v2/" {
		w.WriteHeader(http.StatusOK)
		return
	}
	m := route.FindStringSubmatch(q.URL.Path)
	if m == nil || (q.Method != http.MethodGet && q.Method != http.MethodHead) {
		fail(w, http.StatusNotFound, "UNSUPPORTED", "no such thing")
		return
	}
	name, kind, ref := m[1], m[2], m[3]
	doc, known := r.lookup(name, kind, ref)
	if !known {
		fail(w, http.StatusNotFound, strings.ToUpper(kind[:len(kind)-1])+"_UNKNOWN", "unknown: "+ref)
		return
	}
	if kind == "manifests" {
		algorithm := digest.SHA256
		if strings.HasPrefix(ref, "sha512:") {
			algorithm = digest.SHA512
		}
		w.Header().Set("Docker-Content-Digest", algorithm.FromBytes(doc.data).String())
	}
	w.Header().Set("Content-Type", doc.mediaType)
	serveBytes(w, q, doc.data)
}

func (r *Registry) lookup(name, kind, ref string) (doc document, known bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if kind == "blobs" {
		data, known := r.blobs[digest.Digest(ref)]
		return document{"application/octet-stream", data}, known
	}
	d, tagged := r.tags[name+":"+ref]
	if !tagged {
		d = digest.Digest(ref)
	}
	doc, known = r.manifests[d]
	return doc, known
}

// serveBytes knows ranges that go to the end, as they are used to go on.
func serveBytes(w http.ResponseWriter, q *http.Request, data []byte) {
	status := http.StatusOK
	whole := len(data)
	if s, ok := strings.CutPrefix(q.Header.Get("Range"), "bytes="); ok {
		start, err := strconv.Atoi(strings.TrimSuffix(s, "-"))
		if err != nil || start >= whole {
			w.WriteHeader(http.StatusRequestedRangeNotSatisfiable)
			return
		}
		data = data[start:]
		status = http.StatusPartialContent
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", start, whole-1, whole))
	}
	w.Header().Set("Content-Length", strconv.Itoa(len(data)))
	w.WriteHeader(status)
	if q.Method == http.MethodGet {
		w.Write(data)
	}
}

func fail(w http.ResponseWriter, status int, code, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(map[string]any{"errors": []any{map[string]string{"code": code, "message": message}}})
}

func (r *Registry) authorized(q *http.Request) bool {
	if r.o.Username == "" {
		return true
	}
	if r.o.Token {
		token, ok := strings.CutPrefix(q.Header.Get("Authorization"), "Bearer ")
		r.mu.Lock()
		defer r.mu.Unlock()
		return ok && r.tokens[token]
	}
	return r.passwordGood(q)
}

func (r *Registry) passwordGood(q *http.Request) bool {
	user, password, ok := q.BasicAuth()
	return ok && user == r.o.Username && password == r.o.Password
}

func (r *Registry) challenge(w http.ResponseWriter, q *http.Request) {
	if r.o.Token {
		realm := r.o.Realm
		if realm == "" {
			realm = r.URL() + "/token"
		}
		w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm=%q,service="test registry"`, realm))
	} else {
		w.Header().Set("WWW-Authenticate", `Basic realm="test registry"`)
	}
	// A careless server tells what it was sent.
	fail(w, http.StatusUnauthorized, "UNAUTHORIZED", "authentication required, got "+q.Header.Get("Authorization"))
}

func (r *Registry) serveToken(w http.ResponseWriter, q *http.Request) {
	good := r.passwordGood(q)
	if q.Method == http.MethodPost {
		good = r.o.IdentityToken != "" && q.FormValue("grant_type") == "refresh_token" && q.FormValue("refresh_token") == r.o.IdentityToken
	}
	if !good {
		fail(w, http.StatusUnauthorized, "DENIED", "wrong password "+q.Header.Get("Authorization")+" "+q.FormValue("refresh_token"))
		return
	}
	token := rand.Text()
	r.AddToken(token)
	json.NewEncoder(w).Encode(map[string]string{"token": token, "access_token": token})
}

// AddToken makes the registry accept a token.
func (r *Registry) AddToken(token string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.tokens[token] = true
}

// ExpireTokens makes the registry refuse all tokens given out so far.
func (r *Registry) ExpireTokens() {
	r.mu.Lock()
	defer r.mu.Unlock()
	clear(r.tokens)
}

// recorder notes the status of an answer.
type recorder struct {
	http.ResponseWriter
	note func(status int)
	sent *atomic.Int64
}

func (r *recorder) Write(p []byte) (int, error) {
	n, err := r.ResponseWriter.Write(p)
	r.sent.Add(int64(n))
	return n, err
}

func (r *recorder) WriteHeader(status int) {
	r.note(status)
	r.ResponseWriter.WriteHeader(status)
}

func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }
