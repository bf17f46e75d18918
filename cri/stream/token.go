package stream

import (
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"time"
)

const (
	tokenLifetime = time.Minute
	maxTokens     = 1000
)

// ErrTooMany is a request beyond the number of those that wait for a client.
var ErrTooMany = errors.New("too many requests wait for their client")

// tokens are the requests that wait for a client.
type tokens struct {
	mu      sync.Mutex
	waiting map[string]waitingRequest
}

type waitingRequest struct {
	request any
	until   time.Time
}

func newTokens() *tokens { return &tokens{waiting: map[string]waitingRequest{}} }

// leave keeps a request and returns the token that fetches it.
func (t *tokens) leave(request any) (string, error) {
	now := time.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.waiting) >= maxTokens {
		for token, w := range t.waiting {
			if now.After(w.until) {
				delete(t.waiting, token)
			}
		}
	}
	if len(t.waiting) >= maxTokens {
		return "", fmt.Errorf("%w: %d", ErrTooMany, maxTokens)
	}
	token := rand.Text()
	t.waiting[token] = waitingRequest{request, now.Add(tokenLifetime)}
	return token, nil
}

// take returns the request of a token, once.
func (t *tokens) take(token string) (any, error) {
	t.mu.Lock()
	w, ok := t.waiting[token]
	delete(t.waiting, token)
	t.mu.Unlock()
	switch {
	case !ok:
		return nil, fmt.Errorf("token %q: used already, expired or never given out", token[:min(len(token), 64)])
	case time.Now().After(w.until):
		return nil, fmt.Errorf("token %q: older than %v", token, tokenLifetime)
	}
	return w.request, nil
}
