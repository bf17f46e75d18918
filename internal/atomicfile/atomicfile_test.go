package atomicfile

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func TestWriteReplacesWholeFileAndLeavesNothingElse(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "record")
	for _, text := range []string{"first and longer", "second"} {
		if err := Durable(path, []byte(text), 0o640); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(path)
		if err != nil || string(got) != text {
			t.Fatalf("read %q, %v; want %q", got, err, text)
		}
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o640 {
		t.Fatalf("mode %v, %v; want 0640", info.Mode(), err)
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 1 {
		t.Fatalf("folder holds %v, want only the record", entries)
	}
}

func TestFailedWriteLeavesOldContent(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "record")
	if err := os.Mkdir(path, 0o700); err != nil { // rename onto a folder fails
		t.Fatal(err)
	}
	if err := Volatile(path, []byte("x"), 0o600); err == nil {
		t.Fatal("write onto a folder succeeded")
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 1 {
		t.Fatalf("folder holds %v, want only the old entry", entries)
	}
}

func TestSweepRemovesOnlyUnfinishedFiles(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"record", "record" + tempMark + "123"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := Sweep(dir); err != nil {
		t.Fatal(err)
	}
	entries, _ := os.ReadDir(dir)
	if len(entries) != 1 || entries[0].Name() != "record" {
		t.Fatalf("after Sweep: %v, want only record", entries)
	}
}

func TestReadJSONTellsAFileThatThePowerLeftEmptyFromADamagedOne(t *testing.T) {
	path := filepath.Join(t.TempDir(), "record")
	for content, want := range map[string]bool{"": true, "\x00\x00\x00": true, "{": false, " ": false, "\x00{}": false} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		var v struct{}
		if err := ReadJSON(path, &v); err == nil || errors.Is(err, ErrUnwritten) != want {
			t.Errorf("%q: %v; want it to be of a power cut: %t", content, err, want)
		}
	}
}
