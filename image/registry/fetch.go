package registry

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"time"
)

const (
	maxRounds     = 4 // how often all hosts are asked again
	maxRetryAfter = 30 * time.Second
)

// finalError is not a host's fault, so no other host is asked.
type finalError struct{ err error }

func (e *finalError) Error() string { return e.err.Error() }
func (e *finalError) Unwrap() error { return e.err }

// eachHost asks one host after the other until one has the answer. When none
// has and some may have it soon, all are asked again after a pause.
func (r *Repository) eachHost(ctx context.Context, what string, can func(*endpoint) bool, ask func(*endpoint) error) error {
	for round := 1; ; round++ {
		failed := &hostsError{what: what}
		var again bool
		var pause time.Duration
		for _, ep := range r.usable(can) {
			err := ask(ep)
			if err == nil {
				return nil
			}
			if ctx.Err() != nil {
				return fmt.Errorf("%s: %w", what, ctx.Err())
			}
			if final, ok := errors.AsType[*finalError](err); ok {
				return final.err
			}
			again = again || worthRetry(err)
			pause = max(pause, retryAfter(err))
			err = r.redact.error(err)
			failed.tries = append(failed.tries, try{ep.url.Host, err})
			r.o.Logger.Debug("host did not deliver", "what", what, "host", ep.url.Host, "round", round, "err", err)
		}
		decided := failed.Is(ErrNotFound) || failed.Is(ErrUnauthorized)
		if !again || decided || round == maxRounds {
			return failed
		}
		if err := sleep(ctx, max(pause, r.backoff(round))); err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
	}
}

// backoff grows with each round and is spread, so that many nodes that failed
// together do not come back together.
func (r *Repository) backoff(round int) time.Duration {
	d := r.o.RetryDelay << (2 * (round - 1))
	return d/2 + rand.N(d)
}

func retryAfter(err error) time.Duration {
	s, ok := errors.AsType[*statusError](err)
	if !ok {
		return 0
	}
	seconds, err := strconv.Atoi(s.retryAfter)
	if err != nil || seconds < 0 {
		return 0
	}
	return min(time.Duration(seconds)*time.Second, maxRetryAfter)
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// request asks one host, and logs in when it must. The answer may have any
// status but 401.
func (r *Repository) request(ctx context.Context, ep *endpoint, method, what string, header map[string]string) (*http.Response, error) {
	for login := false; ; login = true {
		req, err := ep.newRequest(ctx, method, what)
		if err != nil {
			return nil, err
		}
		for name, value := range header {
			req.Header.Set(name, value)
		}
		used := ep.auth.current()
		if used != "" {
			req.Header.Set("Authorization", used)
		}
		resp, err := ep.client.Do(req)
		if err != nil {
			ep.unreachable.Store(ctx.Err() == nil)
			return nil, &networkError{err}
		}
		ep.unreachable.Store(false)
		if resp.StatusCode != http.StatusUnauthorized {
			return resp, nil
		}
		status := readStatus(resp)
		// A host that we were redirected to has no claim to our password.
		if login || !strings.EqualFold(resp.Request.URL.Host, ep.url.Host) {
			return nil, status
		}
		if err := ep.auth.answer(ctx, resp, used); err != nil {
			return nil, err
		}
	}
}
