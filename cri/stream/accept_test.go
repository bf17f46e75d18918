package stream

import (
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func echoes(t *testing.T, s *Server) {
	t.Helper()
	c := dialURL(t, execURL(t, s, &criapi.ExecRequest{Cmd: []string{"echo", "hello"}, Stdout: true}), v4)
	status, out := c.stream("streamType", "error"), c.stream("streamType", "stdout")
	if got := text(t, out); got != "hello\n" {
		t.Errorf("exec says %q, want hello", got)
	}
	if got := text(t, status); !strings.Contains(got, "Success") {
		t.Errorf("status %s", got)
	}
}

func TestConnectionThatCannotBeSetUpEndsAlone(t *testing.T) {
	noGoroutines(t)
	s, err := Listen(Config{Address: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	var seen atomic.Int32
	l := s.listener.(*watchedListener)
	set := l.probes
	l.probes = func(c *net.TCPConn) error {
		if seen.Add(1) == 1 { // more seconds than the kernel takes
			return c.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: 40000 * time.Second})
		}
		return set(c)
	}
	run(t, s, newMachine())
	conn, err := net.Dial("tcp", s.Address())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	if n, err := conn.Read(make([]byte, 1)); err == nil {
		t.Errorf("read %d bytes, want the end", n)
	} else if timeout, ok := err.(net.Error); ok && timeout.Timeout() {
		t.Error("the connection stays open")
	}
	echoes(t, s)
}

func TestServerOutlivesALackOfDescriptors(t *testing.T) {
	noGoroutines(t)
	log := captureLog(t)
	s := serve(t, newMachine())
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	var before unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	restore := func() {
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
			t.Error(err)
		}
	}
	defer restore()
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 1, Max: before.Max}); err != nil {
		t.Fatal(err)
	}
	address := s.listener.Addr().(*net.TCPAddr)
	if err := unix.Connect(fd, &unix.SockaddrInet4{Port: address.Port, Addr: [4]byte(address.IP.To4())}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the log says why nobody is served", func() bool {
		return strings.Contains(log.String(), "too many open files")
	})
	restore()
	// The connection that had to wait is served as well.
	if _, err := unix.Write(fd, []byte("GET /nothing HTTP/1.0\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	answer, err := io.ReadAll(fdReader(fd))
	if err != nil || !strings.Contains(string(answer), "404") {
		t.Errorf("answer %q, %v; want a 404", answer, err)
	}
	echoes(t, s)
}

type fdReader int

func (fd fdReader) Read(p []byte) (int, error) {
	n, err := unix.Read(int(fd), p)
	if n == 0 && err == nil {
		return 0, io.EOF
	}
	return max(n, 0), err
}
