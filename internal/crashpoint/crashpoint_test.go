package crashpoint

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

// TestMain is also the process that passes points.
func TestMain(m *testing.M) {
	if _, told := os.LookupEnv(variable); !told {
		os.Exit(m.Run())
	}
	if err := WatchAsTold(); err != nil {
		os.Exit(2)
	}
	for range 3 {
		Here("a")
		Here("b")
	}
	os.Exit(0)
}

func TestArmedPointEndsTheProcessAndNothingElseDoes(t *testing.T) {
	for name, c := range map[string]struct {
		point, times string
		dies         bool
		trace        string
	}{
		"none":               {"", "", false, "a\nb\na\nb\na\nb\n"},
		"first time":         {"b", "", true, "a\nb\n"},
		"third time":         {"b", "3", true, "a\nb\na\nb\na\nb\n"},
		"one time too many":  {"b", "4", false, "a\nb\na\nb\na\nb\n"},
		"another that is no": {"c", "", false, "a\nb\na\nb\na\nb\n"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			write(t, filepath.Join(dir, Trace), "")
			if c.point != "" {
				write(t, filepath.Join(dir, c.point), c.times)
			}
			command := exec.Command("/proc/self/exe")
			command.Env = append(os.Environ(), variable+"="+dir)
			err := command.Run()
			killed := false
			if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
				killed = exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL
			}
			if killed != c.dies || !c.dies && err != nil {
				t.Errorf("ended with %v, killed is to be %t", err, c.dies)
			}
			if text, err := os.ReadFile(filepath.Join(dir, Trace)); err != nil || string(text) != c.trace {
				t.Errorf("trace %q, %v; want %q", text, err, c.trace)
			}
			if _, err := os.Stat(filepath.Join(dir, "b")); c.dies && !os.IsNotExist(err) {
				t.Errorf("the point is still armed: %v", err)
			}
		})
	}
}

func TestPointOfAProcessThatWatchesNothingCostsNothing(t *testing.T) {
	if n := testing.AllocsPerRun(100, func() { Here("a") }); n != 0 {
		t.Errorf("%v allocations", n)
	}
	if Environment() != nil {
		t.Errorf("the monitor would be told %q", Environment())
	}
}

func BenchmarkHere(b *testing.B) {
	for b.Loop() {
		Here("a")
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
