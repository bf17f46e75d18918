package registry

import (
	"encoding/base64"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
)

// redactor takes secrets out of everything that leaves the package as text. A
// server may put what it was sent into its answer, and net/http puts whole
// URLs, with signatures of storage services in them, into its errors.
type redactor struct {
	mu      sync.Mutex // guards what follows
	secrets []string   // longest first, so that no part of one is left over
}

func newRedactor(c credentials) *redactor {
	r := &redactor{}
	r.add(c.username+":"+c.password, c.password, c.identityToken, c.registryToken)
	return r
}

// add makes secrets known, in all forms in which they travel.
func (r *redactor) add(secrets ...string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range secrets {
		if s == "" || s == ":" {
			continue
		}
		forms := []string{
			s, url.QueryEscape(s), url.PathEscape(s),
			base64.StdEncoding.EncodeToString([]byte(s)), base64.URLEncoding.EncodeToString([]byte(s)),
		}
		r.secrets = append(r.secrets, forms...)
	}
	slices.SortFunc(r.secrets, func(a, b string) int { return len(b) - len(a) })
	r.secrets = slices.Compact(r.secrets)
}

// addHeaders makes the values of an operator's headers known.
func (r *redactor) addHeaders(h http.Header) {
	for _, values := range h {
		for _, v := range values {
			r.add(v)
			if _, token, ok := strings.Cut(v, " "); ok {
				r.add(token)
			}
		}
	}
}

func (r *redactor) text(s string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, secret := range r.secrets {
		s = strings.ReplaceAll(s, secret, "[redacted]")
	}
	return s
}

// error gives err without secrets. The original can be asked what it is, but
// not be had.
func (r *redactor) error(err error) error {
	if err == nil {
		return nil
	}
	text := err.Error()
	if u, ok := errors.AsType[*url.Error](err); ok {
		text = strings.ReplaceAll(text, u.Error(), withoutURL(u))
	}
	return &redacted{r.text(text), err}
}

// withoutURL keeps only the host of the URL: the rest is known or secret.
func withoutURL(e *url.Error) string {
	if u, err := url.Parse(e.URL); err == nil && u.Host != "" {
		return u.Host + ": " + e.Err.Error()
	}
	return e.Err.Error()
}

type redacted struct {
	text string
	err  error
}

func (e *redacted) Error() string        { return e.text }
func (e *redacted) Is(target error) bool { return errors.Is(e.err, target) }
