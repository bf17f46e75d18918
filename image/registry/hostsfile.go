package registry

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2"
	"golang.org/x/net/http/httpguts"
)

// maxHostsFile bounds what is read as a hosts file.
const maxHostsFile = 1 << 20

// hostTable is what may be said of one host, at the top of the file of the
// registry itself. Fields of type any may be a string or a list.
type hostTable struct {
	Capabilities []string       `toml:"capabilities"`
	CA           any            `toml:"ca"`
	Client       any            `toml:"client"`
	SkipVerify   bool           `toml:"skip_verify"`
	Header       map[string]any `toml:"header"`
	OverridePath bool           `toml:"override_path"`
	DialTimeout  string         `toml:"dial_timeout"`
	Proxy        string         `toml:"proxy"`
}

type hostsTable struct {
	hostTable
	Server string               `toml:"server"`
	Host   map[string]hostTable `toml:"host"`
}

// fileError points at a line of a hosts file.
type fileError struct {
	file string
	line int
	err  error
}

func (e *fileError) Error() string { return fmt.Sprintf("%s:%d: %v", e.file, e.line, e.err) }
func (e *fileError) Unwrap() error { return e.err }

// readHostsFile reads the hosts for domain, in the order written, the registry
// itself last.
func readHostsFile(file, domain string) ([]host, error) {
	info, err := os.Stat(file)
	if err != nil {
		return nil, err
	}
	if info.Size() > maxHostsFile {
		return nil, fmt.Errorf("%s: %d bytes, at most %d are allowed", file, info.Size(), maxHostsFile)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	return parseHostsFile(file, data, domain)
}

func parseHostsFile(file string, data []byte, domain string) ([]host, error) {
	var t hostsTable
	if err := toml.NewDecoder(bytes.NewReader(data)).DisallowUnknownFields().Decode(&t); err != nil {
		return nil, tomlError(file, err)
	}
	doc, err := readOutline(data)
	if err != nil {
		return nil, tomlError(file, err)
	}
	p := hostsParser{file: file, dir: filepath.Dir(file), domain: domain, doc: doc}
	var hosts []host
	for _, name := range doc.hosts {
		h, err := p.host(name, t.Host[name], "host", name)
		if err != nil {
			return nil, err
		}
		hosts = append(hosts, h)
	}
	last := defaultHost(domain)
	if t.Server != "" {
		if last.url, err = p.url(t.Server, t.OverridePath); err != nil {
			return nil, p.at(err, "server")
		}
		// In the folder of one registry, "server" says where that registry
		// is. In the one for all, it is a stand-in for every registry.
		last.own = filepath.Base(p.dir) != "_default" || isOwn(last.url, domain)
		last.plainIfNeeded = false
	}
	last, err = p.table(last, t.hostTable)
	return append(hosts, last), err
}

// tomlError adds file, line and key to what the decoder found.
func tomlError(file string, err error) error {
	if strict, ok := errors.AsType[*toml.StrictMissingError](err); ok && len(strict.Errors) > 0 {
		d := &strict.Errors[0]
		line, _ := d.Position()
		return &fileError{file, line, fmt.Errorf("unknown key %q", strings.Join(d.Key(), "."))}
	}
	if d, ok := errors.AsType[*toml.DecodeError](err); ok {
		line, _ := d.Position()
		return &fileError{file, line, d}
	}
	return fmt.Errorf("%s: %w", file, err)
}

// hostsParser turns tables into hosts.
type hostsParser struct {
	file, dir, domain string
	doc               *outline
}

// at points err at the line of a key.
func (p *hostsParser) at(err error, key ...string) error {
	return &fileError{p.file, p.doc.line(key), err}
}

func (p *hostsParser) host(name string, t hostTable, key ...string) (host, error) {
	u, err := p.url(name, t.OverridePath)
	if err != nil {
		return host{}, p.at(err, key...)
	}
	return p.table(host{url: u, own: isOwn(u, p.domain)}, t, key...)
}

func (p *hostsParser) url(s string, overridePath bool) (*url.URL, error) {
	full := s
	if !strings.Contains(s, "://") {
		full = "https://" + s
	}
	u, err := url.Parse(full)
	if err != nil {
		return nil, fmt.Errorf("host %q is not a URL", s)
	}
	if (u.Scheme != "https" && u.Scheme != "http") || u.Host == "" {
		return nil, fmt.Errorf("host %q is not an https:// or http:// URL", s)
	}
	if u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, fmt.Errorf("host %q has more than scheme, host and path", u.Redacted())
	}
	u.Path = strings.TrimSuffix(path.Clean("/"+u.Path), "/")
	if !overridePath && !strings.HasSuffix(u.Path, "/v2") {
		u.Path += "/v2"
	}
	return u, nil
}

