package stream

import (
	"bytes"
	"crypto/md5"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/streaming/pkg/httpstream/spdy"
)

const v5 = "v5.channel.k8s.io"

// socket is one WebSocket connection of a client.
type socket struct {
	t  *testing.T
	ws *websocket.Conn

	mu     sync.Mutex
	output map[byte]string
	end    chan error // how reading ended
}

func dialSocket(t *testing.T, url string, protocols ...string) *socket {
	t.Helper()
	ws, answer, err := tryDial(url, protocols...)
	if err != nil {
		t.Fatalf("%s: %v, %v", url, err, answer)
	}
	s := &socket{t: t, ws: ws, output: map[byte]string{}, end: make(chan error, 1)}
	t.Cleanup(func() { ws.Close() })
	return s
}

func tryDial(url string, protocols ...string) (*websocket.Conn, *http.Response, error) {
	dialer := websocket.Dialer{Subprotocols: protocols}
	return dialer.Dial("ws"+strings.TrimPrefix(url, "http"), nil)
}

// read collects what comes on each channel.
func (s *socket) read() {
	go func() {
		for {
			kind, message, err := s.ws.ReadMessage()
			if err != nil {
				s.end <- err
				return
			}
			channel, data := message[0], message[1:]
			if kind == websocket.TextMessage {
				channel -= '0'
				data, _ = base64.StdEncoding.AppendDecode(nil, data)
			}
			s.mu.Lock()
			s.output[channel] += string(data)
			s.mu.Unlock()
		}
	}()
}

func (s *socket) got(channel byte) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.output[channel]
}

// wait waits for the server's normal end.
func (s *socket) wait() {
	s.t.Helper()
	select {
	case err := <-s.end:
		if !websocket.IsCloseError(err, websocket.CloseNormalClosure) {
			s.t.Errorf("connection ended with %v, want a normal closure", err)
		}
	case <-time.After(20 * time.Second):
		s.t.Fatal("the connection does not end")
	}
}

func (s *socket) send(channel byte, data string) {
	s.t.Helper()
	if err := s.ws.WriteMessage(websocket.BinaryMessage, append([]byte{channel}, data...)); err != nil {
		s.t.Fatal(err)
	}
}

func TestExecOverWebSocketCarriesStreamsHalfCloseAndExitCode(t *testing.T) {
	noGoroutines(t)
	s := serve(t, newMachine())
	c := dialSocket(t, execURL(t, s, &criapi.ExecRequest{
		Cmd: []string{"sh", "-c", "cat; echo to stderr >&2; exit 3"}, Stdin: true, Stdout: true, Stderr: true,
	}), v5)
	c.read()
	for range 100 {
		c.send(stdinChannel, strings.Repeat("x", 1000))
	}
	c.send(closeSignal, string([]byte{stdinChannel})) // cat ends only if this reaches it
	c.wait()
	if got := len(c.got(stdoutChannel)); got != 100*1000 {
		t.Errorf("stdout has %d bytes, want 100000", got)
	}
	if got := c.got(stderrChannel); got != "to stderr\n" {
		t.Errorf("stderr %q", got)
	}
	if got := c.got(errorChannel); !strings.Contains(got, `"reason":"ExitCode","message":"3"`) {
		t.Errorf("status %s, want exit code 3", got)
	}
}

func TestEveryWebSocketProtocolCarriesOutputAndStatus(t *testing.T) {
	noGoroutines(t)
	s := serve(t, newMachine())
	for _, test := range []struct {
		protocol string
		base64   bool
		status   string
	}{
		{v5, false, `"message":"3"`},
		{"v4.channel.k8s.io", false, `"message":"3"`},
		{"v4.base64.channel.k8s.io", true, `"message":"3"`},
		{"channel.k8s.io", false, "exit code 3"},
		{"base64.channel.k8s.io", true, "exit code 3"},
		{"", false, "exit code 3"},
	} {
		t.Run(test.protocol, func(t *testing.T) {
			var offer []string
			if test.protocol != "" {
				offer = []string{"unknown", test.protocol}
			}
			c := dialSocket(t, execURL(t, s, &criapi.ExecRequest{Cmd: []string{"sh", "-c", "read a; echo got $a; exit 3"}, Stdin: true, Stdout: true}), offer...)
			if got := c.ws.Subprotocol(); got != test.protocol {
				t.Errorf("negotiated %q, want %q", got, test.protocol)
			}
			c.read()
			line := append([]byte{stdinChannel}, "hello\n"...)
			if test.base64 {
				line = []byte("0" + base64.StdEncoding.EncodeToString([]byte("hello\n")))
			}
			if err := c.ws.WriteMessage(websocket.BinaryMessage, line); err != nil {
				t.Fatal(err)
			}
			c.wait()
			if got := c.got(stdoutChannel); got != "got hello\n" {
				t.Errorf("stdout %q", got)
			}
			if got := c.got(errorChannel); !strings.Contains(got, test.status) {
				t.Errorf("status %q, want %s", got, test.status)
			}
		})
	}
}

