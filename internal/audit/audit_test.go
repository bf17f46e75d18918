package audit

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"cri-mini/internal/leakcheck"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

func TestFolderIsNotRemovedWithWhatIsMountedInIt(t *testing.T) {
	dir := t.TempDir()
	inside := filepath.Join(dir, "a b", "m")
	if err := os.MkdirAll(inside, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", inside, "tmpfs", 0, "size=64k"); err != nil {
		t.Fatal(err)
	}
	precious := filepath.Join(inside, "precious")
	if err := os.WriteFile(precious, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := RemoveFolder(filepath.Join(dir, "a b")); err == nil || !strings.Contains(err.Error(), inside) {
		t.Errorf("remove: %v, want an error that names %s", err, inside)
	}
	if _, err := os.Stat(precious); err != nil {
		t.Errorf("what was mounted there: %v", err)
	}
	for range 2 { // the second time it is gone
		if err := Detach(inside); err != nil {
			t.Error(err)
		}
	}
	if err := RemoveFolder(filepath.Join(dir, "a b")); err != nil {
		t.Error(err)
	}
}

func TestOnlyThingsWithoutARecordAreLeftovers(t *testing.T) {
	things := []Thing{{Kind: "group", Name: "of a known one", Owner: "1"}, {Kind: "group", Name: "of nobody"},
		{Kind: "group", Name: "of a lost one", Owner: "2"}, {Kind: "group", Name: "somebody's", Foreign: "no id"}}
	leftovers, foreign := Compare(things, map[string]bool{"1": true, "3": true})
	if len(leftovers) != 2 || leftovers[0].Name != "of nobody" || leftovers[1].Name != "of a lost one" {
		t.Errorf("leftovers: %+v", leftovers)
	}
	if len(foreign) != 1 || foreign[0].Name != "somebody's" {
		t.Errorf("foreign: %+v", foreign)
	}
}

func TestWorstComesFirstAndOnlyWhatNeedsSomebodyIsBad(t *testing.T) {
	var r Report
	for _, about := range []string{Notice, Foreign, Removed} {
		r.Add(Finding{About: about})
	}
	if r.Bad() {
		t.Errorf("%+v is bad", r.Findings)
	}
	for _, about := range []string{Leftover, Wrong, Quarantine, Missing} {
		r.Add(Finding{About: about})
		if !r.Bad() {
			t.Errorf("%s is not bad", about)
		}
	}
	r.Sort()
	var order []string
	for _, f := range r.Findings {
		order = append(order, f.About)
	}
	if got := strings.Join(order, " "); got != "wrong missing quarantine leftover removed foreign notice" {
		t.Errorf("order: %s", got)
	}
}
