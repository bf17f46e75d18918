package stream

import (
	"bytes"
	"crypto/md5"
	"fmt"
	"io"
	"net"
	"net/http"
	goruntime "runtime"
	"strings"
	"testing"
	"time"

	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func TestLongFramesArriveWholeAndCostLittle(t *testing.T) {
	noGoroutines(t)
	m := newMachine()
	s := serve(t, m)
	c := dialURL(t, execURL(t, s, &criapi.ExecRequest{Cmd: []string{"md5sum"}, Stdin: true, Stdout: true}), v4)
	c.stream("streamType", "error")
	out, in := c.stream("streamType", "stdout"), c.stream("streamType", "stdin")
	data := bytes.Repeat([]byte("0123456789abcde\n"), 15<<20/16)
	if _, err := in.Write(data); err != nil { // one frame
		t.Fatal(err)
	}
	in.Close()
	if got, want := text(t, out), fmt.Sprintf("%x", md5.Sum(data)); !strings.HasPrefix(got, want) {
		t.Errorf("the program got what sums to %s, want %s", got, want)
	}

	<-m.started

	// The length alone takes no memory.
	var before, after goruntime.MemStats
	goruntime.ReadMemStats(&before)
	for range 20 {
		conn := openRaw(t, execURL(t, s, &criapi.ExecRequest{Cmd: []string{"sleep", "1000"}, Stdin: true, Stdout: true}), "error", "stdout", "stdin")
		conn.Write([]byte{0, 0, 0, 5, 0, 0xff, 0xff, 0xff, 'x'})
		<-m.started
	}
	time.Sleep(500 * time.Millisecond) // for the beginning of each frame to come
	goruntime.ReadMemStats(&after)
	if cost := after.TotalAlloc - before.TotalAlloc; cost > 100<<20 {
		t.Errorf("20 lengths cost %d bytes, want at most 100 MiB", cost)
	}
}

// Programs that read nothing hold what is sent to them in bounded room, of one
// client and of all, and keep nobody else from his.
func TestClientsShareTheirRoom(t *testing.T) {
	noGoroutines(t)
	m := newMachine()
	ns, l := podNetwork(t, listenOn(t, "127.0.0.1:0"))
	m.ns = ns
	s := serve(t, m)
	const clients, forwards = 17, 17 // each wants more than a client may have, all more than all may
	var conns []net.Conn
	for range clients {
		answer, err := s.PortForward(&criapi.PortForwardRequest{PodSandboxId: "p"})
		if err != nil {
			t.Fatal(err)
		}
		conn := upgradeRaw(t, answer.Url, forwardProtocol)
		conns = append(conns, conn)
		go io.Copy(io.Discard, conn)
		conn.Write(openStreams(t, forwardHeaders(l, forwards)...))
		go func() { // round and round, so that all fill at the same time
			chunk := make([]byte, 8<<10)
			for i := 0; ; i = (i + 1) % forwards {
				id := 4*i + 3
				if _, err := conn.Write(append([]byte{0, 0, 0, byte(id), 0, 0, byte(len(chunk) >> 8), byte(len(chunk))}, chunk...)); err != nil {
					return
				}
			}
		}()
	}
	go func() { // a program that takes connections and reads nothing
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			defer conn.Close()
		}
	}()
	full := func() bool { return s.room.used.Load() > serverRoom-serverRoom/16 }
	for began := time.Now(); !full() && time.Since(began) < time.Minute; {
		time.Sleep(50 * time.Millisecond)
	}
	if !full() {
		t.Fatalf("%d bytes wait after a minute, want nearly %d", s.room.used.Load(), serverRoom)
	}
	time.Sleep(500 * time.Millisecond)
	if used, most := s.room.used.Load(), int64(serverRoom+clients*forwards*least); used > most {
		t.Errorf("%d bytes wait, want at most %d", used, most)
	}

	c := dialURL(t, execURL(t, s, &criapi.ExecRequest{Cmd: []string{"wc", "-c"}, Stdin: true, Stdout: true}), v4)
	c.stream("streamType", "error")
	out, in := c.stream("streamType", "stdout"), c.stream("streamType", "stdin")
	for range 64 {
		in.Write(make([]byte, 128<<10))
	}
	in.Close()
	if got := strings.TrimSpace(text(t, out)); got != fmt.Sprint(8<<20) {
		t.Errorf("beside them a program got %s bytes, want %d", got, 8<<20)
	}
	for _, conn := range conns {
		conn.Close()
	}
}

// The library refuses a stream that was there before in a goroutine of its own,
// which waits until the client reads; and it keeps the streams that others
// belong to, however long the line of them.
func TestStreamsThatWouldPileUpEndTheConnection(t *testing.T) {
	noGoroutines(t)
	again := openStreams(t, http.Header{"streamtype": {"stdout"}})
	child := bytes.Clone(again)
	child[11], child[15] = 9, 7
	for reason, frame := range map[string][]byte{
		"stream 1, want 9 or above":               again,
		"stream 9 belongs to stream 7, want none": child,
	} {
		log := captureLog(t)
		s := serve(t, newMachine())
		conn := openRaw(t, execURL(t, s, &criapi.ExecRequest{Cmd: []string{"sleep", "1000"}, Stdout: true}), "error", "error", "error", "error")
		conn.Write(frame)
		conn.SetDeadline(time.Now().Add(10 * time.Second))
		io.Copy(io.Discard, conn)
		eventually(t, "the log says why", func() bool { return strings.Contains(log.String(), reason) })
	}
}

// Sizes that make no sense are the end of sizes, and hold nothing else.
func TestSizesThatMakeNoSenseHoldNothing(t *testing.T) {
	noGoroutines(t)
	s := serve(t, newMachine())
	c := dialURL(t, execURL(t, s, &criapi.ExecRequest{Cmd: []string{"head", "-c", "5"}, Stdin: true, Stdout: true, Tty: true}), v4)
	c.stream("streamType", "error")
	in, out := c.stream("streamType", "stdin"), c.stream("streamType", "stdout")
	size := c.stream("streamType", "resize")
	for range 4 * queueLimit / (32 << 10) {
		size.Write(make([]byte, 32<<10))
	}
	io.WriteString(in, "hello")
	if got := text(t, out); got != "hello" {
		t.Errorf("the program says %q, want hello", got)
	}
}
