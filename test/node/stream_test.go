package node

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"strconv"
	"testing"
	"time"

	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/streaming/pkg/httpstream"
	"k8s.io/streaming/pkg/httpstream/spdy"
)

// conversation is one streaming connection, as kubelet and crictl make it.
type conversation struct {
	t    *testing.T
	conn httpstream.Connection
	end  httpstream.Stream // tells how it went
}

func converse(t *testing.T, url, protocol string) *conversation {
	t.Helper()
	request, err := http.NewRequest(http.MethodPost, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Connection", "Upgrade")
	request.Header.Set("Upgrade", "SPDY/3.1")
	request.Header.Set("X-Stream-Protocol-Version", protocol)
	raw, err := net.Dial("tcp", request.URL.Host)
	if err != nil {
		t.Fatal(err)
	}
	if err := raw.SetDeadline(time.Now().Add(2 * patience)); err != nil {
		t.Fatal(err)
	}
	if err := request.Write(raw); err != nil {
		t.Fatal(err)
	}
	answer, err := http.ReadResponse(bufio.NewReader(raw), request)
	if err != nil {
		t.Fatal(err)
	}
	if answer.StatusCode != http.StatusSwitchingProtocols {
		raw.Close()
		t.Fatalf("%s: status %d, want an upgrade", url, answer.StatusCode)
	}
	conn, err := spdy.NewClientConnection(raw)
	if err != nil {
		t.Fatal(err)
	}
	return &conversation{t: t, conn: conn}
}

func (c *conversation) close() { c.conn.Close() }

func (c *conversation) stream(headers ...string) httpstream.Stream {
	c.t.Helper()
	h := http.Header{}
	for i := 0; i < len(headers); i += 2 {
		h.Set(headers[i], headers[i+1])
	}
	s, err := c.conn.CreateStream(h)
	if err != nil {
		c.t.Fatalf("stream %v: %v", headers, err)
	}
	return s
}

const remoteCommand = "v4.channel.k8s.io"

// streams opens those of a command, the one for its end first.
func (c *conversation) streams(names ...string) []httpstream.Stream {
	c.t.Helper()
	c.end = c.stream("streamType", "error")
	var all []httpstream.Stream
	for _, name := range names {
		all = append(all, c.stream("streamType", name))
	}
	return all
}

// interactive is an exec with its streams.
func (c *container) interactive(tty bool, streams []string, args ...string) (*conversation, []httpstream.Stream) {
	c.d.t.Helper()
	request := &criapi.ExecRequest{ContainerId: c.id, Cmd: args, Tty: tty}
	for _, name := range streams {
		switch name {
		case "stdin":
			request.Stdin = true
		case "stdout":
			request.Stdout = true
		case "stderr":
			request.Stderr = true
		}
	}
	answer, err := c.d.Exec(c.d.context(), request)
	if err != nil {
		c.d.t.Fatal(err)
	}
	conversation := converse(c.d.t, answer.Url, remoteCommand)
	return conversation, conversation.streams(streams...)
}

func (c *container) attach(tty bool) (*conversation, []httpstream.Stream) {
	c.d.t.Helper()
	answer, err := c.d.Attach(c.d.context(), &criapi.AttachRequest{ContainerId: c.id, Stdin: true, Stdout: true, Tty: tty})
	if err != nil {
		c.d.t.Fatal(err)
	}
	conversation := converse(c.d.t, answer.Url, remoteCommand)
	return conversation, conversation.streams("stdin", "stdout")
}

// forward opens a connection to a port of the pod.
func (p *pod) forward(port int) (*conversation, httpstream.Stream) {
	p.d.t.Helper()
	answer, err := p.d.PortForward(p.d.context(), &criapi.PortForwardRequest{PodSandboxId: p.id, Port: []int32{int32(port)}})
	if err != nil {
		p.d.t.Fatal(err)
	}
	c := converse(p.d.t, answer.Url, "portforward.k8s.io")
	c.end = c.stream("streamType", "error", "port", strconv.Itoa(port), "requestID", "1")
	return c, c.stream("streamType", "data", "port", strconv.Itoa(port), "requestID", "1")
}

func readAll(t *testing.T, r io.Reader) string {
	t.Helper()
	data, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// readUntil reads until what came ends with text.
func readUntil(t *testing.T, r io.Reader, text string) string {
	t.Helper()
	var got []byte
	for one := make([]byte, 1); len(got) < len(text) || string(got[len(got)-len(text):]) != text; {
		if _, err := r.Read(one); err != nil {
			t.Fatalf("after %q, waiting for %q: %v", got, text, err)
		}
		got = append(got, one[0])
	}
	return string(got)
}
