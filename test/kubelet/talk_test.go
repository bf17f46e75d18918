package kubelet

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"k8s.io/streaming/pkg/httpstream"
)

// TestTalkWithPodsThroughTheKubelet is what kubectl does, without an API server
// between.
func TestTalkWithPodsThroughTheKubelet(t *testing.T) {
	n := start(t)
	n.add("talk")
	n.ready("talk")
	for protocol := range protocols {
		for name, scenario := range map[string]func(*node, string){
			"ExecCarriesInputOutputAndExitCode":     execStreams,
			"ExecOfNothingSaysWhy":                  execNothing,
			"ExecWithATerminalFollowsItsSize":       execTerminal,
			"AttachReachesTheFirstProcess":          attachStreams,
			"AttachToATerminalFollowsItsSize":       attachTerminal,
			"PortForwardReachesThePodAndSaysWhyNot": portForward,
		} {
			t.Run(name+"Over"+protocol, func(t *testing.T) {
				own := *n
				own.t = t
				scenario(&own, protocol)
			})
		}
	}
	t.Run("FollowedLogEndsWithItsContainer", func(t *testing.T) {
		own := *n
		own.t = t
		followedLog(&own)
	})
	n.remove("talk")
}

func execStreams(n *node, protocol string) {
	const size = 300_000 // more than any pipe holds
	s := n.open(protocol, "exec", "talk", "main", "stdin stdout stderr", "sh", "-c", "cat; echo aside >&2; exit 42")
	for range size / 1000 {
		s.send("stdin", strings.Repeat("x", 1000))
	}
	s.close("stdin") // cat ends only by this
	if status := s.wait(); !strings.Contains(status, `"reason":"ExitCode","message":"42"`) {
		n.t.Errorf("status %s, want the exit code 42", status)
	}
	if got := len(s.got("stdout")); got != size {
		n.t.Errorf("%d bytes came back, want %d", got, size)
	}
	if got := s.got("stderr"); got != "aside\n" {
		n.t.Errorf("stderr %q", got)
	}
}

func execNothing(n *node, protocol string) {
	s := n.open(protocol, "exec", "talk", "main", "stdout stderr", "/no/such/program")
	if status := s.wait(); !strings.Contains(status, "/no/such/program") || !strings.Contains(status, "Failure") {
		n.t.Errorf("status %s, want a failure that names the program", status)
	}
}

func execTerminal(n *node, protocol string) {
	s := n.open(protocol, "exec", "talk", "main", "stdin stdout resize", "sh", "-c", "while read line; do echo =$line; stty size; done; exit 3")
	resizeUntilSeen(s)
	s.send("stdin", "\x04") // the end, as a terminal says it
	if status := s.wait(); !strings.Contains(status, `"message":"3"`) {
		n.t.Errorf("status %s, want the exit code 3", status)
	}
}

// resizeUntilSeen changes the size of a terminal in which a shell tells it for
// each line.
func resizeUntilSeen(s *streams) {
	s.t.Helper()
	for _, size := range []struct{ width, height int }{{97, 31}, {132, 43}} {
		s.send("resize", fmt.Sprintf(`{"Width":%d,"Height":%d}`, size.width, size.height))
		want := fmt.Sprintf("%d %d\r\n", size.height, size.width)
		for end := time.Now().Add(patience); !strings.Contains(s.got("stdout"), want); time.Sleep(200 * time.Millisecond) {
			s.send("stdin", "line\n") // a size and a line take different ways
			if time.Now().After(end) {
				s.t.Fatalf("terminal says %q, want %q", s.got("stdout"), want)
			}
		}
	}
	s.until("stdout", "=line\r\n")
}

func attachStreams(n *node, protocol string) {
	s := n.open(protocol, "attach", "talk", "main", "stdin stdout stderr")
	s.send("stdin", protocol+"\n")
	s.until("stdout", "got "+protocol+"\n")
	s.until("stderr", "aside "+protocol+"\n")
	s.leave()
	<-s.ended
	if c, err := n.ready("talk").container("main"); err != nil || c.RestartCount != 0 {
		n.t.Errorf("after the client left: %v, %+v", err, c)
	}
}

func attachTerminal(n *node, protocol string) {
	s := n.open(protocol, "attach", "talk", "terminal", "stdin stdout resize")
	resizeUntilSeen(s)
	s.leave()
	<-s.ended
}

func portForward(n *node, protocol string) {
	connection := n.forward(protocol, "talk")
	for id := range 20 {
		problem, data := openPort(n.t, connection, id, 80)
		fmt.Fprint(data, "GET /index.html HTTP/1.0\r\n\r\n")
		answer := readAll(n.t, data)
		if !strings.Contains(answer, "200 OK") || !strings.HasSuffix(answer, "hello\n") {
			n.t.Errorf("forward %d: answer %q", id, answer)
		}
		data.Close() // the pod ends what it sends, the client what it sends
		if got := readAll(n.t, problem); got != "" {
			n.t.Errorf("forward %d: error %q", id, got)
		}
	}
	problem, _ := openPort(n.t, connection, 100, 81)
	if got := readAll(n.t, problem); !strings.Contains(got, "81") || !strings.Contains(got, "refused") {
		n.t.Errorf("error for a port on which nobody listens: %q", got)
	}
}

func openPort(t *testing.T, connection httpstream.Connection, id, port int) (problem, data httpstream.Stream) {
	t.Helper()
	open := func(kind string) httpstream.Stream {
		stream, err := connection.CreateStream(http.Header{
			"Streamtype": {kind}, "Port": {fmt.Sprint(port)}, "Requestid": {fmt.Sprint(id)}})
		if err != nil {
			t.Fatalf("stream %s for port %d: %v", kind, port, err)
		}
		return stream
	}
	problem = open("error")
	problem.Close() // it is only read
	return problem, open("data")
}

func readAll(t *testing.T, r io.Reader) string {
	t.Helper()
	data, err := io.ReadAll(r)
	if err != nil {
		t.Error(err)
	}
	return string(data)
}

func followedLog(n *node) {
	n.add("finite")
	n.until("finite", "running", func(p *pod) bool {
		c, err := p.container("main")
		return err == nil && c.State.Running != nil
	})
	begin := time.Now()
	var want strings.Builder
	for i := range 100 {
		fmt.Fprintf(&want, "line %d\n", i)
	}
	if got := n.logs("finite", "main", "follow=true"); got != want.String() {
		n.t.Errorf("followed log %q", got)
	}
	if took := time.Since(begin); took < time.Second {
		n.t.Errorf("the log came within %s: it was not followed", took)
	}
	n.remove("finite")
}
