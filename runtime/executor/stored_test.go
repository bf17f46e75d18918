package executor

import (
	"log/slog"
	"net"
	"path/filepath"
	"testing"

	"cri-mini/internal/fdstore"
	"cri-mini/runtime/spec"
)

func TestInputThatIsClosedOnceEndsAlsoWhereTheServiceManagerHoldsDescriptors(t *testing.T) {
	// A service manager: what waits in its socket it holds.
	path := filepath.Join(t.TempDir(), "notify")
	manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer manager.Close()
	t.Setenv("NOTIFY_SOCKET", path)
	t.Setenv("FDSTORE", "100")
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
