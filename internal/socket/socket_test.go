package socket

import (
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"cri-mini/internal/leakcheck"
)

func TestSocketIsPrivateFromTheFirstMoment(t *testing.T) {
	leakcheck.Check(t)
	dir := filepath.Join(t.TempDir(), "made")
	path := filepath.Join(dir, "a.sock")
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]fs.FileMode{dir: 0o700, path: 0o600} {
		info, err := os.Stat(name)
		if err != nil || info.Mode().Perm() != want {
			t.Errorf("%s has mode %v (%v), want %v", name, info.Mode().Perm(), err, want)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 0 {
		t.Errorf("after Close the folder holds %v, want nothing", entries)
	}
}

func TestSocketOfDeadProcessIsReplacedAndOfLivingOneRefused(t *testing.T) {
	leakcheck.Check(t)
	path := filepath.Join(t.TempDir(), "a.sock")
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	dead.SetUnlinkOnClose(false)
	dead.Close()

	l, err := Listen(path)
	if err != nil {
		t.Fatalf("socket of a dead process: %v", err)
	}
	defer l.Close()
	if _, err := Listen(path); err == nil || !strings.Contains(err.Error(), "another process answers") {
		t.Fatalf("second Listen: %v, want that another process answers", err)
	}
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatalf("the refused Listen took the socket away: %v", err)
	}
	conn.Close()
}

func TestListenNeverReplacesOtherFiles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.sock")
	if err := os.WriteFile(path, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(path); err == nil || !strings.Contains(err.Error(), "not a socket") {
		t.Fatalf("Listen on a file: %v, want that it is not a socket", err)
	}
}

func TestPathWantsAbsoluteUnixAddress(t *testing.T) {
	for address, want := range map[string]string{
		"unix:///run/x.sock":   "/run/x.sock",
		"unix:///run/../x":     "/x",
		"unix://x.sock":        "",
		"/run/x.sock":          "",
		"tcp://127.0.0.1:1":    "",
		"":                     "",
		"unix:":                "",
		"unix:///run/a/b.sock": "/run/a/b.sock",
	} {
		got, err := Path(address)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("Path(%q) = %q, %v; want %q", address, got, err, want)
		}
		if err != nil && !strings.Contains(err.Error(), `"`+address+`"`) {
			t.Errorf("Path(%q): %v does not name the address", address, err)
		}
	}
}
