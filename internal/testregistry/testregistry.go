// Package testregistry is a registry in this process, for tests and for showing
// the program off: images are pushed from Go, and faults can be put in.
//
// An Image is made of Layers, a Layer of Files. A Fault changes how the
// registry answers some requests. A Request is what the registry was asked.
// The package keeps everything in memory and knows only how to serve.
package testregistry

import (
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/opencontainers/go-digest"
)

// Options of a Registry. The zero value is plain HTTP without a password.
type Options struct {
	TLS        bool
	ClientCert bool // with TLS: clients must show a certificate, any

	// With a username, every request needs a login: basic, or with Token by a
	// token from the registry's own token server at /token.
	Username, Password string
	Token              bool
	IdentityToken      string // what the token server takes by POST, if set
	Realm              string // overrides the address of the token server

	// Address to listen on; empty: a free port of 127.0.0.1.
	Address string
}

// Registry serves images. It is safe for concurrent use. Close it.
type Registry struct {
	o      Options
	server *httptest.Server
	sent   atomic.Int64

	mu        sync.Mutex // guards what follows
	blobs     map[digest.Digest][]byte
	manifests map[digest.Digest]document
	tags      map[string]digest.Digest // by name:tag
	faults    []*Fault
	requests  []*Request
	tokens    map[string]bool
}

// document is a manifest or an index.
type document struct {
	mediaType string
	data      []byte
}

// Request is one question the registry was asked.
type Request struct {
	Method        string
	Path          string
	Query         string
	Range         string
	Host          string
	Authorization string
	Header        http.Header
	Status        int // of the answer
}

// New starts a registry. It panics when it cannot listen, as httptest does.
func New(o Options) *Registry {
	r := &Registry{
		o:         o,
		blobs:     map[digest.Digest][]byte{},
		manifests: map[digest.Digest]document{},
		tags:      map[string]digest.Digest{},
		tokens:    map[string]bool{},
	}
	r.server = httptest.NewUnstartedServer(http.HandlerFunc(r.serve))
	r.server.Config.ErrorLog = quiet
	if o.Address != "" {
		l, err := net.Listen("tcp", o.Address)
		if err != nil {
			panic(fmt.Sprintf("testregistry: %v", err))
		}
		r.server.Listener.Close()
		r.server.Listener = l
	}
	if o.TLS {
		r.server.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
		if o.ClientCert {
			r.server.TLS.ClientAuth = tls.RequireAnyClientCert
		}
		r.server.StartTLS()
	} else {
		r.server.Start()
	}
	return r
}

// Close stops serving and breaks all connections.
func (r *Registry) Close() {
	r.server.CloseClientConnections()
	r.server.Close()
}

// Host is the address with the port, as it stands in image names.
func (r *Registry) Host() string { return r.server.Listener.Addr().String() }

// URL is the address with the scheme, as it stands in hosts files.
func (r *Registry) URL() string { return r.server.URL }

// CAFile writes the certificate that clients must trust into dir and returns
// the file's path.
func (r *Registry) CAFile(dir string) (string, error) {
	path := filepath.Join(dir, "testregistry-ca.crt")
	return path, os.WriteFile(path, r.CA(), 0o644)
}

// Trust writes a folder for this registry into a folder of hosts files, so that
// clients which read it trust the registry's certificate.
func (r *Registry) Trust(configDir string) error {
	dir := filepath.Join(configDir, r.Host())
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	_, err := r.CAFile(dir)
	return err
}

// Mirror writes a hosts file that sends clients to this registry for images of
// domain, which may be "_default" for all others.
func (r *Registry) Mirror(configDir, domain string) error {
	dir := filepath.Join(configDir, domain)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	text := fmt.Sprintf("[host.%q]\n  capabilities = [\"pull\", \"resolve\"]\n", r.URL())
	if r.o.TLS {
		ca, err := r.CAFile(dir)
		if err != nil {
			return err
		}
		text += fmt.Sprintf("  ca = %q\n", ca)
	}
	return os.WriteFile(filepath.Join(dir, "hosts.toml"), []byte(text), 0o644)
}

// Requests lists what was asked so far, in order.
func (r *Registry) Requests() []Request {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make([]Request, 0, len(r.requests))
	for _, q := range r.requests {
		out = append(out, *q)
	}
	return out
}

// Sent is how many bytes of content went out so far.
func (r *Registry) Sent() int64 { return r.sent.Load() }

// Count tells how many requests had part in their path.
func (r *Registry) Count(part string) int {
	n := 0
	for _, q := range r.Requests() {
		if strings.Contains(q.Path, part) {
			n++
		}
	}
	return n
}

// Forget empties the list of requests.
func (r *Registry) Forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.requests = nil
}