func TestUpgradesThatCannotBeSayWhy(t *testing.T) {
	noGoroutines(t)
	s := serve(t, newMachine())
	url := func() string { return execURL(t, s, &criapi.ExecRequest{Cmd: []string{"true"}, Stdout: true}) }
	forwardURL := func() string {
		answer, err := s.PortForward(&criapi.PortForwardRequest{PodSandboxId: "p"})
		if err != nil {
			t.Fatal(err)
		}
		return answer.Url
	}
	for _, test := range []struct {
		name   string
		url    string
		header http.Header
		code   int
		says   string
	}{
		{"no upgrade", url(), nil, 400, `upgrade "": want SPDY/3.1 or websocket`},
		{"another upgrade", url(), http.Header{"Connection": {"Upgrade"}, "Upgrade": {"h2c"}}, 400, `upgrade "h2c"`},
		{"SPDY in a protocol we do not speak", url(), http.Header{"Connection": {"Upgrade"}, "Upgrade": {"SPDY/3.1"}, "X-Stream-Protocol-Version": {"v9.channel.k8s.io"}}, 403, `protocol "v9.channel.k8s.io": want one of v4.channel.k8s.io`},
		{"WebSocket in a protocol we do not speak", url(), socketHeader("v9.channel.k8s.io"), 403, `protocol "v9.channel.k8s.io": want one of v5.channel.k8s.io`},
		{"WebSocket without a key", url(), http.Header{"Connection": {"Upgrade"}, "Upgrade": {"websocket"}, "Sec-Websocket-Version": {"13"}}, 400, "Sec-WebSocket-Key"},
		{"WebSocket of another version", url(), http.Header{"Connection": {"Upgrade"}, "Upgrade": {"websocket"}, "Sec-Websocket-Version": {"8"}}, 400, "version"},
		{"a forward without ports and tunnel", forwardURL(), socketHeader(""), 400, "must name the ports"},
		{"a forward in channels without ports", forwardURL(), socketHeader("v4.channel.k8s.io"), 403, "want one of SPDY/3.1+portforward.k8s.io"},
		{"an exec URL asked to forward", strings.Replace(url(), "/exec/", "/portforward/", 1), nil, 404, `not of "portforward"`},
	} {
		request, err := http.NewRequest(http.MethodGet, test.url, nil)
		if err != nil {
			t.Fatal(err)
		}
		if test.header != nil {
			request.Header = test.header
		}
		transport := new(http.Transport)
		answer, err := transport.RoundTrip(request)
		if err != nil {
			t.Errorf("%s: %v", test.name, err)
			continue
		}
		body, _ := io.ReadAll(answer.Body)
		answer.Body.Close()
		transport.CloseIdleConnections()
		if answer.StatusCode != test.code || !strings.Contains(string(body), test.says) {
			t.Errorf("%s: %d %q, want %d and %q", test.name, answer.StatusCode, body, test.code, test.says)
		}
	}
}

func socketHeader(protocol string) http.Header {
	h := http.Header{"Connection": {"Upgrade"}, "Upgrade": {"websocket"}, "Sec-Websocket-Version": {"13"}, "Sec-Websocket-Key": {"AAAAAAAAAAAAAAAAAAAAAA=="}}
	if protocol != "" {
		h.Set("Sec-Websocket-Protocol", protocol)
	}
	return h
}

func TestWebSocketExecDiesWithItsClient(t *testing.T) {
	noGoroutines(t)
	for name, leave := range map[string]func(c *socket){
		"closed":         func(c *socket) { c.ws.Close() },
		"closed in form": func(c *socket) { c.ws.WriteControl(websocket.CloseMessage, nil, time.Now().Add(time.Second)) },
		"a broken frame": func(c *socket) { c.ws.NetConn().Write([]byte("no frame at all")) },
		"a bad signal":   func(c *socket) { c.send(closeSignal, "") },
		"silence":        func(c *socket) { c.ws.SetPingHandler(func(string) error { return nil }); c.read() },
		"closed while nobody reads": func(c *socket) {
			go func() {
				for range 100 {
					if c.ws.WriteMessage(websocket.BinaryMessage, make([]byte, 100<<10)) != nil {
						return
					}
				}
			}()
			time.Sleep(200 * time.Millisecond)
			c.ws.NetConn().Close()
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine()
			s := serveAs(t, m, Config{Address: "127.0.0.1:0"}, func(l *limits) { l.ping, l.silence = 100*time.Millisecond, 2*time.Second })
			c := dialSocket(t, execURL(t, s, &criapi.ExecRequest{Cmd: []string{"sleep", "1000"}, Stdin: true, Stdout: true}), v5)
			pid := <-m.started
			leave(c)
			eventually(t, "the program is dead", func() bool { return syscall.Kill(pid, 0) != nil })
		})
	}
}

