package node

import (
	"io"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// channel is one channel of a WebSocket as a stream.
type channel struct {
	ws   *websocket.Conn
	from byte
	rest []byte
}

func (d *daemon) webSocket(url string, from byte) *channel {
	d.t.Helper()
	dialer := websocket.Dialer{Subprotocols: []string{"v5.channel.k8s.io"}}
	ws, _, err := dialer.Dial("ws"+strings.TrimPrefix(url, "http"), nil)
	if err != nil {
		d.t.Fatal(err)
	}
	ws.SetReadDeadline(time.Now().Add(2 * patience))
	return &channel{ws: ws, from: from}
}

func (c *channel) Read(p []byte) (int, error) {
	for len(c.rest) == 0 {
		_, message, err := c.ws.ReadMessage()
		if websocket.IsCloseError(err, websocket.CloseNormalClosure) {
			return 0, io.EOF
		}
		if err != nil {
			return 0, err
		}
		if message[0] == c.from {
			c.rest = message[1:]
		}
	}
	n := copy(p, c.rest)
	c.rest = c.rest[n:]
	return n, nil
}

func (c *container) attachWebSocket() *channel {
	c.d.t.Helper()
	answer, err := c.d.Attach(c.d.context(), &criapi.AttachRequest{ContainerId: c.id, Stdin: true, Stdout: true})
	if err != nil {
		c.d.t.Fatal(err)
	}
	return c.d.webSocket(answer.Url, 1)
}

func TestAllWhoAreAttachedGetAllTheOutput(t *testing.T) {
	d := ready(t)
	p := d.runPod("audience")
	config := containerConfig("speaker", "sh", "-c", "while read n; do seq $n; done")
	config.Stdin = true
	c := p.run(config)
	a, streams := c.attach(false)
	defer a.close()
	b, more := c.attach(false)
	defer b.close()
	x, y := c.attachWebSocket(), c.attachWebSocket()
	defer x.ws.Close()
	defer y.ws.Close()
	listeners := []io.Reader{streams[1], more[1], x, y}

	// The answer to one word shows that all are attached.
	for _, in := range []func(string){
		func(s string) { io.WriteString(streams[0], s) },
		func(s string) { io.WriteString(more[0], s) },
		func(s string) { x.ws.WriteMessage(websocket.BinaryMessage, []byte("\x00"+s)) },
		func(s string) { y.ws.WriteMessage(websocket.BinaryMessage, []byte("\x00"+s)) },
	} {
		in("1\n")
	}
	readUntil(t, y, "1\n1\n1\n1\n")
	io.WriteString(streams[0], "30000\n")
	var want strings.Builder
	for i := range 30000 {
		want.WriteString(strconv.Itoa(i + 1))
		want.WriteByte('\n')
	}
	for i, r := range listeners {
		got := readUntil(t, r, "\n29999\n30000\n")
		if !strings.HasSuffix(got, want.String()) {
			t.Errorf("listener %d got %d bytes that do not end with the %d that were said", i, len(got), want.Len())
		}
	}
	a.close()
	b.close()
	x.ws.Close()
	y.ws.Close()
	z := c.attachWebSocket()
	defer z.ws.Close()
	z.ws.WriteMessage(websocket.BinaryMessage, []byte("\x002\n"))
	if got := readUntil(t, z, "2\n"); got != "1\n2\n" {
		t.Errorf("after all had left came %q, want 1 and 2", got)
	}
	p.remove()
}

func TestStdinOnceEndsWithItsFirstClient(t *testing.T) {
	d := ready(t)
	p := d.runPod("once")
	for name, leave := range map[string]func(*channel){
		"half-close": func(c *channel) { c.ws.WriteMessage(websocket.BinaryMessage, []byte{255, 0}) },
		"gone":       func(c *channel) { c.ws.Close() },
	} {
		config := containerConfig(name, "sh", "-c", "cat; exit 9")
		config.Stdin, config.StdinOnce = true, true
		c := p.run(config)
		s := c.attachWebSocket()
		s.ws.WriteMessage(websocket.BinaryMessage, []byte("\x00words\n"))
		readUntil(t, s, "words\n")
		leave(s)
		if status := c.exited(); status.ExitCode != 9 {
			t.Errorf("%s: exit code %d, want 9", name, status.ExitCode)
		}
		s.ws.Close()
	}
	p.remove()
}

func TestExecOverWebSocket(t *testing.T) {
	d := ready(t)
	p := d.runPod("web")
	c := p.run(containerConfig("c", "sleep", "1000"))
	exec := func(tty bool, args ...string) *channel {
		answer, err := d.Exec(d.context(), &criapi.ExecRequest{ContainerId: c.id, Cmd: args, Stdin: true, Stdout: true, Tty: tty})
		if err != nil {
			t.Fatal(err)
		}
		return d.webSocket(answer.Url, 1)
	}
	x := exec(false, "sh", "-c", "cat; exit 4")
	x.ws.WriteMessage(websocket.BinaryMessage, []byte("\x00through the socket"))
	x.ws.WriteMessage(websocket.BinaryMessage, []byte{255, 0})
	if got := readAll(t, x); got != "through the socket" {
		t.Errorf("exec said %q", got)
	}
	x.ws.Close()

	x = exec(true, "sh", "-c", "exit 4")
	x.from = 3
	if got := readAll(t, x); !strings.Contains(got, `"message":"4"`) {
		t.Errorf("exec ended with %q, want exit code 4", got)
	}
	x.ws.Close()

	x = exec(true, "sh", "-c", "sleep 0.2; stty size")
	x.ws.WriteMessage(websocket.BinaryMessage, []byte("\x04{\"Width\":123,\"Height\":45}"))
	if got := readAll(t, x); got != "45 123\r\n" {
		t.Errorf("terminal said %q, want 45 123", got)
	}
	x.ws.Close()
	p.remove()
}
