package stream

import (
	"io"
	"net"
	"strings"
	"testing"
	"time"

	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Whoever opens connections and says nothing makes way for who has a token.
func TestConnectionsWithoutATokenKeepNobodyOut(t *testing.T) {
	noGoroutines(t)
	s := serve(t, newMachine())
	conns := make([]net.Conn, maxWaiting+100)
	for i := range conns {
		c, err := net.Dial("tcp", s.Address())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := io.WriteString(c, "GET /exec/x HTTP/1.1\r\nHost: "); err != nil {
			t.Fatal(err)
		}
		conns[i] = c
	}
	ended := func(c net.Conn, within time.Duration) bool {
		if err := c.SetReadDeadline(time.Now().Add(within)); err != nil {
			t.Fatal(err)
		}
		_, err := c.Read(make([]byte, 1))
		timeout, ok := err.(net.Error)
		return err != nil && !(ok && timeout.Timeout())
	}
	if !ended(conns[0], 5*time.Second) {
		t.Error("the oldest connection is still open")
	}
	if ended(conns[len(conns)-1], 50*time.Millisecond) {
		t.Error("the newest connection was ended")
	}
	c := dialURL(t, execURL(t, s, &criapi.ExecRequest{Cmd: []string{"echo", "hello"}, Stdout: true}), v4)
	status, out := c.stream("streamType", "error"), c.stream("streamType", "stdout")
	if got := text(t, out); got != "hello\n" {
		t.Errorf("exec beside them: %q", got)
	}
	if got := text(t, status); !strings.Contains(got, "Success") {
		t.Errorf("status %s", got)
	}
}
