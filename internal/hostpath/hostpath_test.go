package hostpath

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"cri-mini/internal/leakcheck"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

// hang leaves a question behind; answer lets it end.
func hang(t *testing.T, path string) (dropped chan int, answer func()) {
	t.Helper()
	dead, dropped := make(chan struct{}), make(chan int, 1)
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	_, err := Ask(ctx, "mount /m of", path, func() (int, error) { <-dead; return 7, nil }, func(n int) { dropped <- n })
	if silent := (*SilentError)(nil); !errors.As(err, &silent) || silent.Path != path || !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("ask %s: %v; want the deadline and the path", path, err)
	}
	return dropped, func() { close(dead) }
}

func one() (int, error) { return 1, nil }

func TestSilentPathIsNotAskedAgainUntilItAnswers(t *testing.T) {
	dropped, answer := hang(t, "/dead/a")
	for _, path := range []string{"/dead/a", "/dead/a/below"} {
		asked := false
		_, err := Ask(t.Context(), "", path, func() (int, error) { asked = true; return 1, nil }, nil)
		if err == nil || asked || !strings.Contains(err.Error(), "host path /dead/a has not answered for") {
			t.Errorf("ask %s again: %v, asked %v", path, err, asked)
		}
	}
	for _, path := range []string{"/dead/ab", "/dead", "/dead/b"} {
		if n, err := Ask(t.Context(), "", path, one, nil); n != 1 || err != nil {
			t.Errorf("ask %s meanwhile: %d, %v", path, n, err)
		}
	}
	if list := Silent(); len(list) != 1 || !strings.HasPrefix(list[0], "/dead/a for ") {
		t.Errorf("silent: %q", list)
	}
	answer()
	if n := <-dropped; n != 7 {
		t.Errorf("dropped %d, want what was answered too late", n)
	}
	if n, err := Ask(t.Context(), "", "/dead/a", one, nil); n != 1 || err != nil {
		t.Errorf("ask after the answer: %d, %v", n, err)
	}
}

// The one who left may have been in a hurry; the path is none the worse for it.
func TestPathThatSomebodyLeftTooEarlyIsAskedAgain(t *testing.T) {
	_, answer := hang(t, "/slow")
	time.AfterFunc(20*time.Millisecond, answer)
	if n, err := Ask(t.Context(), "", "/slow", one, nil); n != 1 || err != nil {
		t.Errorf("ask at once: %d, %v", n, err)
	}
	_, answer = hang(t, "/slow")
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if _, err := Ask(ctx, "", "/slow", one, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("whoever waits with it leaves at its own deadline: %v", err)
	}
	answer()
}

func TestQuestionsLeftBehindAreBounded(t *testing.T) {
	var answers []func()
	for i := range most {
		_, answer := hang(t, fmt.Sprint("/dead/", i))
		answers = append(answers, answer)
	}
	if _, err := Ask(t.Context(), "", "/alive", one, nil); err == nil {
		t.Errorf("question %d was asked", most+1)
	}
	for _, answer := range answers {
		answer()
	}
	for end := time.Now().Add(time.Minute); len(Silent()) > 0 && time.Now().Before(end); time.Sleep(time.Millisecond) {
	}
	if n, err := Ask(t.Context(), "", "/alive", one, nil); n != 1 || err != nil {
		t.Errorf("ask after the answers: %d, %v", n, err)
	}
}

func TestPanicReachesTheOneWhoAsks(t *testing.T) {
	defer func() {
		if p := recover(); p == nil || !strings.Contains(fmt.Sprint(p), "no luck") {
			t.Errorf("recovered %v", p)
		}
	}()
	Ask(t.Context(), "", "/a", func() (int, error) { panic("no luck") }, nil)
}

func TestWhoWaitsIsToldForWhat(t *testing.T) {
	var told []string
	ctx := Heard(t.Context(), func(what string) func() {
		told = append(told, what)
		return func() { told = append(told, "over") }
	})
	if _, err := Ask(ctx, "mount /m of", "/a", one, nil); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(told, ", "); got != "mount /m of /a, over" {
		t.Errorf("told: %s", got)
	}
}
