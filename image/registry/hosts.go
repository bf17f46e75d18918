package registry

import (
	"errors"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	orasregistry "oras.land/oras-go/v2/registry"
)

// host is one place to look for content, as configured.
type host struct {
	url         *url.URL // up to and including /v2
	pull        bool
	resolve     bool
	ca          []string
	clientCerts [][2]string // certificate and key; no key: both in one file
	skipVerify  bool
	header      http.Header
	dialTimeout time.Duration
	proxy       *url.URL

	// plainIfNeeded: a loopback address that nobody configured may turn out
	// to speak plain HTTP.
	plainIfNeeded bool
	// own: the registry that the image's name means, not a stand-in for it.
	// Only own hosts get its password.
	own bool
}

// apiHost is the host that serves the interface of a registry. For one
// registry, the library's default, it differs from the name in references.
func apiHost(domain string) string {
	return orasregistry.Reference{Registry: domain}.Host()
}

// isOwn tells whether a URL is the registry that images of domain name.
func isOwn(u *url.URL, domain string) bool {
	return u.Host == domain || u.Host == apiHost(domain)
}

// findHosts lists where to look for images of domain, first choice first.
func findHosts(configDir, domain string) ([]host, error) {
	dir, err := hostDir(configDir, domain)
	if err != nil {
		return nil, err
	}
	if dir == "" {
		return []host{defaultHost(domain)}, nil
	}
	h, err := readHostsFile(filepath.Join(dir, "hosts.toml"), domain)
	if errors.Is(err, fs.ErrNotExist) {
		h, err = []host{defaultHost(domain)}, nil
	}
	if err != nil {
		return nil, err
	}
	return h, addCertificates(dir, &h[len(h)-1])
}

// hostDir finds the folder for domain; the spelling without a colon is for
// file systems that do not allow one. Empty if there is none.
func hostDir(configDir, domain string) (string, error) {
	if configDir == "" {
		return "", nil
	}
	names := []string{domain, "_default"}
	if i := strings.LastIndexByte(domain, ':'); i > 0 {
		names = slices.Insert(names, 0, domain[:i]+"_"+domain[i+1:]+"_")
	}
	for _, name := range names {
		dir := filepath.Join(configDir, name)
		_, err := os.Stat(dir)
		if err == nil {
			return dir, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
	}
	return "", nil
}

// defaultHost is the registry itself, over TLS.
func defaultHost(domain string) host {
	return host{
		url:           &url.URL{Scheme: "https", Host: apiHost(domain), Path: "/v2"},
		pull:          true,
		resolve:       true,
		plainIfNeeded: isLoopback(domain),
		own:           true,
	}
}

// addCertificates takes the certificate files lying in dir, *.crt for
// authorities and *.cert with *.key for this machine, as the registry's own.
func addCertificates(dir string, h *host) error {
	if h.ca == nil {
		found, err := filepath.Glob(filepath.Join(dir, "*.crt"))
		if err != nil {
			return err
		}
		h.ca = found
	}
	if h.clientCerts == nil {
		found, err := filepath.Glob(filepath.Join(dir, "*.cert"))
		if err != nil {
			return err
		}
		for _, cert := range found {
			h.clientCerts = append(h.clientCerts, [2]string{cert, strings.TrimSuffix(cert, ".cert") + ".key"})
		}
	}
	return nil
}

// isLoopback tells whether host[:port] certainly is this machine.
func isLoopback(hostport string) bool {
	name := hostport
	if h, _, err := net.SplitHostPort(hostport); err == nil {
		name = h
	}
	name = strings.Trim(name, "[]")
	if strings.EqualFold(name, "localhost") {
		return true
	}
	ip := net.ParseIP(name)
	return ip != nil && ip.IsLoopback()
}