// Some clients send a whole file in one message.
func TestMessageOfAnyLengthArrives(t *testing.T) {
	noGoroutines(t)
	s := serve(t, newMachine())
	data := bytes.Repeat([]byte("0123456789abcde\n"), 5<<20/16)
	for protocol, message := range map[string]string{
		v5:                         "\x00" + string(data),
		"v4.base64.channel.k8s.io": "0" + base64.StdEncoding.EncodeToString(data),
	} {
		c := dialSocket(t, execURL(t, s, &criapi.ExecRequest{Cmd: []string{"sh", "-c", "head -c 5242880 | md5sum"}, Stdin: true, Stdout: true}), protocol)
		c.read()
		if err := c.ws.WriteMessage(websocket.BinaryMessage, []byte(message)); err != nil {
			t.Fatal(err)
		}
		c.wait()
		if got, want := c.got(stdoutChannel), fmt.Sprintf("%x", md5.Sum(data)); !strings.HasPrefix(got, want) {
			t.Errorf("%s: the program got what sums to %q, want %s", protocol, got, want)
		}
	}
}

func TestWebSocketLivesOnWhileItsProgramTakesNoInput(t *testing.T) {
	noGoroutines(t)
	m := newMachine()
	s := serveAs(t, m, Config{Address: "127.0.0.1:0"}, func(l *limits) { l.ping, l.silence = 100*time.Millisecond, time.Second })
	c := dialSocket(t, execURL(t, s, &criapi.ExecRequest{Cmd: []string{"sh", "-c", "sleep 4; wc -c"}, Stdin: true, Stdout: true}), v5)
	// A client that hears nothing for a second leaves, as kubectl does after a minute.
	c.ws.SetReadDeadline(time.Now().Add(time.Second))
	alive := func(string) error { return c.ws.SetReadDeadline(time.Now().Add(time.Second)) }
	c.ws.SetPongHandler(alive)
	answer := c.ws.PingHandler()
	c.ws.SetPingHandler(func(text string) error { alive(""); return answer(text) })
	c.read()
	const total = 4 * queueLimit // more than any queue holds
	for range total / (32 << 10) {
		c.send(stdinChannel, strings.Repeat("x", 32<<10))
	}
	c.send(closeSignal, string([]byte{stdinChannel}))
	c.wait()
	if got := strings.TrimSpace(c.got(stdoutChannel)); got != fmt.Sprint(total) {
		t.Errorf("the program got %q bytes, want %d", got, total)
	}
}

func TestTerminalSizesOverWebSocket(t *testing.T) {
	noGoroutines(t)
	m := newMachine()
	s := serve(t, m)
	c := dialSocket(t, execURL(t, s, &criapi.ExecRequest{Cmd: []string{"sh", "-c", "read x; echo $x"}, Stdin: true, Stdout: true, Tty: true}), v5)
	c.read()
	c.send(sizeChannel, `{"Width":120,"Hei`) // a stream, cut anywhere
	c.send(sizeChannel, `ght":40}{"Width":1,"Height":2}`)
	for _, want := range []string{"120x40", "1x2"} {
		if got := <-m.sizes; got != want {
			t.Errorf("size %s, want %s", got, want)
		}
	}
	c.send(sizeChannel, `{"Width":-1}`) // no more sizes, and nothing else
	c.send(stdinChannel, "on\n")
	c.wait()
	if got := c.got(stdoutChannel); got != "on\n" {
		t.Errorf("terminal says %q", got)
	}
}

func TestExitStatusReachesAClientThatStillSends(t *testing.T) {
	noGoroutines(t)
	s := serve(t, newMachine())
	for range 20 {
		c := dialSocket(t, execURL(t, s, &criapi.ExecRequest{Cmd: []string{"sh", "-c", "exit 7"}, Stdin: true, Stdout: true}), v5)
		go func() {
			for c.ws.WriteMessage(websocket.BinaryMessage, make([]byte, 1000)) == nil {
			}
		}()
		c.read()
		c.wait()
		if got := c.got(errorChannel); !strings.Contains(got, `"message":"7"`) {
			t.Fatalf("status %q, want exit code 7", got)
		}
	}
}

