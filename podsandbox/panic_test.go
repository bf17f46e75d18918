package podsandbox

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"cri-mini/internal/mishap"
)

func TestPanicEndsTheCallThatMetItAndFreesItsName(t *testing.T) {
	l := newLife(t)
	defer l.end()
	l.world.change(func() {
		l.world.around = func(call string) {
			if call == "before CreateSandbox" {
				panic("no such luck")
			}
		}
	})
	_, err := l.pods.Run(t.Context(), podConfig("a"), "")
	if !errors.Is(err, mishap.Err) || !strings.Contains(err.Error(), "no such luck") {
		t.Fatalf("run: %v; want an internal error that says what panicked", err)
	}
	l.world.change(func() { l.world.around = nil })
	id, err := l.pods.Run(t.Context(), podConfig("a"), "")
	if err != nil {
		t.Fatalf("run again: %v", err)
	}
	// What a stop does in goroutines of its own is caught as well.
	c, err := l.pods.Create(t.Context(), id, containerConfig("web"))
	if err != nil {
		t.Fatal(err)
	}
	if err := l.container(c).Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	l.world.change(func() {
		l.world.around = func(call string) {
			if call == "before Kill" {
				panic("out of signals")
			}
		}
	})
	if err := l.pods.Stop(t.Context(), id); !errors.Is(err, mishap.Err) {
		t.Fatalf("stop: %v; want an internal error", err)
	}
	l.world.change(func() { l.world.around = nil })
	if err := l.pods.Remove(t.Context(), id); err != nil {
		t.Fatalf("remove: %v", err)
	}
	if left := l.left(); left != "nothing left" {
		t.Errorf("left: %s", left)
	}
}

func (l *life) container(id string) *Container {
	l.t.Helper()
	c, err := l.pods.Container(id)
	if err != nil {
		l.t.Fatal(err)
	}
	return c
}

func TestPanicInTheBackgroundIsTriedAgain(t *testing.T) {
	l := newLife(t)
	defer l.end()
	var tries atomic.Int32
	done := make(chan struct{})
	l.pods.later("something", func(context.Context) error {
		if tries.Add(1) == 1 {
			panic("once")
		}
		close(done)
		return nil
	})
	watched := make(chan struct{})
	var looks atomic.Int32
	l.pods.watch("something", func() {
		if looks.Add(1) == 1 {
			panic("once")
		}
		close(watched)
	})
	for what, end := range map[string]chan struct{}{"later": done, "watch": watched} {
		select {
		case <-end:
		case <-time.After(time.Minute):
			t.Errorf("%s did not go on after a panic", what)
		}
	}
}
