package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
)

// maxTokenAnswer bounds what a token server may answer.
const maxTokenAnswer = 128 << 10

// authorizer answers the challenges of one endpoint for one repository.
//
//	GET manifest           ──▶  registry
//	                       ◀──  401 Bearer realm="R", service="S"
//	GET R?service=S&scope=…──▶  token server (or POST, with an identity token)
//	                       ◀──  token
//	GET manifest, token    ──▶  registry
type authorizer struct {
	creds     credentials
	client    *http.Client
	scope     string
	redact    *redactor
	userAgent string

	mu     sync.Mutex // guards header; held while a token is fetched, so that one is enough
	header string
}

// current is the Authorization that was good last time, or empty.
func (a *authorizer) current() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.header
}

// answer finds a new Authorization after resp refused the one that was used.
func (a *authorizer) answer(ctx context.Context, resp *http.Response, used string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.header != used {
		return nil // another request got a new one meanwhile
	}
	var names []string
	for _, c := range parseChallenges(resp.Header.Values("WWW-Authenticate")) {
		names = append(names, c.scheme)
		switch c.scheme {
		case "bearer":
			token, err := a.token(ctx, c.params, resp.Request.URL)
			if err != nil {
				return err
			}
			a.header = "Bearer " + token
			return nil
		case "basic":
			if a.creds.username == "" && a.creds.password == "" {
				return fmt.Errorf("%w: the registry wants a username and password and none are for it", ErrUnauthorized)
			}
			req := &http.Request{Header: http.Header{}}
			req.SetBasicAuth(a.creds.username, a.creds.password)
			a.header = req.Header.Get("Authorization")
			return nil
		}
	}
	if len(names) == 0 {
		return fmt.Errorf("%w: the registry does not say how to log in", ErrUnauthorized)
	}
	return fmt.Errorf("%w: the registry asks for %s, known are bearer and basic", ErrUnauthorized, harmless(strings.Join(names, ", ")))
}

func (a *authorizer) token(ctx context.Context, params map[string]string, asked *url.URL) (string, error) {
	if a.creds.registryToken != "" {
		return a.creds.registryToken, nil
	}
	realm, err := a.realm(params["realm"], asked)
	if err != nil {
		return "", err
	}
	scope := a.scope
	if s := params["scope"]; s != "" {
		scope = s
	}
	req, err := a.tokenRequest(ctx, realm, params["service"], scope)
	if err != nil {
		return "", err
	}
	req.Header.Set("User-Agent", a.userAgent)
	resp, err := a.client.Do(req)
	if err != nil {
		return "", &networkError{fmt.Errorf("token server: %w", err)}
	}
	if resp.StatusCode != http.StatusOK {
		status := readStatus(resp)
		if status.status == http.StatusNotFound || status.status == http.StatusBadRequest {
			return "", fmt.Errorf("%w: token server %s: %s", ErrUnauthorized, realm.Host, status)
		}
		return "", fmt.Errorf("token server %s: %w", realm.Host, status)
	}
	defer resp.Body.Close()
	var t struct {
		Token       string `json:"token"`
		AccessToken string `json:"access_token"`
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxTokenAnswer)).Decode(&t); err != nil {
		return "", fmt.Errorf("token server %s: answer: %w", realm.Host, err)
	}
	if t.Token == "" {
		t.Token = t.AccessToken
	}
	if t.Token == "" || strings.ContainsAny(t.Token, "\r\n") {
		return "", fmt.Errorf("token server %s: no usable token in its answer", realm.Host)
	}
	a.redact.add(t.Token)
	return t.Token, nil
}

// realm checks where the registry wants the password to be sent: over TLS,
// unless the registry itself is reached without, and not to addresses that
// only this machine can reach.
func (a *authorizer) realm(s string, asked *url.URL) (*url.URL, error) {
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || u.User != nil {
		return nil, fmt.Errorf("token realm %q is not a URL with a host", harmless(s))
	}
	if u.Scheme != "https" && !(u.Scheme == "http" && asked.Scheme == "http") {
		return nil, fmt.Errorf("token realm %q is not https", harmless(u.Scheme+"://"+u.Host))
	}
	if strings.EqualFold(u.Hostname(), asked.Hostname()) || isLoopback(asked.Host) {
		return u, nil
	}
	ip := net.ParseIP(u.Hostname())
	if isLoopback(u.Host) || (ip != nil && (ip.IsLinkLocalUnicast() || ip.IsMulticast() || ip.IsUnspecified())) {
		return nil, fmt.Errorf("token realm %q is an address of this machine or link, which %s is not", harmless(u.Host), asked.Host)
	}
	return u, nil
}

// tokenRequest asks by GET with a password or with nothing, and by POST with
// an identity token.
func (a *authorizer) tokenRequest(ctx context.Context, realm *url.URL, service, scope string) (*http.Request, error) {
	if a.creds.identityToken != "" {
		form := url.Values{
			"grant_type":    {"refresh_token"},
			"refresh_token": {a.creds.identityToken},
			"service":       {service},
			"scope":         {scope},
			"client_id":     {"cri-mini"},
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, realm.String(), strings.NewReader(form.Encode()))
		if err != nil {
			return nil, errors.New("token realm is not a URL")
		}
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		return req, nil
	}
	u := *realm
	q := u.Query()
	q.Set("scope", scope)
	if service != "" {
		q.Set("service", service)
	}
	u.RawQuery = q.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, errors.New("token realm is not a URL")
	}
	if a.creds.username != "" || a.creds.password != "" {
		req.SetBasicAuth(a.creds.username, a.creds.password)
	}
	return req, nil
}