func TestSlowClientGetsAllTheOutput(t *testing.T) {
	noGoroutines(t)
	s := serve(t, newMachine())
	c := dialSocket(t, execURL(t, s, &criapi.ExecRequest{Cmd: []string{"head", "-c", "20000000", "/dev/zero"}, Stdout: true}), v5)
	time.Sleep(2*quiet + time.Second) // the program can do nothing until we read
	c.read()
	c.wait()
	if got := len(c.got(stdoutChannel)); got != 20000000 {
		t.Errorf("%d bytes, want 20000000", got)
	}
}

func TestAttachOverWebSocketEndsWithTheContainer(t *testing.T) {
	noGoroutines(t)
	m := newMachine()
	s := serve(t, m)
	answer, err := s.Attach(&criapi.AttachRequest{ContainerId: "c", Stdin: true, Stdout: true})
	if err != nil {
		t.Fatal(err)
	}
	c := dialSocket(t, answer.Url, v5)
	c.read()
	v := <-m.views
	c.send(stdinChannel, "hello")
	c.send(closeSignal, string([]byte{stdinChannel}))
	<-v.stdinEnded
	v.end()
	c.wait()
	if got := c.got(stdoutChannel); got != "hello" {
		t.Errorf("stdout %q, want hello", got)
	}
	if got := c.got(errorChannel); !strings.Contains(got, "Success") {
		t.Errorf("status %s", got)
	}
}

func TestPortForwardThroughATunnel(t *testing.T) {
	noGoroutines(t)
	m := newMachine()
	ns, l := podNetwork(t, listenOn(t, "127.0.0.1:0"))
	m.ns = ns
	go answerAfterEnd(l)
	answer, err := serve(t, m).PortForward(&criapi.PortForwardRequest{PodSandboxId: "p"})
	if err != nil {
		t.Fatal(err)
	}
	ws, _, err := tryDial(answer.Url, "SPDY/3.1+portforward.k8s.io")
	if err != nil {
		t.Fatal(err)
	}
	raw := newTunnel(t.Context(), ws, defaultLimits)
	conn, err := spdy.NewClientConnection(raw)
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	c := &client{t, raw, conn}
	for range 20 {
		errors, data := c.port(l)
		for range 50 {
			data.Write(make([]byte, 4000))
		}
		data.Close()
		if got := text(t, data); got != "200000 bytes" {
			t.Errorf("answer %q, want 200000 bytes", got)
		}
		if got := text(t, errors); got != "" {
			t.Errorf("error stream says %q", got)
		}
	}
}

func TestPortForwardOverChannels(t *testing.T) {
	noGoroutines(t)
	m := newMachine()
	ns, l := podNetwork(t, listenOn(t, "127.0.0.1:0"))
	m.ns = ns
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				// As plain ones: between two sockets Go keeps a pipe for later.
				io.Copy(struct{ io.Writer }{conn}, struct{ io.Reader }{conn})
				conn.Close()
			}()
		}
	}()
	port := uint16(l.Addr().(*net.TCPAddr).Port)
	answer, err := serve(t, m).PortForward(&criapi.PortForwardRequest{PodSandboxId: "p", Port: []int32{int32(port), 1}})
	if err != nil {
		t.Fatal(err)
	}
	c := dialSocket(t, answer.Url, "v4.channel.k8s.io")
	c.read()
	c.send(0, "echo")
	name := string([]byte{byte(port), byte(port >> 8)})
	eventually(t, "the echo", func() bool { return c.got(0) == name+"echo" })
	eventually(t, "the error of the other port", func() bool { return strings.Contains(c.got(3), "connection refused") })
	if got := c.got(1); got != name {
		t.Errorf("errors of the first port: %q", got)
	}
}

func TestOneStuckForwardLeavesTheOthers(t *testing.T) {
	noGoroutines(t)
	m := newMachine()
	ns, l := podNetwork(t, listenOn(t, "127.0.0.1:0"))
	m.ns = ns
	accepted := make(chan net.Conn, 10)
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			accepted <- conn
		}
	}()
	c := forward(t, serve(t, m))
	_, stuck := c.port(l)
	defer (<-accepted).Close() // it reads nothing
	_, live := c.port(l)
	other := <-accepted
	defer other.Close()
	for range queueLimit / (64 << 10) { // the kernel takes some, the queue the rest
		if _, err := stuck.Write(make([]byte, 64<<10)); err != nil {
			t.Fatal(err)
		}
	}
	io.WriteString(live, "ping")
	buffer := make([]byte, 4)
	other.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := io.ReadFull(other, buffer); err != nil || string(buffer) != "ping" {
		t.Fatalf("the other stream got %q, %v; want ping", buffer, err)
	}
	stuck.Reset() // must end it although its program still reads nothing
	if _, err := io.WriteString(other, "pong"); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(live, buffer); err != nil || string(buffer) != "pong" {
		t.Fatalf("the other stream answers %q, %v; want pong", buffer, err)
	}
}
