package testtool

import (
	"debug/elf"
	"os"
	"path/filepath"
	"testing"
)

// OtherBuild copies a Go program and changes the id in it that tells one build
// from another. It does the same as the first.
func OtherBuild(t testing.TB, program string) string {
	t.Helper()
	data, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	f, err := elf.Open(program)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	note := f.Section(".note.go.buildid")
	if note == nil {
		t.Fatalf("%s has no build id", program)
	}
	data[note.Offset+note.FileSize-3] ^= 1 // in the text of the note
	other := filepath.Join(t.TempDir(), filepath.Base(program))
	if err := os.WriteFile(other, data, 0o755); err != nil {
		t.Fatal(err)
	}
	return other
}
