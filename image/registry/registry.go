// Package registry fetches images from registries.
//
// A Client knows where an operator wrote down mirrors and certificates. A
// Repository is one name's view of it during one pull: an ordered list of
// endpoints, each a host that may have the content. A Resolved is what a tag or
// digest led to: one manifest and one config for this machine.
//
// Everything a registry says is checked before it is believed: sizes, digests,
// media types. The package knows nothing of layers on disk, and keeps nothing
// between pulls.
package registry

import (
	"fmt"
	"log/slog"
	"time"

	"cri-mini/image/reference"
)

// Options of a Client. The zero value is usable.
type Options struct {
	ConfigDir string // holds <host>/hosts.toml; may be empty or missing
	UserAgent string
	Logger    *slog.Logger

	// A connection that brings fewer than MinProgress bytes in Window of
	// waiting is given up and opened again.
	Window      time.Duration // default 30 s
	MinProgress int64         // default 16 KiB

	RetryDelay time.Duration // before the first retry, longer before each next; default 200 ms
}

// Client opens repositories. It is safe for concurrent use.
type Client struct {
	o Options
}

// New makes a Client.
func New(o Options) *Client {
	if o.UserAgent == "" {
		o.UserAgent = "cri-mini"
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.Window == 0 {
		o.Window = 30 * time.Second
	}
	if o.MinProgress == 0 {
		o.MinProgress = 16 << 10
	}
	if o.RetryDelay == 0 {
		o.RetryDelay = 200 * time.Millisecond
	}
	return &Client{o}
}

// Repository is one name in a registry and in its mirrors. It is safe for
// concurrent use. Close it.
type Repository struct {
	name      reference.Name
	endpoints []*endpoint
	redact    *redactor
	o         Options
}

// Repository reads the configuration for name anew, so that an operator need
// not restart anything after a change. auth may be nil.
func (c *Client) Repository(name reference.Name, auth *Auth) (*Repository, error) {
	creds, err := auth.credentials()
	if err != nil {
		return nil, fmt.Errorf("pull %s: %w", name, err)
	}
	hosts, err := findHosts(c.o.ConfigDir, name.Domain)
	if err != nil {
		return nil, fmt.Errorf("pull %s: %w", name, err)
	}
	r := &Repository{name: name, redact: newRedactor(creds), o: c.o}
	for _, h := range hosts {
		ep, err := newEndpoint(h, name, creds, r.redact, c.o)
		if err != nil {
			r.Close()
			return nil, fmt.Errorf("pull %s: %w", name, err)
		}
		r.endpoints = append(r.endpoints, ep)
	}
	return r, nil
}

// Name is what the Repository was opened for.
func (r *Repository) Name() reference.Name { return r.name }

// Close frees idle connections. What is still running goes on.
func (r *Repository) Close() {
	for _, ep := range r.endpoints {
		ep.client.CloseIdleConnections()
	}
}

// usable lists the endpoints that can do what is asked, in the operator's
// order, those that could not be reached a moment ago last.
func (r *Repository) usable(can func(*endpoint) bool) []*endpoint {
	var good, bad []*endpoint
	for _, ep := range r.endpoints {
		switch {
		case !can(ep):
		case ep.unreachable.Load():
			bad = append(bad, ep)
		default:
			good = append(good, ep)
		}
	}
	return append(good, bad...)
}
