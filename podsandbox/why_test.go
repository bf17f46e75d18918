package podsandbox

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"cri-mini/podsandbox/history"
	"cri-mini/runtime/spec"
)

// because is what is known of a word.
func (l *life) because(word string) string {
	l.t.Helper()
	answer, err := l.pods.Why(word)
	if err != nil {
		l.t.Fatal(err)
	}
	return answer.State + ": " + strings.Join(answer.Because, "; ")
}

func (l *life) expectWhy(word, want string) {
	l.t.Helper()
	if got := l.because(word); got != want {
		l.t.Errorf("why %s: %s\nwant %s", word, got, want)
	}
}

func TestWhyHasTheWordsOfTheError(t *testing.T) {
	l := newLife(t)
	defer l.end()
	ctx := history.Asked(t.Context(), "a test")
	l.world.change(func() { l.world.fail["Setup"] = errors.New("no free address") })
	_, refused := l.pods.Run(ctx, podConfig("a"), "")
	if refused == nil {
		t.Fatal("a pod without an address was made")
	}
	l.expectWhy("a", "never made: its creation did not succeed (a test): "+refused.Error())

	l.world.change(func() { delete(l.world.fail, "Setup") })
	pod, err := l.pods.Run(ctx, podConfig("a"), "")
	if err != nil {
		t.Fatal(err)
	}
	l.expectWhy("a", "ready: ")
	cfg := containerConfig("web")
	cfg.Image.Image = "nowhere"
	_, refused = l.pods.Create(ctx, pod, cfg)
	l.expectWhy("web", "never made: its creation did not succeed (a test): "+refused.Error())
}

func TestWhySaysWhatAStopWaitsForAndWhoAskedForTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLife(t)
		defer l.end()
		l.world.obey = false
		pod, err := l.pods.Run(t.Context(), podConfig("a"), "")
		if err != nil {
			t.Fatal(err)
		}
		id, err := l.pods.Create(t.Context(), pod, containerConfig("web"))
		if err != nil {
			t.Fatal(err)
		}
		l.expectWhy("web", "created: it was created, and nobody has asked for its start")
		c := l.container(id)
		if err := c.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		l.expectWhy(id[:12], "running: ")
		stopped := make(chan error)
		go func() { stopped <- c.Stop(history.Asked(t.Context(), "a test"), 30*time.Second) }()
		time.Sleep(7 * time.Second)
		l.expectWhy("web", "running: now: stop container (a test): waiting up to 30s for its end after the stop signal for 7s")
		if err := <-stopped; err != nil {
			t.Fatal(err)
		}
		l.expectWhy("web", "exited: SIGKILL ended it (exit code 137); it was asked to end (a test), 30s before; "+
			"it still ran after waiting up to 30s for its end after the stop signal, and was killed")

		// A stop of what has ended is nothing to remember.
		before := len(c.Why().Entries)
		if err := c.Stop(t.Context(), 0); err != nil || len(c.Why().Entries) != before {
			t.Errorf("second stop: %v, %d entries more", err, len(c.Why().Entries)-before)
		}
		if err := l.pods.Remove(history.Asked(t.Context(), "somebody"), pod); err != nil {
			t.Fatal(err)
		}
		answer, err := l.pods.Why("a")
		if err != nil || answer.State != "gone" || len(answer.Containers) != 1 || answer.Containers[0].State != "gone" {
			t.Errorf("why of a removed pod: %+v, %v", answer, err)
		}
		l.expectWhy("web", "gone: it was removed (somebody); SIGKILL ended it (exit code 137); it was asked to end (a test), 30s before; "+
			"it still ran after waiting up to 30s for its end after the stop signal, and was killed")
		if _, err := l.pods.Why("nothing"); !errors.Is(err, ErrNotFound) {
			t.Errorf("why of nothing: %v", err)
		}
	})
}

func TestWhyOutlivesTheDaemon(t *testing.T) {
	l := newLife(t)
	defer func() { l.end() }()
	file := filepath.Join(t.TempDir(), "history")
	l.restart(file)
	pod, err := l.pods.Run(t.Context(), podConfig("a"), "")
	if err != nil {
		t.Fatal(err)
	}
	id, err := l.pods.Create(t.Context(), pod, containerConfig("web"))
	if err != nil {
		t.Fatal(err)
	}
	if err := l.container(id).Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	l.restart(file)
	l.world.exits <- TaskExit{ID: id, Exit: spec.Exit{Code: 137, OOMKilled: true, At: time.Now()}}
	if err := l.container(id).Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	l.expectWhy("web", "exited: it reached its limit of memory, and the kernel killed it (OOMKilled, exit code 137)")
	entries := l.container(id).Why().Entries
	if len(entries) != 3 || entries[0].What != history.CreateContainer || entries[1].What != history.StartContainer || entries[2].What != history.Ended {
		t.Errorf("entries after a restart: %+v", entries)
	}
}

// restart begins another daemon whose history is a file.
func (l *life) restart(file string) {
	l.t.Helper()
	if err := l.pods.Close(context.Background()); err != nil {
		l.t.Fatal(err)
	}
	if l.pods.opt.History != nil {
		if err := l.pods.opt.History.Close(); err != nil {
			l.t.Fatal(err)
		}
	}
	o := l.options()
	o.History = history.Open(file, o.Logger)
	l.t.Cleanup(func() { o.History.Close() })
	var err error
	if l.pods, err = Open(context.Background(), o); err != nil {
		l.t.Fatal(err)
	}
}

func TestWhyAsksForMoreWhereAWordMeansSeveral(t *testing.T) {
	l := newLife(t)
	defer l.end()
	for _, name := range []string{"a", "b"} {
		pod, err := l.pods.Run(t.Context(), podConfig(name), "")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := l.pods.Create(t.Context(), pod, containerConfig("web")); err != nil {
			t.Fatal(err)
		}
	}
	_, err := l.pods.Why("web")
	if !errors.Is(err, ErrAmbiguous) || !strings.Contains(err.Error(), "/a") || !strings.Contains(err.Error(), "/b") {
		t.Errorf("why of two containers with one name: %v; want both named", err)
	}
}
