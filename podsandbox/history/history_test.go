package history

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"cri-mini/internal/leakcheck"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

var web = Subject{Namespace: "default", Pod: "web", UID: "1", PodID: "p1"}

func app(id string) Subject {
	s := web
	s.Container, s.ContainerID = "app", id
	return s
}

func open(t *testing.T, path string) *History {
	t.Helper()
	return Open(path, slog.New(slog.DiscardHandler))
}

// all gives one line for each entry.
func all(h *History) (lines []string) {
	for _, e := range h.Of(func(Subject) bool { return true }) {
		lines = append(lines, fmt.Sprintf("%s %s%s ended=%t cut=%t times=%d %s", e.What, e.Container, by(e), !e.Ended.IsZero(), e.CutOff, e.Times, e.Error))
	}
	return lines
}

func same(t *testing.T, got []string, want ...string) {
	t.Helper()
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("entries\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestHistoryOutlivesADaemonThatIsKilledAtAnyByteOfTheFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "history")
	h := open(t, path)
	ctx := Asked(t.Context(), "a test")
	done := h.Begin(ctx, web, RunPod, nil)
	done.Stage("making namespaces")
	done.End(nil)
	h.Begin(ctx, app("c1"), StopContainer, nil).Stage("waiting up to 30s")
	if err := h.write(); err != nil { // what its goroutine does a moment later
		t.Fatal(err)
	}
	data, err := os.ReadFile(path) // the daemon is killed here
	if err != nil {
		t.Fatal(err)
	}
	h.Close()
	half := path + ".new-1" // or while it writes the file anew
	if err := os.WriteFile(half, data[:len(data)/2], 0o600); err != nil {
		t.Fatal(err)
	}

	next := open(t, path)
	if _, err := os.Stat(half); !os.IsNotExist(err) {
		t.Errorf("half a file is left: %v", err)
	}
	same(t, all(next), "run pod  (a test) ended=true cut=false times=0 ", "stop container app (a test) ended=false cut=true times=0 ")
	after := next.Begin(ctx, web, StopPod, nil)
	after.End(nil)
	next.Close()
	third := open(t, path)
	defer third.Close()
	if got := all(third); len(got) != 3 || !strings.HasPrefix(got[2], "stop pod") {
		t.Errorf("after two restarts: %q", got)
	}

	for n := range data {
		cut := filepath.Join(dir, "cut")
		if err := os.WriteFile(cut, data[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		entries, err := Read(cut)
		if err != nil || len(entries) > 2 {
			t.Fatalf("killed after %d bytes: %d entries, %v", n, len(entries), err)
		}
		for _, e := range entries {
			if e.What != RunPod && e.What != StopContainer {
				t.Fatalf("killed after %d bytes: entry %+v", n, e)
			}
		}
	}
}

func TestFileOfAnotherProgramIsReplacedAndNotTrusted(t *testing.T) {
	path := filepath.Join(t.TempDir(), "history")
	for _, content := range []string{"{\"Version\":99}\n{\"Number\":1,\"What\":\"x\"}\n", "\x00\xff", ""} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		h := open(t, path)
		if got := all(h); len(got) != 0 {
			t.Errorf("file %q: entries %q, want none", content, got)
		}
		h.Close()
	}
}

func TestHistoryIsBounded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "history")
	h := open(t, path)
	defer h.Close()
	for i := range 3 * most / mostOfPod {
		about := Subject{Pod: fmt.Sprint("pod", i), PodID: fmt.Sprint(i)}
		for j := range mostOfPod + 10 {
			h.Begin(t.Context(), about, fmt.Sprint("deed ", j), nil).End(nil)
		}
	}
	h.Begin(t.Context(), web, "deed", nil).End(errors.New(strings.Repeat("x", 2*longest)))
	entries := h.Of(func(Subject) bool { return true })
	h.mu.Lock()
	counted := h.entries
	h.mu.Unlock()
	if len(entries) > most || len(entries) < most/2 || len(entries) != counted {
		t.Errorf("%d entries remembered, counted as %d; want at most %d", len(entries), counted, most)
	}
	for _, e := range entries {
		if len(e.Error) > longest+len("…") {
			t.Fatalf("an error of %d bytes is remembered", len(e.Error))
		}
	}
	if last := entries[len(entries)-1]; last.What != "deed" || len(last.Error) < longest {
		t.Errorf("the last entry is %q", last.What)
	}
	for range 3 { // however often it is written
		if err := h.write(); err != nil {
			t.Fatal(err)
		}
	}
	if info, err := os.Stat(path); err != nil || info.Size() > 2*largest {
		t.Errorf("file: %v, %v", info.Size(), err)
	}
}

