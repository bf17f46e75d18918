package fdstore

import (
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"cri-mini/internal/leakcheck"
)

// TestMain is also the next process, which says what it finds in the store.
func TestMain(m *testing.M) {
	if os.Getenv("FDSTORE_TEST") == "" {
		leakcheck.Main(m)
		return
	}
	s, kept := FromEnvironment(slog.New(slog.DiscardHandler))
	fmt.Println("store:", s != nil)
	for _, name := range slices.Sorted(maps.Keys(kept)) {
		for _, part := range slices.Sorted(maps.Keys(kept[name])) {
			text, err := io.ReadAll(kept[name][part])
			fmt.Println(name, part, string(text), err)
		}
	}
	fmt.Println("left in the environment:", os.Getenv("LISTEN_FDS")+os.Getenv("LISTEN_PID")+os.Getenv("LISTEN_FDNAMES")+os.Getenv("FDSTORE"))
	os.Exit(0)
}

// manager listens as systemd does.
func manager(t *testing.T) *net.UnixConn {
	t.Helper()
	path := filepath.Join(t.TempDir(), "n")
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { socket.Close() })
	t.Setenv("NOTIFY_SOCKET", path)
	t.Setenv("FDSTORE", "100")
	return socket
}

// heard is the next thing said, with the descriptor or nil.
func heard(t *testing.T, socket *net.UnixConn) (string, *os.File) {
	t.Helper()
	text, control := make([]byte, 1000), make([]byte, 1000)
	n, used, _, _, err := socket.ReadMsgUnix(text, control)
	if err != nil {
		t.Fatal(err)
	}
	messages, err := unix.ParseSocketControlMessage(control[:used])
	if err != nil {
		t.Fatal(err)
	}
	if len(messages) == 0 {
		return string(text[:n]), nil
	}
	files, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(files) != 1 {
		t.Fatalf("%d descriptors, %v", len(files), err)
	}
	unix.CloseOnExec(files[0])
	return string(text[:n]), os.NewFile(uintptr(files[0]), "stored")
}

// next is what a process finds that is started with these descriptors.
func next(t *testing.T, pid string, files ...*os.File) string {
	t.Helper()
	cmd := exec.Command("/bin/sh", "-c", "LISTEN_PID="+pid+` exec "$0"`, "/proc/self/exe")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Args[3] = self
	cmd.ExtraFiles = files
	cmd.Env = append(os.Environ(), "FDSTORE_TEST=1", fmt.Sprint("LISTEN_FDS=", len(files)))
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

func TestWhatIsKeptIsFoundByEachProcessThatComes(t *testing.T) {
	socket := manager(t)
	s, kept := FromEnvironment(slog.Default())
	if s == nil || len(kept) > 0 {
		t.Fatalf("store %v with %v", s, kept)
	}
	b := Bundle{}
	for _, name := range []string{"one", "two"} {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, []byte("text of "+name), 0o600); err != nil {
			t.Fatal(err)
		}
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		b[name] = f
	}
	s.Keep("pod/a", b)
	b.Close() // ours are not needed any more
	text, stored := heard(t, socket)
	if stored == nil || !strings.HasPrefix(text, "FDSTORE=1\nFDPOLL=0\nFDNAME=") || strings.Contains(text, ":") {
		t.Fatalf("said was %q, with %v", text, stored)
	}
	name := text[strings.LastIndexByte(text, '=')+1:]
	if len(name) > 14 {
		t.Errorf("the name %q is long: with thousands the next process could not be started", name)
	}
	// Offsets are shared: the second reads nothing, of the same files.
	for _, want := range []string{
		"store: true\npod/a one text of one <nil>\npod/a two text of two <nil>\nleft in the environment: \n",
		"store: true\npod/a one  <nil>\npod/a two  <nil>\nleft in the environment: \n",
	} {
		t.Setenv("FDSTORE", "100")
		if got := next(t, "$$", stored); got != want {
			t.Errorf("the next process finds\n%s\nwant\n%s", got, want)
		}
	}
	if got := next(t, "1", stored); got != "store: true\nleft in the environment: \n" {
		t.Errorf("descriptors of another process: %s", got)
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	if got := next(t, "$$", null, stored); !strings.HasPrefix(got, "store: true\npod/a one ") {
		t.Errorf("with something else in the store is found: %s", got)
	}
	stored.Close()
	s.Drop("pod/a")
	if text, _ := heard(t, socket); text != "FDSTOREREMOVE=1\nFDNAME="+name {
		t.Errorf("said was %q", text)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	s.Drop("after the end")
}

func TestCallersDoNotWaitForABusyManager(t *testing.T) {
	socket := manager(t)
	s, _ := FromEnvironment(slog.Default())
	const many = 3000 // more than the kernel holds of datagrams
	for n := range many {
		s.Drop(fmt.Sprint(n))
	}
	for n := range many {
		if text, _ := heard(t, socket); text != "FDSTOREREMOVE=1\nFDNAME="+label(fmt.Sprint(n)) {
			t.Fatalf("message %d is %q", n, text)
		}
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

func TestEndDoesNotWaitForAManagerThatHangs(t *testing.T) {
	manager(t)
	usual := patience
	patience = 100 * time.Millisecond
	defer func() { patience = usual }()
	s, _ := FromEnvironment(slog.Default())
	for n := range 3000 {
		s.Drop(fmt.Sprint(n))
	}
	closed := make(chan error, 1)
	go func() { closed <- s.Close() }()
	select {
	case err := <-closed:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(time.Minute):
		t.Error("it still waits")
	}
}

func TestWithoutAManagerNothingIsKept(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	t.Setenv("FDSTORE", "")
	s, kept := FromEnvironment(slog.Default())
	if s != nil || kept != nil {
		t.Fatalf("store %v with %v", s, kept)
	}
	s.Keep("a", Bundle{})
	s.Drop("a")
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}
