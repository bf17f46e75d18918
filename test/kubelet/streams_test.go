package kubelet

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"k8s.io/streaming/pkg/httpstream"
	"k8s.io/streaming/pkg/httpstream/spdy"
)

// protocols are the two in which kubectl talks to a kubelet. The second one the
// kubelet translates for the runtime.
var protocols = map[string]func(t *testing.T, path string, kinds []string) *streams{
	"SPDY":      dialSPDY,
	"WebSocket": dialWebSocket,
}

// streams are those of an exec or an attach.
type streams struct {
	t     *testing.T
	write func(kind, data string) error
	shut  func(kind string) error // no more of it
	leave func()
	ended chan struct{} // everything has arrived

	mu  sync.Mutex
	all map[string]string
}

func newStreams(t *testing.T) *streams {
	return &streams{t: t, ended: make(chan struct{}), all: map[string]string{}}
}

// open asks the kubelet for an exec or an attach, with the streams of kinds.
func (n *node) open(protocol, what, pod, container string, kinds string, command ...string) *streams {
	n.t.Helper()
	query := url.Values{"command": command}
	for kind, parameter := range map[string]string{"stdin": "input", "stdout": "output", "stderr": "error", "resize": "tty"} {
		if strings.Contains(kinds, kind) {
			query.Set(parameter, "1")
		}
	}
	return protocols[protocol](n.t, "/"+what+"/default/"+pod+"-node/"+container+"?"+query.Encode(), strings.Fields(kinds))
}

func (s *streams) took(kind string, data []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all[kind] += string(data)
}

func (s *streams) got(kind string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.all[kind]
}

func (s *streams) send(kind, data string) {
	s.t.Helper()
	if err := s.write(kind, data); err != nil {
		s.t.Fatalf("write %s: %v", kind, err)
	}
}

func (s *streams) close(kind string) {
	s.t.Helper()
	if err := s.shut(kind); err != nil {
		s.t.Fatalf("close %s: %v", kind, err)
	}
}

// wait waits for the end of all streams and returns the status.
func (s *streams) wait() string {
	s.t.Helper()
	select {
	case <-s.ended:
	case <-time.After(patience):
		s.t.Fatalf("the streams did not end in %s: %q", patience, s.all)
	}
	return s.got("error")
}

// until waits for a text in one of the streams.
func (s *streams) until(kind, text string) {
	s.t.Helper()
	for end := time.Now().Add(patience); !strings.Contains(s.got(kind), text); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			s.t.Fatalf("%s is %q after %s, want %q", kind, s.got(kind), patience, text)
		}
	}
}

// upgrade makes a connection to the kubelet that speaks SPDY.
func upgrade(path, protocol string) (httpstream.Connection, error) {
	request, err := http.NewRequest(http.MethodPost, address+path, nil)
	if err != nil {
		return nil, err
	}
	request.Header = http.Header{"Connection": {"Upgrade"}, "Upgrade": {"SPDY/3.1"}, "X-Stream-Protocol-Version": {protocol}}
	raw, err := tls.Dial("tcp", request.URL.Host, &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		return nil, err
	}
	if err := request.Write(raw); err != nil {
		return nil, errors.Join(err, raw.Close())
	}
	answer, err := http.ReadResponse(bufio.NewReader(raw), request)
	if err != nil {
		return nil, errors.Join(err, raw.Close())
	}
	if answer.StatusCode != http.StatusSwitchingProtocols {
		body, _ := io.ReadAll(answer.Body)
		return nil, errors.Join(fmt.Errorf("%s: %s: %s", path, answer.Status, body), raw.Close())
	}
	return spdy.NewClientConnection(raw)
}

