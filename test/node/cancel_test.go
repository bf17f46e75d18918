package node

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/streaming/pkg/httpstream/spdy"
)

// Stages at which a client of exec or attach leaves.
const (
	beforeConnecting = iota
	afterConnecting
	inTheHandshake
	afterTheHandshake // before the streams of SPDY are open
	withInputUnread
	inTheOutput
	afterHalfClose
	inForm
	stages
)

// vanish is a client that leaves at a stage.
func vanish(url string, stage int, overSPDY bool) error {
	if stage == beforeConnecting {
		return nil
	}
	request, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	conn, err := net.Dial("tcp", request.URL.Host)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(2 * patience)); err != nil {
		return err
	}
	if stage%2 == 0 { // a reset in place of an end
		conn.(*net.TCPConn).SetLinger(0)
	}
	switch stage {
	case afterConnecting:
		return nil
	case inTheHandshake:
		_, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: x\r\nUpgr", request.URL.Path)
		return err
	}
	if overSPDY {
		return vanishSPDY(conn, request, stage)
	}
	return vanishWebSocket(conn, request, stage)
}

func vanishSPDY(raw net.Conn, request *http.Request, stage int) error {
	request.Header = http.Header{"Connection": {"Upgrade"}, "Upgrade": {"SPDY/3.1"}, "X-Stream-Protocol-Version": {remoteCommand}}
	if err := request.Write(raw); err != nil {
		return err
	}
	answer, err := http.ReadResponse(bufio.NewReader(raw), request)
	if err != nil {
		return err
	}
	if answer.StatusCode != http.StatusSwitchingProtocols {
		return fmt.Errorf("answer %s, want an upgrade", answer.Status)
	}
	conn, err := spdy.NewClientConnection(raw)
	if err != nil {
		return err
	}
	defer raw.Close() // before the library says goodbye
	if stage == inForm {
		defer conn.Close()
	}
	names := []string{"error", "stdin", "stdout"}
	if stage == afterTheHandshake {
		names = names[:rand.IntN(len(names))]
	}
	var streams []io.ReadWriteCloser
	for _, name := range names {
		s, err := conn.CreateStream(http.Header{"streamType": {name}})
		if err != nil {
			return fmt.Errorf("stream %s: %w", name, err)
		}
		streams = append(streams, s)
	}
	if stage == afterTheHandshake {
		return nil
	}
	if _, err := io.WriteString(streams[1], "some input\n"); err != nil {
		return err
	}
	if stage == afterHalfClose {
		return streams[1].Close()
	}
	if stage == inTheOutput {
		_, err := io.ReadFull(streams[2], make([]byte, 5))
		return err
	}
	return nil
}

func vanishWebSocket(raw net.Conn, request *http.Request, stage int) error {
	dialer := websocket.Dialer{
		Subprotocols: []string{"v5.channel.k8s.io"},
		NetDial:      func(string, string) (net.Conn, error) { return raw, nil },
	}
	ws, _, err := dialer.Dial("ws"+strings.TrimPrefix(request.URL.String(), "http"), nil)
	if err != nil || stage == afterTheHandshake {
		return err
	}
	if err := raw.SetDeadline(time.Now().Add(2 * patience)); err != nil { // Dial has taken it away
		return err
	}
	if err := ws.WriteMessage(websocket.BinaryMessage, []byte("\x00some input\n")); err != nil {
		return err
	}
	switch stage {
	case afterHalfClose:
		return ws.WriteMessage(websocket.BinaryMessage, []byte{255, 0})
	case inForm:
		return ws.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(websocket.CloseNormalClosure, ""), time.Now().Add(patience))
	case inTheOutput:
		for {
			_, message, err := ws.ReadMessage()
			if err != nil || len(message) > 1 { // not the greeting
				return err
			}
		}
	}
	return nil
}

