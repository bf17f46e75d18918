package stream

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// A server whose memory is measured is a process of its own.
const ownProcess = "CRI_MINI_TEST_STREAM_SERVER"

// serveParent answers each line, a verb, with the URL of a request, until its
// input ends. Of port-forward the first port is of a program that takes no
// connections, and so reads nothing.
func serveParent() {
	s, err := Listen(Config{Address: "127.0.0.1:0"})
	if err != nil {
		panic(err)
	}
	go s.Serve(newMachine())
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		url := ""
		if lines.Text() == "attach" {
			var answer *criapi.AttachResponse
			if answer, err = s.Attach(&criapi.AttachRequest{ContainerId: "c", Stdin: true, Stdout: true}); err == nil {
				url = answer.Url
			}
		} else {
			var answer *criapi.PortForwardResponse
			if answer, err = s.PortForward(&criapi.PortForwardRequest{PodSandboxId: "p"}); err == nil {
				url = answer.Url
			}
		}
		if err != nil {
			panic(err)
		}
		fmt.Println(url)
	}
}

// ask is the URL of a request to the server of its own.
type asking struct {
	in  io.Writer
	out *bufio.Reader
}

func (a asking) url(t *testing.T, verb string) string {
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
	const most = 8 << 20
	chunk := make([]byte, 64<<10)
	attacks := []func() (net.Conn, func() error){
		func() (net.Conn, func() error) { // one frame
			conn := openRaw(t, ask.url(t, "attach"), "error", "stdout", "stdin")
			conn.Write([]byte{0, 0, 0, 5, 0, 0xff, 0xff, 0xff})
			return conn, func() error { _, err := conn.Write(chunk); return err }
		},
		func() (net.Conn, func() error) { // many frames
			conn := openRaw(t, ask.url(t, "attach"), "error", "stdout", "stdin")
			to := frames{conn, 5}
			return conn, func() error { _, err := to.Write(chunk); return err }
		},
		func() (net.Conn, func() error) { // many streams
			const forwards = 20
			conn := upgradeRaw(t, ask.url(t, "portforward"), forwardProtocol)
			conn.Write(openStreams(t, forwardHeaders(l, forwards)...))
			i := 0
			return conn, func() error {
				i = (i + 1) % forwards
				_, err := frames{conn, byte(4*i + 3)}.Write(chunk)
				return err
			}
		},
		func() (net.Conn, func() error) { // one message
			ws, _, err := tryDial(ask.url(t, "attach"), v5)
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
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", server.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	var peak int
	_, after, _ := strings.Cut(string(status), "VmHWM:")
	if _, err := fmt.Sscan(after, &peak); err != nil {
		t.Fatalf("VmHWM in %q: %v", status, err)
	}
	t.Logf("%d clients that sent up to %d MiB each: at most %d MiB resident", clients, most>>20, peak>>10)
	if peak>>10 > 768 {
		t.Errorf("%d MiB resident, want at most 768", peak>>10)
	}
}
