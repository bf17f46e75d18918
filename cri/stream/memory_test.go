package stream

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	goruntime "runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// A server whose memory is measured is a process of its own.
const ownProcess = "CRI_MINI_TEST_STREAM_SERVER"

// serveParent answers each line, a verb, with the URL of a request, until its
// input ends; and "memory" with the bytes that it has in use.
func serveParent() {
	s, err := Listen(Config{Address: "127.0.0.1:0"})
	if err != nil {
		panic(err)
	}
	go s.Serve(newMachine())
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		var answer interface{ GetUrl() string }
		switch lines.Text() {
		case "attach":
			answer, err = s.Attach(&criapi.AttachRequest{ContainerId: "c", Stdin: true, Stdout: true})
		case "portforward":
			answer, err = s.PortForward(&criapi.PortForwardRequest{PodSandboxId: "p"})
		default:
			var m goruntime.MemStats
			goruntime.GC()
			goruntime.ReadMemStats(&m)
			fmt.Println(m.HeapInuse + m.StackInuse)
			continue
		}
		if err != nil {
			panic(err)
		}
		fmt.Println(answer.GetUrl())
	}
}

type asking struct {
	in  io.Writer
	out *bufio.Reader
}

func (a asking) answer(t *testing.T, verb string) string {
	t.Helper()
	if _, err := fmt.Fprintln(a.in, verb); err != nil {
		t.Fatal(err)
	}
	line, err := a.out.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(line)
}

func TestTwoHundredHostileClientsCostLittle(t *testing.T) {
	noGoroutines(t)
	server := exec.Command("/proc/self/exe")
	server.Env = append(os.Environ(), ownProcess+"=1")
	server.Stderr = os.Stderr
	in, err := server.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := server.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		in.Close()
		server.Wait()
	}()
	ask := asking{in, bufio.NewReader(out)}
	l := listenOn(t, "127.0.0.1:0")() // who connects is never accepted
	defer l.Close()

	// What one sends, besides what is small, is more than it may have there.
	const most = 2 << 20
	chunk := make([]byte, 64<<10)
	attacks := []func() (net.Conn, func() error){
		func() (net.Conn, func() error) { // one frame
			conn := openRaw(t, ask.answer(t, "attach"), "error", "stdout", "stdin")
			conn.Write([]byte{0, 0, 0, 5, 0, 0xff, 0xff, 0xff})
			return conn, func() error { _, err := conn.Write(chunk); return err }
		},
		func() (net.Conn, func() error) { // many frames
			conn := openRaw(t, ask.answer(t, "attach"), "error", "stdout", "stdin")
			to := frames{conn, 5}
			return conn, func() error { _, err := to.Write(chunk); return err }
		},
		func() (net.Conn, func() error) { // many streams
			const forwards = 10
			conn := upgradeRaw(t, ask.answer(t, "portforward"), forwardProtocol)
			conn.Write(openStreams(t, forwardHeaders(l, forwards)...))
			i := 0
			return conn, func() error {
				i = (i + 1) % forwards
				_, err := frames{conn, byte(4*i + 3)}.Write(chunk)
				return err
			}
		},
		func() (net.Conn, func() error) { // one message
			ws, _, err := tryDial(ask.answer(t, "attach"), v5)
			if err != nil {
				t.Fatal(err)
			}
			w, err := ws.NextWriter(websocket.BinaryMessage)
			if err != nil {
				t.Fatal(err)
			}
			w.Write([]byte{stdinChannel})
			return ws.NetConn(), func() error {
				ws.SetWriteDeadline(time.Now().Add(2 * time.Second))
				_, err := w.Write(chunk)
				return err
			}
		},
	}
	done := make(chan struct{})
	const clients = 200
	for i := range clients {
		conn, send := attacks[i%len(attacks)]()
		defer conn.Close()
		go func() {
			for sent := 0; sent < most; sent += len(chunk) {
				conn.SetWriteDeadline(time.Now().Add(2 * time.Second))
				if send() != nil {
					break
				}
			}
			done <- struct{}{}
		}()
	}
	for range clients {
		<-done
	}
	// What the detector of races takes is not counted.
	inUse, err := strconv.Atoi(ask.answer(t, "memory"))
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d clients that sent up to %d MiB each: %d MiB in use", clients, most>>20, inUse>>20)
	if inUse>>20 > 400 {
		t.Errorf("%d MiB in use, want at most 400", inUse>>20)
	}
}