// vanishMany lets clients leave, each at its own stage. A URL that is not used
// is kept for a minute, and only so many are, so few leave before that.
func (d *daemon) vanishMany(n int, url func(context.Context) (string, error)) {
	d.t.Helper()
	var clients sync.WaitGroup
	failures := make(chan error, n)
	numbers := make(chan int)
	for range 16 {
		clients.Go(func() {
			for i := range numbers {
				stage := afterTheHandshake + i%(stages-afterTheHandshake)
				if i%20 == 0 {
					stage = i / 20 % afterTheHandshake
				}
				ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
				address, err := url(ctx)
				cancel()
				if err == nil {
					err = vanish(address, stage, i/7%2 == 0)
				}
				if err != nil {
					failures <- fmt.Errorf("client %d, stage %d: %w", i, stage, err)
				}
			}
		})
	}
	for i := range n {
		numbers <- i
	}
	close(numbers)
	clients.Wait()
	close(failures)
	var all []error
	for err := range failures {
		all = append(all, err)
	}
	if len(all) > 0 {
		d.t.Fatalf("%d of %d clients had errors, the first: %v", len(all), n, errors.Join(all[:min(len(all), 5)]...))
	}
}

// threads is how many the process has. Go keeps those it once needed.
func threads(t *testing.T, pid int) int {
	t.Helper()
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		t.Fatal(err)
	}
	return len(tasks)
}

// goroutines ends the daemon with a dump and gives those of its streams.
func (d *daemon) goroutines() []string {
	d.t.Helper()
	d.process.Process.Signal(syscall.SIGQUIT)
	<-d.ended
	text := readFile(d.t, d.log())
	d.serve()
	var found []string
	for stack := range strings.SplitSeq(text, "\n\n") {
		if strings.HasPrefix(stack, "goroutine ") && (strings.Contains(stack, "cri/stream") || strings.Contains(stack, "spdystream") || strings.Contains(stack, "websocket")) &&
			!strings.Contains(stack, "(*Server).Serve(") && !strings.Contains(stack, "(*watchedListener).Accept(") {
			found = append(found, stack)
		}
	}
	if !strings.Contains(text, "\ngoroutine ") {
		d.t.Fatal("the daemon has not shown its goroutines")
	}
	return found
}

// TestTenThousandCancelledAttachesLeaveNothing lets clients leave at every
// stage of an attach, and a thousand at every stage of an exec.
func TestTenThousandCancelledAttachesLeaveNothing(t *testing.T) {
	attaches, execs := 10000, 1000
	if testing.Short() {
		attaches, execs = 500, 100
	}
	d := ready(t, "--log-level", "info")
	p := d.runPod("crowd")
	config := containerConfig("echo", "cat")
	config.Stdin = true
	c := p.run(config)
	attach := func(ctx context.Context) (string, error) {
		answer, err := d.Attach(ctx, &criapi.AttachRequest{ContainerId: c.id, Stdin: true, Stdout: true})
		return answer.GetUrl(), err
	}
	exec := func(ctx context.Context) (string, error) {
		answer, err := d.Exec(ctx, &criapi.ExecRequest{ContainerId: c.id, Cmd: []string{"cat"}, Stdin: true, Stdout: true})
		return answer.GetUrl(), err
	}
	// What is needed for so many at a time is kept.
	d.vanishMany(100, attach)
	d.vanishMany(50, exec)
	check := d.unchanged()
	before := map[int]int{d.pid(): threads(t, d.pid()), d.monitor(): threads(t, d.monitor())}

	begin := time.Now()
	d.vanishMany(attaches, attach)
	t.Logf("%d attaches in %v", attaches, time.Since(begin))
	begin = time.Now()
	d.vanishMany(execs, exec)
	t.Logf("%d execs in %v", execs, time.Since(begin))

	check()
	for pid, n := range before {
		// Threads stay as many as were needed at one moment: two for each of
		// the sixteen clients, and not thousands.
		if now := threads(t, pid); now > n+40 {
			t.Errorf("process %d had %d threads and has %d", pid, n, now)
		}
	}
	a, streams := c.attach(false)
	fmt.Fprintln(streams[0], "still here")
	readUntil(t, streams[1], "still here\n")
	a.close()
	time.Sleep(2 * time.Second) // for the last attach to end
	if left := d.goroutines(); len(left) > 0 {
		t.Errorf("%d goroutines of streams are left, the first:\n%s", len(left), left[0])
	}
	c.stop(0)
	p.remove()
}
