package executor

import (
	"log/slog"
	"net"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"cri-mini/internal/fdstore"
	"cri-mini/runtime/spec"
)

// serviceManager plays the service manager: it takes what it is sent, and holds it.
func serviceManager(t *testing.T) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("NOTIFY_SOCKET", path)
	t.Setenv("FDSTORE", "100")
	held := make(chan []int)
	go func() {
		var all []int
		defer func() { held <- all }()
		text, rights := make([]byte, 4096), make([]byte, 4096)
		for {
			_, n, _, _, err := socket.ReadMsgUnix(text, rights)
			if err != nil {
				return
			}
			messages, _ := unix.ParseSocketControlMessage(rights[:n])
			for _, m := range messages {
				fds, _ := unix.ParseUnixRights(&m)
				all = append(all, fds...)
			}
		}
	}()
	t.Cleanup(func() {
		socket.Close()
		for _, fd := range <-held {
			unix.Close(fd)
		}
	})
}

func TestInputThatIsClosedOnceEndsAlsoWhereTheServiceManagerHoldsDescriptors(t *testing.T) {
	serviceManager(t)
	store, _ := fdstore.FromEnvironment(slog.Default())
	if store == nil {
		t.Fatal("no store")
	}
	n := newNode(t, spec.Sandbox{})
	n.store = store
	t.Cleanup(func() { store.Close() })
	cat := n.container("cat", func(s *spec.Container) { s.Stdin, s.StdinOnce = true, true }, "cat")
	if err := n.Prepare(t.Context(), cat); err != nil {
		t.Fatal(err)
	}
	_, view, err := n.StartAttached(t.Context(), "cat")
	if err != nil {
		t.Fatal(err)
	}
	defer view.Close()
	view.Stdin().Close()
	if exit := n.exit("cat"); exit.Code != 0 {
		t.Errorf("exit %+v", exit)
	}
}
