package stream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	goruntime "runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"k8s.io/streaming/pkg/httpstream"
)

// podNetwork makes a network namespace with a loopback and runs listen in it.
func podNetwork(t *testing.T, listen func() net.Listener) (*os.File, net.Listener) {
	t.Helper()
	type made struct {
		ns  *os.File
		l   net.Listener
		err error
	}
	done := make(chan made)
	go func() {
		goruntime.LockOSThread() // and never back: the thread ends with us
		m := made{}
		if m.err = unix.Unshare(unix.CLONE_NEWNET); m.err == nil {
			if lo, err := netlink.LinkByName("lo"); err != nil {
				m.err = err
			} else {
				m.err = netlink.LinkSetUp(lo)
			}
			m.l = listen()
			m.ns, _ = os.Open("/proc/thread-self/ns/net")
		}
		done <- m
	}()
	m := <-done
	if m.err != nil {
		t.Fatal(m.err)
	}
	t.Cleanup(func() { m.ns.Close(); m.l.Close() })
	return m.ns, m.l
}

func listenOn(t *testing.T, address string) func() net.Listener {
	return func() net.Listener {
		l, err := net.Listen("tcp", address)
		if err != nil {
			t.Error(err)
		}
		return l
	}
}

// answerAfterEnd answers with the number of bytes once the client has sent all.
func answerAfterEnd(l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer conn.Close()
			n, _ := io.Copy(io.Discard, conn)
			fmt.Fprintf(conn, "%d bytes", n)
		}()
	}
}

func forward(t *testing.T, s *Server) *client {
	t.Helper()
	answer, err := s.PortForward(&criapi.PortForwardRequest{PodSandboxId: "p"})
	if err != nil {
		t.Fatal(err)
	}
	return dialURL(t, answer.Url, "portforward.k8s.io")
}

var requests int

func (c *client) port(l net.Listener) (errors, data httpstream.Stream) {
	requests++
	port := strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
	id := strconv.Itoa(requests)
	errors = c.stream("streamType", "error", "port", port, "requestID", id)
	errors.Close() // as kubectl does: it only reads there
	return errors, c.stream("streamType", "data", "port", port, "requestID", id)
}

func TestPortForwardEntersThePodAndHonoursHalfClose(t *testing.T) {
	noGoroutines(t)
	for _, address := range []string{"127.0.0.1:0", "[::1]:0"} {
		t.Run(address, func(t *testing.T) {
			m := newMachine()
			ns, l := podNetwork(t, listenOn(t, address))
			m.ns = ns
			go answerAfterEnd(l)
			c := forward(t, serve(t, m))
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
		})
	}
}

func TestPortForwardOfHostNetworkPodDialsTheNode(t *testing.T) {
	noGoroutines(t)
	l := listenOn(t, "127.0.0.1:0")()
	defer l.Close()
	go answerAfterEnd(l)
	_, data := forward(t, serve(t, newMachine())).port(l)
	data.Close()
	if got := text(t, data); got != "0 bytes" {
		t.Errorf("answer %q, want 0 bytes", got)
	}
}

func TestPortForwardNamesAPortThatNobodyAnswers(t *testing.T) {
	noGoroutines(t)
	m := newMachine()
	ns, l := podNetwork(t, listenOn(t, "127.0.0.1:0"))
	m.ns = ns
	l.Close()
	errors, _ := forward(t, serve(t, m)).port(l)
	if got := text(t, errors); !strings.Contains(got, "connection refused") || !strings.Contains(got, "127.0.0.1") {
		t.Errorf("error stream says %q, want connection refused on 127.0.0.1", got)
	}
}

func TestResetOfOneForwardLeavesTheOthers(t *testing.T) {
	noGoroutines(t)
	m := newMachine()
	ns, l := podNetwork(t, listenOn(t, "127.0.0.1:0"))
	m.ns = ns
	accepted := make(chan *net.TCPConn, 10)
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			accepted <- conn.(*net.TCPConn)
		}
	}()
	c := forward(t, serve(t, m))
	_, live := c.port(l)
	other := <-accepted
	defer other.Close()

	// The program resets a connection: its stream ends, without an error.
	errors, data := c.port(l)
	victim := <-accepted
	data.Write([]byte("x"))
	io.ReadFull(victim, make([]byte, 1)) // so that the connection is known to be made
	victim.SetLinger(0)
	victim.Close()
	if got := text(t, data) + text(t, errors); got != "" {
		t.Errorf("streams of a reset connection say %q, want nothing", got)
	}

	// The client resets a stream: the program sees its connection end both ways.
	_, data = c.port(l)
	victim = <-accepted
	data.Reset()
	victim.SetDeadline(time.Now().Add(5 * time.Second))
	io.Copy(io.Discard, victim)
	eventually(t, "the program's connection is broken", func() bool {
		_, err := victim.Write([]byte("into the void"))
		return err != nil
	})
	victim.Close()

	io.WriteString(live, "ping")
	buffer := make([]byte, 4)
	other.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := io.ReadFull(other, buffer); err != nil || string(buffer) != "ping" {
		t.Fatalf("the other stream got %q, %v; want ping", buffer, err)
	}
}

