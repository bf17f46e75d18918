package history

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// small mounts a tmpfs with little room.
func small(t *testing.T, size string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Errorf("unmount the small tmpfs: %v", err)
		}
	})
	return dir
}

// fill leaves no room.
func fill(t *testing.T, dir string) (empty func()) {
	t.Helper()
	filler := filepath.Join(dir, "filler")
	if err := os.WriteFile(filler, make([]byte, 2<<20), 0o600); !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("filling: %v, want no space", err)
	}
	return func() {
		if err := os.Remove(filler); err != nil {
			t.Fatal(err)
		}
	}
}

func TestHistoryOpensOnAFullDiskAndIsWrittenWhenThereIsRoom(t *testing.T) {
	for _, before := range []int{0, 40} {
		dir := small(t, "1m")
		path := filepath.Join(dir, "history")
		if before > 0 {
			h := open(t, path)
			for i := range before {
				h.Begin(t.Context(), web, fmt.Sprint("deed ", i), nil).End(errors.New(strings.Repeat("x", 500)))
			}
			h.Close()
		}
		empty := fill(t, dir)

		var log strings.Builder
		h := Open(path, slog.New(slog.NewTextHandler(&log, nil)))
		if !strings.Contains(log.String(), "history is in memory only") {
			t.Errorf("log %q, want that the history is in memory only", log.String())
		}
		if got := all(h); len(got) != before {
			t.Errorf("%d entries are known on a full disk, want %d", len(got), before)
		}
		h.Begin(t.Context(), web, "on a full disk", nil).End(nil)
		if err := h.Close(); err != nil {
			t.Errorf("close on a full disk: %v", err)
		}

		h = open(t, path)
		empty()
		h.Begin(t.Context(), web, "last", nil).End(nil)
		if err := h.Close(); err != nil {
			t.Error(err)
		}
		entries, err := Read(path)
		if err != nil || len(entries) != before+1 || entries[before].What != "last" {
			t.Errorf("%d entries in the file, %v; want %d", len(entries), err, before+1)
		}
	}
}

func TestHistoryOpensWhereItsFileCannotBeReadOrWritten(t *testing.T) {
	dir := t.TempDir()
	folder := filepath.Join(dir, "folder")
	if err := os.Mkdir(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{folder, filepath.Join(dir, "missing", "history")} {
		h := open(t, path)
		h.Begin(t.Context(), web, RunPod, nil).End(nil)
		same(t, all(h), "run pod  ended=true cut=false times=0 ")
		if err := h.Close(); err != nil {
			t.Errorf("%s: close: %v", path, err)
		}
	}
}

// rewrites counts how often the file was replaced while something is done.
func rewrites(t *testing.T, h *History, times int, do func(i int)) (n int) {
	t.Helper()
	stat := func() os.FileInfo {
		if err := h.write(); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(h.file.path)
		if err != nil {
			t.Fatal(err)
		}
		return info
	}
	last := stat()
	for i := range times {
		do(i)
		now := stat()
		if !os.SameFile(last, now) {
			n++
		}
		last = now
	}
	return n
}

func TestLongHistoryIsNotWrittenAnewForEachEvent(t *testing.T) {
	event := func(h *History) func(int) {
		return func(i int) { h.Note(t.Context(), web, fmt.Sprint("event ", i), time.Now(), nil) }
	}
	t.Run("ended", func(t *testing.T) {
		h := open(t, filepath.Join(t.TempDir(), "history"))
		defer h.Close()
		for i := range 3900 {
			h.Begin(t.Context(), Subject{Pod: fmt.Sprint("pod", i/60)}, fmt.Sprint("deed ", i), nil).End(errors.New(strings.Repeat("x", 1024)))
		}
		if n := rewrites(t, h, 100, event(h)); n > 2 {
			t.Errorf("the file was written anew %d times for 100 events", n)
		}
	})
	t.Run("at work", func(t *testing.T) { // these are not bounded here
		h := open(t, filepath.Join(t.TempDir(), "history"))
		defer h.Close()
		for i := range 600 {
			d := h.Begin(t.Context(), Subject{Pod: fmt.Sprint("pod", i)}, RunPod, nil)
			d.Stage("waiting")
			d.Waits(strings.Repeat("\x01", 2*longest))
		}
		if n := rewrites(t, h, 100, event(h)); n > 2 {
			t.Errorf("the file was written anew %d times for 100 events", n)
		}
	})
}

func TestHistoryIsBoundedAlsoInBytesOfTheFile(t *testing.T) {
	for _, text := range []string{"x", "\x01", "\xff", "<", "ä", "\"", "\u2028"} {
		path := filepath.Join(t.TempDir(), "history")
		h := open(t, path)
		for i := range 800 {
			about := app(fmt.Sprint("c", i))
			about.Pod = fmt.Sprint("pod", i/8)
			h.Begin(t.Context(), about, CreateContainer, nil).End(errors.New(strings.Repeat(text, 2*longest)))
			h.Note(t.Context(), about, Ended, time.Now(), &Exit{Reason: "Error", Message: strings.Repeat(text, longest)})
		}
		h.Close()
		h = open(t, path) // which writes it anew
		counted, entries := 0, h.Of(func(Subject) bool { return true })
		for _, e := range entries {
			counted += e.size()
		}
		h.mu.Lock()
		if h.bytes != counted || h.entries != len(entries) || len(entries) < 100 {
			t.Errorf("%q: %d entries of %d bytes counted, there are %d of %d", text, h.entries, h.bytes, len(entries), counted)
		}
		h.mu.Unlock()
		if info, err := os.Stat(path); err != nil || info.Size() > mostBytes {
			t.Errorf("%q: the file takes %d bytes, want at most %d (%v)", text, info.Size(), mostBytes, err)
		}
		h.Close()
	}
}

func TestQuickRepetitionsAreCountedTheSameAfterARestart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "history")
	h := open(t, path)
	fail := func() *Deed { return h.Begin(t.Context(), app("c1"), CreateContainer, nil) }
	flush := func() {
		t.Helper()
		if err := h.write(); err != nil {
			t.Fatal(err)
		}
	}
	fail().End(errors.New("no"))
	flush()
	late := fail() // its beginning is in the file, its end comes after those of others
	flush()
	for range 2 {
		fail().End(errors.New("no"))
	}
	late.End(errors.New("no"))
	want := "create container app ended=true cut=false times=4 no"
	same(t, all(h), want)
	h.Close()
	for range 2 {
		again := open(t, path)
		same(t, all(again), want)
		again.Close()
	}
	last := open(t, path)
	defer last.Close()
	h = last
	fail().End(errors.New("no"))
	same(t, all(last), "create container app ended=true cut=false times=5 no")
}

func TestForgottenDeedLeavesNoTraceInTheFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "history")
	h := open(t, path)
	d := h.Begin(t.Context(), web, StopPod, nil)
	if err := h.write(); err != nil {
		t.Fatal(err)
	}
	d.Forget()
	h.Close()
	again := open(t, path)
	defer again.Close()
	same(t, all(again))
}
