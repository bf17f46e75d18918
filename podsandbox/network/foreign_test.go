package network

import (
	"bytes"
	"log/slog"
	"os"
	"strings"
	"testing"

	"cri-mini/internal/audit"
)

func TestFileThatIsNoRecordIsNamedAndLeftAlone(t *testing.T) {
	w := newWorld(t)
	w.open()
	foreign := w.net.records.path("notes")
	must(t, os.WriteFile(foreign, []byte(`{"ID":"notes"}`), 0o600))
	folder := w.net.records.path("folder")
	must(t, os.Mkdir(folder, 0o700))
	damaged := w.net.records.path(strings.Repeat("a", 64))
	must(t, os.WriteFile(damaged, []byte(`{"ID":"`+strings.Repeat("a", 64)+`","Form":"builtin"}`), 0o600))

	var log bytes.Buffer
	w.opt.Logger = slog.New(slog.NewTextHandler(&log, nil))
	w.open() // the next life
	must(t, w.net.Collect(nil))
	if _, err := os.Stat(damaged); err == nil {
		t.Error("a damaged record is still there")
	}
	things, err := w.net.Connections()
	must(t, err)
	_, leftAlone := audit.Compare(things, nil)
	var named []string
	for _, thing := range leftAlone {
		named = append(named, thing.Name)
	}
	if got, want := strings.Join(named, " "), folder+" "+foreign; got != want {
		t.Errorf("named as foreign: %q, want %q", got, want)
	}
	for _, name := range []string{foreign, folder} {
		if _, err := os.Stat(name); err != nil {
			t.Errorf("what is not ours: %v", err)
		}
	}
	must(t, w.net.Close()) // it logs no more
	w.net = nil
	if text := log.String(); strings.Contains(text, "err=<nil>") || !strings.Contains(text, `form \"builtin\" without what belongs to it`) {
		t.Errorf("log: %s", text)
	}
}