func dialSPDY(t *testing.T, path string, kinds []string) *streams {
	t.Helper()
	connection, err := upgrade(path, "v4.channel.k8s.io")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { connection.Close() })
	s, open := newStreams(t), map[string]httpstream.Stream{}
	var readers sync.WaitGroup
	for _, kind := range append([]string{"error"}, kinds...) {
		stream, err := connection.CreateStream(http.Header{"Streamtype": {kind}})
		if err != nil {
			t.Fatalf("stream %s: %v", kind, err)
		}
		open[kind] = stream
		if kind == "stdin" || kind == "resize" {
			continue
		}
		readers.Go(func() { _, _ = io.Copy(sink{s, kind}, stream) })
	}
	s.write = func(kind, data string) error { _, err := io.WriteString(open[kind], data); return err }
	s.shut = func(kind string) error { return open[kind].Close() }
	s.leave = func() { connection.Close() }
	go func() { readers.Wait(); close(s.ended) }()
	return s
}

type sink struct {
	s    *streams
	kind string
}

func (w sink) Write(b []byte) (int, error) { w.s.took(w.kind, b); return len(b), nil }

// channels are the numbers of streams in version 5 of the protocol.
var channels = []string{"stdin", "stdout", "stderr", "error", "resize"}

const closeChannel = 255

func dialWebSocket(t *testing.T, path string, _ []string) *streams {
	t.Helper()
	connection := socket(t, path, "v5.channel.k8s.io")
	s := newStreams(t)
	number := func(kind string) byte {
		for i := range channels {
			if channels[i] == kind {
				return byte(i)
			}
		}
		panic(kind)
	}
	s.write = func(kind, data string) error {
		return connection.WriteMessage(websocket.BinaryMessage, append([]byte{number(kind)}, data...))
	}
	s.shut = func(kind string) error {
		return connection.WriteMessage(websocket.BinaryMessage, []byte{closeChannel, number(kind)})
	}
	s.leave = func() { leave(connection) }
	go func() {
		defer close(s.ended)
		for {
			_, message, err := connection.ReadMessage()
			if err != nil {
				return
			}
			if len(message) > 0 && int(message[0]) < len(channels) {
				s.took(channels[message[0]], message[1:])
			}
		}
	}()
	return s
}

func socket(t *testing.T, path, protocol string) *websocket.Conn {
	t.Helper()
	dialer := websocket.Dialer{Subprotocols: []string{protocol}, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	connection, answer, err := dialer.Dial("wss"+strings.TrimPrefix(address, "https")+path, nil)
	if err != nil {
		t.Fatalf("%s: %v, %v", path, err, answer)
	}
	if got := connection.Subprotocol(); got != protocol {
		t.Errorf("%s: the kubelet chose %q, want %q", path, got, protocol)
	}
	t.Cleanup(func() { leave(connection) })
	return connection
}

// leave ends a WebSocket as its standard wants it.
func leave(connection *websocket.Conn) error {
	bye := websocket.FormatCloseMessage(websocket.CloseNormalClosure, "")
	return errors.Join(connection.WriteControl(websocket.CloseMessage, bye, time.Now().Add(time.Second)), connection.Close())
}

// forward opens the way to the ports of a pod.
func (n *node) forward(protocol, pod string) httpstream.Connection {
	n.t.Helper()
	path := "/portForward/default/" + pod + "-node"
	var connection httpstream.Connection
	var err error
	if protocol == "WebSocket" {
		connection, err = spdy.NewClientConnection(&tunnel{Conn: socket(n.t, path, "SPDY/3.1+portforward.k8s.io")})
	} else {
		connection, err = upgrade(path, "portforward.k8s.io")
	}
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { connection.Close() })
	return connection
}

// tunnel is a WebSocket whose messages are the bytes of a connection in SPDY.
type tunnel struct {
	*websocket.Conn
	message io.Reader
}

var _ net.Conn = (*tunnel)(nil)

func (t *tunnel) Read(p []byte) (int, error) {
	for {
		if t.message == nil {
			var err error
			if _, t.message, err = t.NextReader(); err != nil {
				return 0, io.EOF
			}
		}
		n, err := t.message.Read(p)
		if n > 0 || err == nil {
			return n, nil
		}
		t.message = nil
	}
}

func (t *tunnel) Write(p []byte) (int, error) {
	return len(p), t.WriteMessage(websocket.BinaryMessage, p)
}

func (t *tunnel) Close() error { return leave(t.Conn) }

func (t *tunnel) SetDeadline(at time.Time) error {
	return errors.Join(t.SetReadDeadline(at), t.SetWriteDeadline(at))
}
