package selinux

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// attributeOf reads a label without following a link. Attributes of this name
// can be kept without SELinux too.
func attributeOf(t *testing.T, path string) string {
	t.Helper()
	var text [256]byte
	n, err := unix.Lgetxattr(path, attribute, text[:])
	if errors.Is(err, unix.ENODATA) {
		return ""
	}
	if err != nil {
		t.Fatal(path, err)
	}
	return strings.TrimRight(string(text[:n]), "\x00")
}

func openPath(t *testing.T, path string) *os.File {
	t.Helper()
	f, err := os.OpenFile(path, unix.O_PATH, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func TestRelabelReachesEverythingBelowAndNothingElse(t *testing.T) {
	dir := t.TempDir()
	inside, outside := filepath.Join(dir, "volume"), filepath.Join(dir, "outside")
	for _, name := range []string{"volume/deep/er/file", "volume/file", "outside/file", "other/file"} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, 0o000); err != nil {
			t.Fatal(err)
		}
	}
	for name, target := range map[string]string{"link": outside, "deep/up": "../../outside/file", "dangling": "nowhere"} {
		if err := os.Symlink(target, filepath.Join(inside, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Mkfifo(filepath.Join(inside, "fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	const label = "system_u:object_r:container_file_t:s0:c1,c2"
	if err := Relabel(t.Context(), openPath(t, inside), label); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"", "deep", "deep/er", "deep/er/file", "file", "fifo", "link", "dangling", "deep/up"} {
		if got := attributeOf(t, filepath.Join(inside, name)); got != label {
			t.Errorf("%q has the label %q", name, got)
		}
	}
	for _, name := range []string{"outside", "outside/file", "other", "other/file"} {
		if got := attributeOf(t, filepath.Join(dir, name)); got != "" {
			t.Errorf("%q outside has the label %q", name, got)
		}
	}
	// A single file, and again what has it already.
	if err := Relabel(t.Context(), openPath(t, filepath.Join(inside, "file")), label); err != nil {
		t.Error(err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Relabel(ended, openPath(t, inside), label); !errors.Is(err, context.Canceled) {
		t.Errorf("a caller who left: %v", err)
	}
}

func TestWhatBelongsToTheNodeIsNotRelabelled(t *testing.T) {
	for path, want := range map[string]bool{
		"/": false, "/etc": false, "/etc/": false, "/etc/ssh": false, "/usr/lib/x": false, "/home": false, "/var": false, "/var/lib": false,
		"/tmp": false, "/proc/1": false, "/dev/shm": false, "/root": false, "/var/../etc": false,
		"/srv/data": true, "/home/user/data": true, "/var/lib/kubelet/pods/1/volumes/x": true, "/tmp/x": true, "/data": true, "/etcetera": true, "/usrdata": true,
	} {
		if err := Allowed(path); (err == nil) != want {
			t.Errorf("Allowed(%s): %v, want %t", path, err, want)
		} else if err != nil && !strings.Contains(err.Error(), filepath.Clean(path)) {
			t.Errorf("Allowed(%s): %v does not name it", path, err)
		}
	}
}
