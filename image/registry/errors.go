package registry

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"unicode"
)

// What a caller may act on. When several hosts were asked, the last one, the
// registry itself, decides.
var (
	ErrNotFound     = errors.New("not found")
	ErrUnauthorized = errors.New("access denied")
	ErrUnavailable  = errors.New("registry unavailable") // worth another try later
	ErrUnknownCA    = errors.New("certificate signed by unknown authority")
	ErrCorrupt      = errors.New("content is not what was promised")
)

// statusError is an answer that is not the content asked for.
type statusError struct {
	status     int
	message    string // what the registry said, made harmless
	retryAfter string
}

func (e *statusError) Error() string {
	text := fmt.Sprintf("%d %s", e.status, http.StatusText(e.status))
	if e.message != "" {
		text += ": " + e.message
	}
	return text
}

func (e *statusError) Is(target error) bool {
	switch target {
	case ErrNotFound:
		return e.status == http.StatusNotFound
	case ErrUnauthorized:
		return e.status == http.StatusUnauthorized || e.status == http.StatusForbidden
	case ErrUnavailable:
		return e.retryable()
	}
	return false
}

func (e *statusError) retryable() bool {
	return e.status == http.StatusTooManyRequests || e.status == http.StatusRequestTimeout || e.status >= 500
}

// readStatus turns an answer into an error and closes it.
func readStatus(resp *http.Response) *statusError {
	defer resp.Body.Close()
	e := &statusError{status: resp.StatusCode, retryAfter: resp.Header.Get("Retry-After")}
	data, err := io.ReadAll(io.LimitReader(resp.Body, 16<<10))
	if err != nil {
		return e // the status is what counts
	}
	var body struct {
		Errors []struct{ Code, Message string }
	}
	if json.Unmarshal(data, &body) == nil {
		var parts []string
		for _, one := range body.Errors {
			parts = append(parts, strings.Trim(strings.ToLower(strings.ReplaceAll(one.Code, "_", " "))+": "+one.Message, ": "))
		}
		e.message = harmless(strings.Join(parts, "; "))
	}
	return e
}

// harmless makes a stranger's text fit for one line of a log.
func harmless(s string) string {
	s = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, s)
	if len(s) > 300 {
		s = strings.ToValidUTF8(s[:300], "") + "..."
	}
	return s
}

// networkError is a host that could not be talked to.
type networkError struct{ err error }

func (e *networkError) Error() string { return e.err.Error() }
func (e *networkError) Unwrap() error { return e.err }
func (e *networkError) Is(target error) bool {
	if target == ErrUnknownCA {
		_, unknown := errors.AsType[x509.UnknownAuthorityError](e.err)
		return unknown
	}
	return target == ErrUnavailable
}

// worthRetry tells whether the same question may get another answer soon.
// A host that does not exist or does not listen is not worth the wait: whoever
// wants the image asks again anyway.
func worthRetry(err error) bool {
	if s, ok := errors.AsType[*statusError](err); ok {
		return s.retryable()
	}
	n, ok := errors.AsType[*networkError](err)
	if !ok || errors.Is(n, context.Canceled) || errors.Is(n, errRedirect) {
		return false
	}
	if op, ok := errors.AsType[*net.OpError](n); ok && op.Op == "dial" {
		return false
	}
	return !isCertificate(n)
}

func isCertificate(err error) bool {
	_, unknown := errors.AsType[x509.UnknownAuthorityError](err)
	_, name := errors.AsType[x509.HostnameError](err)
	_, invalid := errors.AsType[x509.CertificateInvalidError](err)
	return unknown || name || invalid || errors.Is(err, http.ErrSchemeMismatch)
}

// hostsError tells of every host that was asked and what came of it.
type hostsError struct {
	what  string
	tries []try
}

type try struct {
	host string
	err  error
}

func (e *hostsError) Error() string {
	if len(e.tries) == 0 {
		return e.what + ": no configured host may be asked for it (capabilities)"
	}
	var parts []string
	for _, t := range e.tries {
		text := t.err.Error()
		if !strings.HasPrefix(text, t.host) {
			text = t.host + ": " + text
		}
		parts = append(parts, text)
	}
	return e.what + ": " + strings.Join(parts, "; ")
}

func (e *hostsError) Is(target error) bool {
	return len(e.tries) > 0 && errors.Is(e.tries[len(e.tries)-1].err, target)
}