// table fills h; prefix is where t stands in the file.
func (p *hostsParser) table(h host, t hostTable, prefix ...string) (host, error) {
	key := func(name string) []string { return append(append([]string{}, prefix...), name) }
	h.skipVerify = t.SkipVerify
	if t.Capabilities == nil {
		h.pull, h.resolve = true, true
	} else {
		h.pull, h.resolve = false, false
	}
	for _, c := range t.Capabilities {
		switch strings.ToLower(c) {
		case "pull":
			h.pull = true
		case "resolve":
			h.resolve = true
		case "push": // known to the format, of no use here
		default:
			return h, p.at(fmt.Errorf("capability %q is not one of pull, resolve, push", c), key("capabilities")...)
		}
	}
	var err error
	if h.ca, err = p.files(t.CA); err != nil {
		return h, p.at(fmt.Errorf("ca: %w", err), key("ca")...)
	}
	if h.clientCerts, err = p.pairs(t.Client); err != nil {
		return h, p.at(fmt.Errorf("client: %w", err), key("client")...)
	}
	if h.header, err = headers(t.Header); err != nil {
		return h, p.at(err, key("header")...)
	}
	if t.DialTimeout != "" {
		if h.dialTimeout, err = time.ParseDuration(t.DialTimeout); err != nil || h.dialTimeout <= 0 {
			return h, p.at(fmt.Errorf("dial_timeout %q is not a positive duration such as \"5s\"", t.DialTimeout), key("dial_timeout")...)
		}
	}
	if t.Proxy != "" {
		if h.proxy, err = proxyURL(t.Proxy); err != nil {
			return h, p.at(err, key("proxy")...)
		}
	}
	return h, nil
}

func proxyURL(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	if err != nil {
		return nil, errors.New("proxy is not a URL") // the value may hold a password
	}
	switch u.Scheme {
	case "http", "https", "socks5", "socks5h":
	default:
		return nil, fmt.Errorf("proxy %q is not an http, https, socks5 or socks5h URL", u.Redacted())
	}
	if u.Host == "" || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
		return nil, fmt.Errorf("proxy %q has more or less than scheme, host and port", u.Redacted())
	}
	return u, nil
}

// files reads "one" or ["one", "two"], relative to the hosts file.
func (p *hostsParser) files(v any) ([]string, error) {
	var out []string
	list, ok := v.([]any)
	if !ok && v != nil {
		list = []any{v}
	}
	for _, e := range list {
		s, ok := e.(string)
		if !ok || s == "" {
			return nil, fmt.Errorf("%v is not a path or a list of paths", v)
		}
		out = append(out, p.abs(s))
	}
	return out, nil
}

// pairs reads "both.pem", ["a.pem", "b.pem"] or [["a.cert", "a.key"], ...].
func (p *hostsParser) pairs(v any) ([][2]string, error) {
	var out [][2]string
	list, ok := v.([]any)
	if !ok && v != nil {
		list = []any{v}
	}
	for _, e := range list {
		if s, ok := e.(string); ok && s != "" {
			out = append(out, [2]string{p.abs(s)})
			continue
		}
		pair, _ := e.([]any)
		if len(pair) != 2 {
			return nil, fmt.Errorf("%v is not a path, a list of paths or a list of [certificate, key]", v)
		}
		cert, ok1 := pair[0].(string)
		key, ok2 := pair[1].(string)
		if !ok1 || !ok2 || cert == "" {
			return nil, fmt.Errorf("%v is not a pair of paths", pair)
		}
		if key != "" {
			key = p.abs(key)
		}
		out = append(out, [2]string{p.abs(cert), key})
	}
	return out, nil
}

func (p *hostsParser) abs(name string) string {
	if filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(p.dir, name)
}

// headers reads the header table. Values do not go into errors: they may be
// secrets.
func headers(m map[string]any) (http.Header, error) {
	h := http.Header{}
	for name, v := range m {
		list, ok := v.([]any)
		if !ok {
			list = []any{v}
		}
		if !httpguts.ValidHeaderFieldName(name) {
			return nil, fmt.Errorf("header %q is not a valid name", name)
		}
		for _, e := range list {
			s, ok := e.(string)
			if !ok || !httpguts.ValidHeaderFieldValue(s) {
				return nil, fmt.Errorf("header %q is not a text or a list of texts", name)
			}
			h.Add(name, s)
		}
	}
	return h, nil
}
