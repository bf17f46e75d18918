package stream

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	goruntime "runtime"
	"strings"
	"sync"
	"testing"

	"github.com/gorilla/websocket"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// syncBuffer is a log that several write.
type syncBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

func captureLog(t *testing.T) *syncBuffer {
	t.Helper()
	log := new(syncBuffer)
	before := slog.Default()
	slog.SetDefault(slog.New(slog.NewTextHandler(log, nil)))
	t.Cleanup(func() { slog.SetDefault(before) })
	return log
}

// A megabyte of one letter is a kilobyte on the wire.
func TestHeadersThatUnpackWithoutEndCostLittle(t *testing.T) {
	many, large := http.Header{"streamtype": {"data"}}, http.Header{"streamtype": {"data"}}
	for i := range 200 {
		many[fmt.Sprintf("h%d", i)] = []string{"x"}
	}
	for i := range 2 {
		large[fmt.Sprintf("h%d", i)] = []string{strings.Repeat("a", 1<<20-100)}
	}
	long := make([]byte, 8+1<<20)
	copy(long, []byte{0x80, 3, 0, 1, 0, 0x10, 0, 0})
	bombs := map[string]struct {
		wire   []byte
		reason string
	}{
		"many headers":  {openStreams(t, many), fmt.Sprintf("%d headers", maxHeaders)},
		"large headers": {openStreams(t, large), fmt.Sprintf("%d bytes", maxHeaderSize)},
		"a long frame":  {long, fmt.Sprintf("control frame of 1048576 bytes, want at most %d", maxControlFrame)},
	}
	s := serve(t, newMachine())
	transports := map[string]func() net.Conn{
		"exec": func() net.Conn {
			return dialURL(t, execURL(t, s, &criapi.ExecRequest{Cmd: []string{"cat"}, Stdout: true}), v4).raw
		},
		"attach": func() net.Conn {
			answer, err := s.Attach(&criapi.AttachRequest{Stdout: true})
			if err != nil {
				t.Fatal(err)
			}
			return dialURL(t, answer.Url, v4).raw
		},
		"port-forward": func() net.Conn { return forward(t, s).raw },
		"tunnel": func() net.Conn {
			answer, err := s.PortForward(&criapi.PortForwardRequest{PodSandboxId: "p"})
			if err != nil {
				t.Fatal(err)
			}
			dialer := websocket.Dialer{Subprotocols: []string{tunnelProtocol}}
			ws, _, err := dialer.Dial("ws"+strings.TrimPrefix(answer.Url, "http"), nil)
			if err != nil {
				t.Fatal(err)
			}
			return newTunnel(context.Background(), ws, defaultLimits)
		},
	}
	for transport, dial := range transports {
		for name, bomb := range bombs {
			t.Run(transport+"/"+name, func(t *testing.T) {
				log := captureLog(t)
				conn := dial()
				defer conn.Close()
				var before, after goruntime.MemStats
				goruntime.ReadMemStats(&before)
				conn.Write(bomb.wire) // may end in the middle
				eventually(t, "the log gives the reason", func() bool { return strings.Contains(log.String(), bomb.reason) })
				goruntime.ReadMemStats(&after)
				if cost := after.TotalAlloc - before.TotalAlloc; cost > 8<<20 {
					t.Errorf("%d bytes on the wire cost %d bytes of memory, want at most 8 MiB", len(bomb.wire), cost)
				}
			})
		}
	}
}
