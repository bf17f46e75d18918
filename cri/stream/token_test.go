package stream

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestTokensServeOnceAndExpire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tokens := newTokens()
		token, err := tokens.leave("a")
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(tokenLifetime - time.Second)
		if got, err := tokens.take(token); got != "a" || err != nil {
			t.Errorf("take: %v, %v; want a", got, err)
		}
		if _, err := tokens.take(token); err == nil || !strings.Contains(err.Error(), token) {
			t.Errorf("second take: %v, want an error that names the token", err)
		}
		token, _ = tokens.leave("b")
		time.Sleep(tokenLifetime + time.Second)
		if _, err := tokens.take(token); err == nil || !strings.Contains(err.Error(), token) {
			t.Errorf("late take: %v, want an error that names the token", err)
		}
		if len(tokens.waiting) != 0 {
			t.Errorf("%d requests are kept", len(tokens.waiting))
		}
	})
}

func TestTokensAreBoundedInNumber(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tokens := newTokens()
		for range maxTokens {
			if _, err := tokens.leave("a"); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := tokens.leave("b"); !errors.Is(err, ErrTooMany) {
			t.Fatalf("one more: %v, want ErrTooMany", err)
		}
		time.Sleep(tokenLifetime + time.Second)
		token, err := tokens.leave("b")
		if err != nil {
			t.Fatalf("after all have expired: %v", err)
		}
		if got, err := tokens.take(token); got != "b" || err != nil {
			t.Errorf("take: %v, %v; want b", got, err)
		}
	})
}
