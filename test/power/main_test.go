package power

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"cri-mini/internal/enclosure"
)

func TestMain(m *testing.M) {
	slog.SetDefault(slog.New(slog.DiscardHandler)) // of stores in this process
	enclosure.Main(m, "./cmd/cri-mini")
}

// patience is how long anything may take that takes milliseconds on a machine
// with nothing else to do.
const patience = 2 * time.Minute

// rebooted lets a test be another boot of the machine, as often as it says so.
func rebooted(t *testing.T) (again func()) {
	t.Helper()
	const name, kernels = "/run/boot_id", "/proc/sys/kernel/random/boot_id"
	boot := 0
	again = func() {
		boot++
		id := fmt.Sprintf("%08x-%s\n", boot, strings.Repeat("0", 27))
		if err := os.WriteFile(name, []byte(id), 0o444); err != nil {
			t.Fatal(err)
		}
	}
	again()
	if err := unix.Mount(name, kernels, "", unix.MS_BIND, ""); err != nil {
		t.Fatalf("mount %s: %v", kernels, err)
	}
	t.Cleanup(func() {
		if err := errors.Join(unix.Unmount(kernels, 0), os.Remove(name)); err != nil {
			t.Error(err)
		}
	})
	return again
}

func eventually(t *testing.T, what string, true func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if true() {
			return
		}
	}
	t.Fatalf("not within %s: %s", patience, what)
}