func TestSameFailureAgainIsOneEntryWithACount(t *testing.T) {
	path := filepath.Join(t.TempDir(), "history")
	h := open(t, path)
	for range 3 {
		h.Begin(t.Context(), app("c1"), CreateContainer, nil).End(fmt.Errorf("mount: %w", syscall.ENOENT))
		if err := h.write(); err != nil {
			t.Fatal(err)
		}
	}
	want := "create container app ended=true cut=false times=3 mount: no such file or directory"
	same(t, all(h), want)
	h.Close()
	again := open(t, path)
	defer again.Close()
	same(t, all(again), want)
	if e := again.Of(func(Subject) bool { return true })[0]; e.Errno != "ENOENT" || e.First.IsZero() || e.First.After(e.Began) {
		t.Errorf("errno %q, first at %v, last at %v", e.Errno, e.First, e.Began)
	}
}

func TestForgottenDeedLeavesNoTrace(t *testing.T) {
	h := New()
	d := h.Begin(t.Context(), web, StopPod, nil)
	d.Forget()
	d.End(errors.New("no"))
	same(t, all(h))
}

func TestFullDiskKeepsTheHistoryInMemoryAndItIsWrittenWhenThereIsRoom(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(dir, unix.MNT_DETACH)
	path := filepath.Join(dir, "history")
	h := open(t, path)
	filler := filepath.Join(dir, "filler")
	if err := os.WriteFile(filler, make([]byte, 1<<20), 0o600); !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("filling: %v, want no space", err)
	}
	for i := range 40 {
		h.Begin(t.Context(), web, fmt.Sprint("deed ", i), nil).End(errors.New(strings.Repeat("x", 500)))
	}
	err := h.write()
	if !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("write on a full disk: %v", err)
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	h.Begin(t.Context(), web, "last", nil).End(nil)
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	entries, err := Read(path)
	if err != nil || len(entries) != 41 {
		t.Errorf("%d entries in the file, %v; want 41", len(entries), err)
	}
}

