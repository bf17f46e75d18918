package stream

import (
	"bytes"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	goruntime "runtime"
	"strings"
	"sync"
	"testing"

	"github.com/gorilla/websocket"
	"github.com/moby/spdystream/spdy"
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

// openStream is the bytes of a frame that opens a stream.
func openStream(t *testing.T, headers http.Header) []byte {
	t.Helper()
	var wire bytes.Buffer
	framer, err := spdy.NewFramer(&wire, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := framer.WriteFrame(&spdy.SynStreamFrame{StreamId: 1, Headers: headers}); err != nil {
		t.Fatal(err)
	}
	return wire.Bytes()
}

// A megabyte of one letter is a kilobyte on the wire.
func TestHeadersThatUnpackWithoutEndCostLittle(t *testing.T) {
	many, large := http.Header{"streamtype": {"data"}}, http.Header{"streamtype": {"data"}}
	for i := range 200 {
		many[fmt.Sprintf("h%d", i)] = []string{"x"}
	}
	for i := range maxHeaders - 1 {
		large[fmt.Sprintf("h%d", i)] = []string{strings.Repeat("a", 1<<20-100)}
	}
	long := make([]byte, 8+1<<20)
	copy(long, []byte{0x80, 3, 0, 1, 0, 0x10, 0, 0})
	bombs := map[string]struct {
		wire   []byte
		reason string
	}{
		"many headers":  {openStream(t, many), "16 headers"},
		"large headers": {openStream(t, large), "1024 bytes"},
		"a long frame":  {long, "control frame of 1048576 bytes, want at most 16384"},
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
			return newTunnel(ws, defaultLimits)
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
