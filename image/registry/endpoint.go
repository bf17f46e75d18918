package registry

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"cri-mini/image/reference"
)

// endpoint is a host with its connections and its proof of identity.
type endpoint struct {
	host
	path        string // of the repository
	namespace   string // for mirrors: which registry is meant
	client      *http.Client
	auth        *authorizer
	userAgent   string
	unreachable atomic.Bool
}

func newEndpoint(h host, name reference.Name, creds credentials, r *redactor, o Options) (*endpoint, error) {
	r.addHeaders(h.header)
	transport, err := newTransport(h)
	if err != nil {
		return nil, err
	}
	ep := &endpoint{host: h, path: name.Path, userAgent: o.UserAgent}
	if !isOwn(h.url, name.Domain) {
		ep.namespace = name.Domain
	}
	var round http.RoundTripper = transport
	if h.plainIfNeeded {
		round = &plainFallback{next: transport}
	}
	ep.client = &http.Client{Transport: round, CheckRedirect: ep.checkRedirect}
	ep.auth = &authorizer{
		creds:     creds.forHost(h, name.Domain),
		client:    &http.Client{Transport: round, CheckRedirect: stayHome},
		scope:     "repository:" + name.Path + ":pull",
		redact:    r,
		userAgent: o.UserAgent,
	}
	return ep, nil
}

// newTransport makes a transport that is left to one pull, so that changed
// certificates count from the next pull on. It speaks HTTP/1.1: a connection
// for each layer, and one that breaks takes only its layer with it.
func newTransport(h host) (*http.Transport, error) {
	conf, err := tlsConfig(h)
	if err != nil {
		return nil, err
	}
	dial := &net.Dialer{Timeout: 30 * time.Second}
	if h.dialTimeout > 0 {
		dial.Timeout = h.dialTimeout
	}
	t := &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           dial.DialContext,
		TLSClientConfig:       conf,
		TLSHandshakeTimeout:   15 * time.Second,
		ResponseHeaderTimeout: 30 * time.Second,
		IdleConnTimeout:       10 * time.Second,
		MaxIdleConnsPerHost:   16,
		DisableCompression:    true, // a blob is what its digest says, encoded or not
		ReadBufferSize:        64 << 10,
	}
	if h.proxy != nil {
		t.Proxy = http.ProxyURL(h.proxy)
	}
	return t, nil
}

func tlsConfig(h host) (*tls.Config, error) {
	conf := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: h.skipVerify}
	if len(h.ca) > 0 {
		pool, err := x509.SystemCertPool()
		if err != nil {
			return nil, fmt.Errorf("system certificates: %w", err)
		}
		for _, file := range h.ca {
			data, err := os.ReadFile(file)
			if err != nil {
				return nil, fmt.Errorf("ca: %w", err)
			}
			if !pool.AppendCertsFromPEM(data) {
				return nil, fmt.Errorf("ca: %s: no PEM certificate in it", file)
			}
		}
		conf.RootCAs = pool
	}
	for _, pair := range h.clientCerts {
		cert, key := pair[0], pair[1]
		if key == "" {
			key = cert
		}
		c, err := tls.LoadX509KeyPair(cert, key)
		if err != nil {
			return nil, fmt.Errorf("client certificate %s: %w", cert, err)
		}
		conf.Certificates = append(conf.Certificates, c)
	}
	return conf, nil
}

// newRequest asks for something in the repository.
func (ep *endpoint) newRequest(ctx context.Context, method, what string) (*http.Request, error) {
	u := *ep.url
	u.Path += "/" + ep.path + "/" + what
	if ep.namespace != "" {
		u.RawQuery = url.Values{"ns": {ep.namespace}}.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, method, u.String(), nil)
	if err != nil {
		return nil, err
	}
	for name, values := range ep.header {
		req.Header[http.CanonicalHeaderKey(name)] = values
	}
	if req.Header.Get("User-Agent") == "" {
		req.Header.Set("User-Agent", ep.userAgent)
	}
	return req, nil
}

var errRedirect = errors.New("redirect refused")

// checkRedirect lets a registry send us to its storage, but without what was
// meant for the registry: net/http itself would still send credentials to
// another port, and the operator's headers anywhere. It copies the headers of
// the first request on every hop, so this must be done on every hop too, and
// a chain that has left its origin once is abroad for good.
func (ep *endpoint) checkRedirect(req *http.Request, via []*http.Request) error {
	if len(via) >= 10 {
		return fmt.Errorf("%w: more than 10", errRedirect)
	}
	if via[0].URL.Scheme == "https" && req.URL.Scheme != "https" && !isLoopback(via[0].URL.Host) {
		return fmt.Errorf("%w: from https to %s://%s", errRedirect, req.URL.Scheme, req.URL.Host)
	}
	chain := append(via[1:len(via):len(via)], req)
	for _, r := range chain {
		if sameOrigin(r.URL, via[0].URL) {
			continue
		}
		req.Header.Del("Authorization")
		req.Header.Del("Cookie")
		for name := range ep.header {
			req.Header.Del(name)
		}
		break
	}
	return nil
}

// stayHome is for token servers: the answer to a password must come from where
// the password was sent.
func stayHome(req *http.Request, via []*http.Request) error {
	if len(via) >= 10 || !sameOrigin(req.URL, via[0].URL) {
		return fmt.Errorf("%w: token server leads to %s", errRedirect, req.URL.Host)
	}
	return nil
}

func sameOrigin(a, b *url.URL) bool {
	return a.Scheme == b.Scheme && strings.EqualFold(withPort(a), withPort(b))
}

func withPort(u *url.URL) string {
	if u.Port() != "" {
		return u.Host
	}
	if u.Scheme == "https" {
		return u.Host + ":443"
	}
	return u.Host + ":80"
}

// plainFallback speaks TLS, and plain HTTP once a server on this machine has
// shown that it does not know TLS.
type plainFallback struct {
	next  *http.Transport
	plain atomic.Bool
}

func (t *plainFallback) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.Scheme != "https" || !isLoopback(req.URL.Host) {
		return t.next.RoundTrip(req)
	}
	if !t.plain.Load() {
		resp, err := t.next.RoundTrip(req)
		if !speaksPlain(err) || (req.Body != nil && req.GetBody == nil) {
			return resp, err
		}
		t.plain.Store(true)
	}
	again := req.Clone(req.Context())
	again.URL.Scheme = "http"
	if req.GetBody != nil {
		body, err := req.GetBody()
		if err != nil {
			return nil, err
		}
		again.Body = body
	}
	return t.next.RoundTrip(again)
}

// speaksPlain tells whether a server answered a TLS greeting in plain HTTP.
func speaksPlain(err error) bool {
	record, ok := errors.AsType[tls.RecordHeaderError](err)
	return ok && string(record.RecordHeader[:]) == "HTTP/"
}

func (t *plainFallback) CloseIdleConnections() { t.next.CloseIdleConnections() }