func TestAnswersSayWhy(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	sec := func(n int) time.Time { return at.Add(time.Duration(n) * time.Second) }
	start := Entry{Number: 1, Subject: app("c1"), What: StartContainer, By: "StartContainer of kubelet[8]", Began: sec(0), Ended: sec(0)}
	stop := Entry{Number: 2, Subject: app("c1"), What: StopContainer, By: "StopContainer of kubelet[8]", Began: sec(5), Ended: sec(36),
		Stages: []Stage{{Name: "waiting up to 30s for its end after the stop signal"}, {Name: Killed}}}
	exited := func(code int, reason, message string, when int) *Present {
		return &Present{Subject: app("c1"), State: "exited", Finished: sec(when), Exit: &Exit{code, reason, message}}
	}
	for _, c := range []struct {
		name    string
		about   Subject
		now     *Present
		entries []Entry
		state   string
		because string
	}{
		{"ended by itself", app("c1"), exited(7, "Error", "", 9), []Entry{start}, "exited",
			"its program ended with exit code 7; no call asked for that: it ended by itself"},
		{"killed by nobody we know", app("c1"), exited(137, "Error", "", 9), []Entry{start}, "exited",
			"SIGKILL ended it (exit code 137); no call asked for that: the signal came from the program itself, from another process, or from the kernel"},
		{"out of memory", app("c1"), exited(137, "OOMKilled", "", 9), []Entry{start}, "exited",
			"it reached its limit of memory, and the kernel killed it (OOMKilled, exit code 137)"},
		{"stopped with force", app("c1"), exited(137, "Error", "", 36), []Entry{start, stop}, "exited",
			"SIGKILL ended it (exit code 137); it was asked to end (StopContainer of kubelet[8]), 31s before; it still ran after waiting up to 30s for its end after the stop signal, and was killed"},
		{"ended before the stop", app("c1"), exited(0, "Completed", "", 3), []Entry{start, stop}, "exited",
			"its program ended with exit code 0; no call asked for that: it ended by itself"},
		{"not remembered", app("c1"), exited(0, "Completed", "", 3), nil, "exited", "its program ended with exit code 0"},
		{"could not be started", app("c1"), exited(127, "ContainerCannotRun", "execute /x: executable file not found", 0), []Entry{start}, "exited",
			"it could not be started: execute /x: executable file not found"},
		{"never started", app("c1"), &Present{Subject: app("c1"), State: "created"}, nil, "created", "it was created, and nobody has asked for its start"},
		{"create failed", app("c2"), nil, []Entry{{Subject: app("c2"), What: CreateContainer, By: "kubelet", Began: at, Ended: sec(1), Error: "no room", Errno: "ENOSPC", Times: 4}},
			"never made", "its creation did not succeed, 4 times in a row (kubelet): no room [ENOSPC]"},
		{"cut off", web, nil, []Entry{{Subject: web, What: RunPod, Began: at, CutOff: true, Stages: []Stage{{Name: "setting up the network"}}}},
			"never made", "its creation did not succeed, and was cut off by the end of the daemon while setting up the network"},
		{"at work", web, &Present{Subject: web, State: "not ready"}, []Entry{{Subject: web, What: StopPod, By: "kubelet", Began: at, Doing: "killing containers for 7s"}},
			"not ready", "now: stop pod (kubelet): killing containers for 7s"},
		{"init ended", web, &Present{Subject: web, State: "not ready"}, []Entry{
			{Subject: web, What: "its init ended", Began: at, Ended: at},
			{Subject: web, What: StopPod, By: "the daemon itself", Began: at, Ended: sec(1)},
		}, "not ready", "its init ended; it was stopped (the daemon itself)"},
		{"gone", app("c1"), nil, []Entry{start, {Subject: app("c1"), What: Ended, Began: sec(2), Ended: sec(2), Exit: &Exit{Code: 3, Reason: "Error"}},
			{Subject: app("c1"), What: RemoveContainer, By: "kubelet", Began: sec(4), Ended: sec(5)}},
			"gone", "it was removed (kubelet); its program ended with exit code 3; no call asked for that: it ended by itself"},
	} {
		got := Explain(c.about, c.now, c.entries)
		if because := strings.Join(got.Because, "; "); got.State != c.state || because != c.because {
			t.Errorf("%s: %s: %s\nwant %s: %s", c.name, got.State, because, c.state, c.because)
		}
	}
}

func TestWhoAskedIsInTheContext(t *testing.T) {
	if by := By(context.Background()); by != "" {
		t.Errorf("nobody asked, but %q", by)
	}
	if by := By(context.WithoutCancel(Asked(context.Background(), "kubelet"))); by != "kubelet" {
		t.Errorf("asked by %q", by)
	}
}

// BenchmarkDeed is what being remembered costs a call.
func BenchmarkDeed(b *testing.B) {
	h := Open(filepath.Join(b.TempDir(), "history"), slog.New(slog.DiscardHandler))
	defer h.Close()
	for i := 0; b.Loop(); i++ {
		d := h.Begin(b.Context(), Subject{Pod: fmt.Sprint(i % 100)}, RunPod, nil)
		for range 3 {
			d.Stage("making namespaces")
		}
		d.End(nil)
	}
}
