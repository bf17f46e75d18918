package stream

import (
	"io"
	"net"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// flood writes until the other end takes no more.
func flood(t *testing.T, conn net.Conn, w io.Writer) {
	t.Helper()
	chunk := make([]byte, 32<<10)
	for {
		conn.SetWriteDeadline(time.Now().Add(time.Second))
		if _, err := w.Write(chunk); err != nil {
			if timeout, ok := err.(net.Error); !ok || !timeout.Timeout() {
				t.Fatalf("flood: %v, want that it stops", err)
			}
			return
		}
	}
}

// frames writes the data of a stream as a client does whose connection may end
// in the middle of a frame.
type frames struct {
	conn   net.Conn
	stream byte
}

func (f frames) Write(p []byte) (int, error) {
	n := len(p)
	return f.conn.Write(append([]byte{0, 0, 0, f.stream, 0, byte(n >> 16), byte(n >> 8), byte(n)}, p...))
}

type messages struct{ ws *websocket.Conn }

func (m messages) Write(p []byte) (int, error) {
	m.ws.SetWriteDeadline(time.Now().Add(time.Second))
	return len(p), m.ws.WriteMessage(websocket.BinaryMessage, append([]byte{stdinChannel}, p...))
}

// Its end is behind what it has sent and nobody reads, or before what it has
// not read.
func TestClientThatLeavesWithFullBuffersIsNoticed(t *testing.T) {
	noGoroutines(t)
	for name, test := range map[string]struct {
		program   []string // nil: attach
		websocket bool
		reads     bool // the client; the program does not
	}{
		"exec that reads nothing":                     {program: []string{"sleep", "1000"}, reads: true},
		"exec that reads nothing over a websocket":    {program: []string{"sleep", "1000"}, reads: true, websocket: true},
		"client of exec that reads nothing":           {program: []string{"yes"}},
		"client of exec and websocket, reads nothing": {program: []string{"yes"}, websocket: true},
		"attach, and nobody reads":                    {},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine()
			s := serve(t, m)
			url := ""
			if test.program == nil {
				answer, err := s.Attach(&criapi.AttachRequest{ContainerId: "c", Stdin: true, Stdout: true})
				if err != nil {
					t.Fatal(err)
				}
				url = answer.Url
			} else {
				url = execURL(t, s, &criapi.ExecRequest{Cmd: test.program, Stdin: true, Stdout: true})
			}
			var conn net.Conn
			var stdin io.Writer
			if test.websocket {
				c := dialSocket(t, url, v5)
				conn, stdin = c.ws.NetConn(), messages{c.ws}
				if test.reads {
					c.read()
				}
			} else {
				// Without the client's library, which reads always.
				conn = openRaw(t, url, "error", "stdout", "stdin")
				stdin = frames{conn, 5}
				if test.reads {
					go io.Copy(io.Discard, conn)
				}
			}
			ended := func() bool {
				m.mu.Lock()
				defer m.mu.Unlock()
				return m.attached == 0
			}
			if test.program == nil {
				<-m.views
			} else {
				pid := <-m.started
				ended = func() bool { return gone(pid) }
			}
			if test.program == nil || test.reads {
				flood(t, conn, stdin)
			} else {
				eventually(t, "our own buffer is full", func() bool {
					for c := range everyConn(s) {
						return c.unsent()
					}
					return false
				})
				time.Sleep(time.Second)
			}
			if ended() {
				t.Fatal("it has ended before the client left")
			}
			conn.Close()
			left := time.Now()
			eventually(t, "the program or the attachment has ended", ended)
			t.Logf("noticed after %v", time.Since(left))
		})
	}
}

func everyConn(s *Server) map[*watchedConn]struct{} {
	s.conns.mu.Lock()
	defer s.conns.mu.Unlock()
	all := map[*watchedConn]struct{}{}
	for c := range s.conns.open {
		all[c] = struct{}{}
	}
	return all
}

func TestForwardIsCutWhenItsClientLeavesBehindAFullBuffer(t *testing.T) {
	noGoroutines(t)
	m := newMachine()
	ns, l := podNetwork(t, listenOn(t, "127.0.0.1:0"))
	m.ns = ns
	s := serve(t, m)
	answer, err := s.PortForward(&criapi.PortForwardRequest{PodSandboxId: "p"})
	if err != nil {
		t.Fatal(err)
	}
	conn := upgradeRaw(t, answer.Url, forwardProtocol)
	go io.Copy(io.Discard, conn)
	conn.Write(openStreams(t, forwardHeaders(l, 1)...))
	program, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer program.Close()
	flood(t, conn, frames{conn, 3})
	conn.Close()
	left := time.Now()
	eventually(t, "nothing is forwarded", func() bool { return s.forwarding.Load() == 0 })
	t.Logf("noticed after %v", time.Since(left))
}