func TestForwardsEndWithTheirClient(t *testing.T) {
	noGoroutines(t)
	m := newMachine()
	ns, l := podNetwork(t, listenOn(t, "127.0.0.1:0"))
	m.ns = ns
	var ends []net.Conn
	c := forward(t, serve(t, m))
	for range 20 {
		_, data := c.port(l)
		conn, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		ends = append(ends, conn)
		data.Close() // half closed, and the program does not care
	}
	c.raw.Close()
	for i, conn := range ends {
		conn.SetDeadline(time.Now().Add(10 * time.Second))
		io.Copy(io.Discard, conn)
		eventually(t, fmt.Sprintf("connection %d is broken", i), func() bool {
			_, err := conn.Write([]byte("x"))
			return err != nil
		})
	}
}

// A port whose queue is full answers nobody; waiting for it must cost no thread.
func TestDialsThatNobodyAnswersCostNoThreads(t *testing.T) {
	ns, l := podNetwork(t, func() net.Listener {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err == nil {
			err = unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}})
		}
		if err == nil {
			err = unix.Listen(fd, 0)
		}
		if err != nil {
			t.Error(err)
		}
		file := os.NewFile(uintptr(fd), "listener")
		defer file.Close()
		l, err := net.FileListener(file)
		if err != nil {
			t.Error(err)
		}
		return l
	})
	port := int32(l.Addr().(*net.TCPAddr).Port)
	threads := func() int {
		entries, err := os.ReadDir("/proc/self/task")
		if err != nil {
			t.Fatal(err)
		}
		return len(entries)
	}
	before := threads()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	const dials = 300
	ended := make(chan error, dials)
	for range dials {
		go func() {
			conn, err := dialIn(ctx, ns, port)
			if err == nil {
				defer conn.Close()
				<-ctx.Done() // it keeps its place in the queue
			}
			ended <- err
		}()
	}
	time.Sleep(time.Second)
	if now := threads(); now > before+30 {
		t.Errorf("%d threads with %d dials, %d before", now, dials, before)
	}
	cancel()
	canceled := 0
	for range dials {
		select {
		case err := <-ended:
			if errors.Is(err, context.Canceled) {
				canceled++
			}
		case <-time.After(20 * time.Second):
			t.Fatal("a dial does not end with its caller")
		}
	}
	if canceled < dials-10 {
		t.Errorf("%d of %d dials were waiting, want nearly all: the queue was not full", canceled, dials)
	}
}

func TestForwardsBeyondTheLimitsAreToldWhich(t *testing.T) {
	noGoroutines(t)
	for name, test := range map[string]struct {
		change  func(*limits)
		clients int // with two connections each
		want    string
	}{
		"of one client":   {func(l *limits) { l.clientForwards = 2 }, 1, "2 connections of this client are forwarded already"},
		"of all clients":  {func(l *limits) { l.forwards = 6 }, 3, "6 connections are forwarded already, as many as for all clients"},
		"that are dialed": {func(l *limits) { l.dials = 1 }, 0, "1 connections of all clients wait for their ports already"},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine()
			ns, l := podNetwork(t, listenOn(t, "127.0.0.1:0"))
			m.ns = ns
			go answerAfterEnd(l)
			s := serveAs(t, m, Config{Address: "127.0.0.1:0"}, test.change)
			var open []httpstream.Stream
			c := forward(t, s)
			for i := range test.clients {
				if i > 0 {
					c = forward(t, s)
				}
				for range 2 {
					_, data := c.port(l)
					open = append(open, data)
				}
			}
			if test.clients == 0 {
				s.dials <- struct{}{} // as one to a port that does not answer
			}
			eventually(t, "all are forwarded", func() bool { return s.forwarding.Load() == int64(len(open)) })
			errors, data := c.port(l)
			if got := text(t, errors); !strings.Contains(got, test.want) {
				t.Errorf("error stream says %q, want %q", got, test.want)
			}
			if got := text(t, data); got != "" {
				t.Errorf("data stream says %q", got)
			}
			if test.clients == 0 {
				<-s.dials
			}
			for _, data := range open { // those that were there go on
				io.WriteString(data, "x")
				data.Close()
				if got := text(t, data); got != "1 bytes" {
					t.Errorf("answer %q, want 1 bytes", got)
				}
			}
			// And there is room again.
			eventually(t, "none is forwarded", func() bool { return s.forwarding.Load() == 0 })
			_, data = c.port(l)
			data.Close()
			if got := text(t, data); got != "0 bytes" {
				t.Errorf("answer %q, want 0 bytes", got)
			}
		})
	}
}
