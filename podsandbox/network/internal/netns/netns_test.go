package netns

import (
	"errors"
	"fmt"
	"os"
	"testing"

	"cri-mini/internal/leakcheck"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

func TestDoRunsInsideAndReturns(t *testing.T) {
	ns, err := New()
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	before, _ := os.Readlink(self)
	want := errors.New("from inside")
	var inside string
	err = Do(ns, func() error {
		inside, _ = os.Readlink(self)
		return want
	})
	after, _ := os.Readlink(self)
	if err != want || inside == before || after != before {
		t.Errorf("before %s, inside %s, after %s, error %v", before, inside, after, err)
	}
}

func TestOpenRefusesWhatIsNoNetwork(t *testing.T) {
	for _, path := range []string{"/dev/null", "/proc/self/ns/mnt", "/proc/self", "/"} {
		if f, err := Open(path); !errors.Is(err, ErrNotNamespace) {
			t.Errorf("Open(%s): %v, %v; want ErrNotNamespace", path, f, err)
		}
	}
	if _, err := Open("/nonexistent"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Open of nothing: %v", err)
	}
	f, err := Open("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := Do(f, func() error { return nil }); err != nil {
		t.Error(err)
	}
	if err := Do(f, func() error { return fmt.Errorf("x") }); err == nil {
		t.Error("error of fn was lost")
	}
}
