package podsandbox

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"cri-mini/runtime/spec"
)

// next reads what a subscription has without waiting, in words.
func (l *life) next(s *Subscription) []string {
	synctest.Wait()
	var all []string
	for {
		e, ok := s.take()
		if !ok {
			return all
		}
		word := strings.ToLower(strings.TrimSuffix(strings.TrimPrefix(e.Type.String(), "CONTAINER_"), "_EVENT"))
		pod := "ready"
		if !e.Sandbox.Ready {
			pod = "not ready"
		}
		text := fmt.Sprintf("%s %s, pod %s", l.named(e.ID), word, pod)
		for _, c := range e.Containers {
			text += ", " + c.Config.Metadata.Name + " " + stateText(c.State)
		}
		all = append(all, text)
	}
}

func (l *life) expect(s *Subscription, when string, want ...string) {
	l.t.Helper()
	if got := l.next(s); !slices.Equal(got, want) {
		l.t.Errorf("%s:\n%s\nwant:\n%s", when, strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// after does it a moment later, so that ages differ.
func (l *life) after(words ...string) {
	time.Sleep(time.Second)
	l.do(words)
}

func TestEachStepIsAnEvent(t *testing.T) {
	inBubble(t, func(t *testing.T, l *life) {
		s := l.pods.Subscribe()
		defer s.Close()
		l.expect(s, "at the beginning")
		l.after("run", "a")
		l.expect(s, "run", "a created, pod ready", "a started, pod ready")
		l.after("create", "a/x")
		l.expect(s, "create", "a/x created, pod ready, x created, not started")
		l.after("start", "a/x")
		l.expect(s, "start", "a/x started, pod ready, x running")
		l.after("create", "a/y")
		l.expect(s, "create", "a/y created, pod ready, x running, y created, not started")
		l.after("exit", "a/x", "3")
		l.expect(s, "exit", "a/x stopped, pod ready, x exited, y created, not started")
		l.after("remove", "a/x")
		l.expect(s, "remove", "a/x deleted, pod ready, y created, not started")
		l.after("stop", "a")
		l.expect(s, "stop of the pod", "a/y stopped, pod not ready, y exited", "a stopped, pod not ready, y exited")
		l.after("remove", "a")
		l.expect(s, "removal of the pod", "a/y deleted, pod not ready", "a deleted, pod not ready")
	})
}

func TestExitThatOvertakesTheStartIsToldAfterIt(t *testing.T) {
	inBubble(t, func(t *testing.T, l *life) {
		l.after("run", "a")
		l.after("create", "a/x")
		s := l.pods.Subscribe()
		defer s.Close()
		l.next(s)
		id := l.id("a/x")
		l.world.around = func(call string) {
			if call == "after Start" { // the monitor told the exit before it answered
				l.world.exit(id, spec.Exit{Code: 1})
				synctest.Wait()
			}
		}
		l.after("start", "a/x")
		l.expect(s, "start", "a/x started, pod ready, x exited", "a/x stopped, pod ready, x exited")

		l.world.around = nil
		l.after("create", "a/y")
		l.world.change(func() { l.world.fail["Start"] = errors.New("no such file") })
		l.after("start", "a/y")
		l.expect(s, "start that failed", "a/y created, pod ready, x exited, y created, not started", "a/y stopped, pod ready, x exited, y exited")
	})
}

func TestNewAndSlowSubscribersGetThePresentState(t *testing.T) {
	inBubble(t, func(t *testing.T, l *life) {
		slow := l.pods.Subscribe()
		defer slow.Close()
		l.next(slow)
		l.after("run", "a")
		l.after("create", "a/x")
		l.after("start", "a/x")
		l.after("create", "a/y")
		l.after("run", "b")
		l.after("stop", "b")
		present := []string{
			"a started, pod ready, x running, y created, not started",
			"a/x started, pod ready, x running, y created, not started",
			"a/y created, pod ready, x running, y created, not started",
			"b stopped, pod not ready",
		}
		fresh := l.pods.Subscribe()
		defer fresh.Close()
		l.expect(fresh, "new", present...)
		l.expect(fresh, "new, again")

		before := len(l.next(slow))
		for range maxEvents/4 + 1 { // each: created, started, stopped, deleted
			for _, words := range [][]string{{"create", "a/z"}, {"start", "a/z"}, {"exit", "a/z", "0"}, {"remove", "a/z"}} {
				l.after(words...)
				synctest.Wait()
			}
		}
		if before == 0 || len(slow.queue) > maxEvents {
			t.Errorf("%d events before and %d waiting, want some and at most %d", before, len(slow.queue), maxEvents)
		}
		l.expect(slow, "slow", present...)
		l.after("exit", "a/x", "0")
		l.expect(slow, "afterwards", "a/x stopped, pod ready, x exited, y created, not started")

		l.after("restart")
		after := l.pods.Subscribe()
		defer after.Close()
		l.expect(after, "of the next daemon",
			"a started, pod ready, x exited, y created, not started",
			"a/x stopped, pod ready, x exited, y created, not started",
			"a/y created, pod ready, x exited, y created, not started",
			"b stopped, pod not ready")
		l.after("start", "a/y")
		l.expect(after, "start", "a/y started, pod ready, x exited, y running")
	})
}

func TestTimesOfEventsOnlyGrow(t *testing.T) {
	inBubble(t, func(t *testing.T, l *life) { // whose clock stands still
		s := l.pods.Subscribe()
		defer s.Close()
		l.do([]string{"run", "a"})
		l.do([]string{"create", "a/x"})
		var last Event
		for range 2 {
			e, err := s.Next(t.Context())
			if err != nil || !e.At.After(last.At) {
				t.Errorf("%v at %v after %v, %v", e.Type, e.At, last.At, err)
			}
			last = e
		}
		l.do([]string{"remove", "a/x"})
		if e, err := s.Next(t.Context()); err != nil || e.Type != criapi.ContainerEventType_CONTAINER_DELETED_EVENT || !e.At.After(last.At) {
			t.Errorf("%v at %v after %v, %v", e.Type, e.At, last.At, err)
		}
	})
}

func TestSubscriptionEndsWithItsReaderOrThePods(t *testing.T) {
	inBubble(t, func(t *testing.T, l *life) {
		ctx, cancel := context.WithCancel(t.Context())
		s := l.pods.Subscribe()
		ended := make(chan error)
		go func() { _, err := s.Next(ctx); ended <- err }()
		synctest.Wait()
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("after a cancel: %v", err)
		}
		go func() { _, err := s.Next(t.Context()); ended <- err }()
		synctest.Wait()
		l.pods.cancel()
		if err := <-ended; !errors.Is(err, errGoingDown) {
			t.Errorf("after the end of the pods: %v", err)
		}
		s.Close()
		if n := len(l.pods.events.subscribers); n != 0 {
			t.Errorf("%d subscribers are left", n)
		}
	})
}
