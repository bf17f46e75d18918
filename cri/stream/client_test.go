package stream

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	goruntime "runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"k8s.io/streaming/pkg/httpstream"
	"k8s.io/streaming/pkg/httpstream/spdy"

	"cri-mini/internal/leakcheck"
	"cri-mini/podsandbox"
)

func TestMain(m *testing.M) {
	if os.Getenv(ownProcess) != "" {
		serveParent()
		return
	}
	leakcheck.Main(m)
}

// machine is Pods with programs of this machine and one container that prints
// what is written to its stdin.
type machine struct {
	ns *os.File

	mu       sync.Mutex
	attached int
	views    chan *view
	sizes    chan string
	started  chan int // pids
}

func newMachine() *machine {
	return &machine{views: make(chan *view, 1000), sizes: make(chan string, 100), started: make(chan int, 100)}
}

func (m *machine) NetNS(string) (*os.File, error) {
	if m.ns == nil {
		return nil, nil
	}
	fd, err := syscall.Dup(int(m.ns.Fd()))
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), "ns"), nil
}

func (m *machine) Exec(_ context.Context, _ string, args []string, _ bool, streams podsandbox.ExecIO) (podsandbox.Execution, error) {
	if streams.Width > 0 {
		m.sizes <- fmt.Sprintf("%dx%d", streams.Width, streams.Height)
	}
	p := &program{cmd: exec.Command(args[0], args[1:]...), sizes: m.sizes}
	var give []*os.File
	pipe := func(mine **os.File, wanted, in bool) *os.File {
		if !wanted {
			return nil
		}
		r, w, err := os.Pipe()
		if err != nil {
			panic(err)
		}
		theirs := w
		*mine = r
		if in {
			theirs, *mine = r, w
		}
		give = append(give, theirs)
		return theirs
	}
	if f := pipe(&p.in, streams.Stdin, true); f != nil {
		p.cmd.Stdin = f
	}
	if f := pipe(&p.out, streams.Stdout, false); f != nil {
		p.cmd.Stdout = f
	}
	if f := pipe(&p.errOut, streams.Stderr, false); f != nil {
		p.cmd.Stderr = f
	}
	err := p.cmd.Start()
	for _, f := range give {
		f.Close()
	}
	if err != nil {
		p.Close()
		return nil, err
	}
	m.started <- p.cmd.Process.Pid
	return p, nil
}

type program struct {
	cmd             *exec.Cmd
	in, out, errOut *os.File
	sizes           chan string
}

func (p *program) PID() int { return p.cmd.Process.Pid }
func (p *program) Stdin() io.WriteCloser {
	if p.in == nil {
		return nil
	}
	return p.in
}
func (p *program) Stdout() io.ReadCloser { return reader(p.out) }
func (p *program) Stderr() io.ReadCloser { return reader(p.errOut) }

func reader(f *os.File) io.ReadCloser {
	if f == nil {
		return nil
	}
	return f
}

func (p *program) Resize(w, h uint16) error { p.sizes <- fmt.Sprintf("%dx%d", w, h); return nil }
func (p *program) Wait(context.Context) (int, error) {
	err := p.cmd.Wait()
	if e := (*exec.ExitError)(nil); errors.As(err, &e) {
		return e.ExitCode(), nil
	}
	return 0, err
}
func (p *program) Kill() error { return p.cmd.Process.Kill() }
func (p *program) Close() error {
	for _, f := range []*os.File{p.in, p.out, p.errOut} {
		if f != nil {
			f.Close()
		}
	}
	return nil
}

// view echoes its stdin, in both directions over real pipes.
type view struct {
	m          *machine
	in, out    *os.File
	pr, pw     *os.File
	closed     sync.Once
	stdinEnded chan struct{}
}

func (m *machine) Attach(context.Context, string) (podsandbox.Attachment, error) {
	v := &view{m: m, stdinEnded: make(chan struct{})}
	var err error
	if v.pr, v.in, err = os.Pipe(); err != nil {
		return nil, err
	}
	if v.out, v.pw, err = os.Pipe(); err != nil {
		return nil, err
	}
	m.mu.Lock()
	m.attached++
	m.mu.Unlock()
	go func() {
		io.Copy(v.pw, v.pr)
		close(v.stdinEnded)
	}()
	m.views <- v
	return v, nil
}

func (v *view) Stdin() io.WriteCloser { return v.in }
func (v *view) Stdout() io.ReadCloser { return v.out }
func (v *view) Stderr() io.ReadCloser { return nil }
func (v *view) Resize(w, h uint16) error {
	v.m.sizes <- fmt.Sprintf("%dx%d", w, h)
	return nil
}
func (v *view) Close() error {
	v.closed.Do(func() {
		for _, f := range []*os.File{v.in, v.pr, v.out, v.pw} {
			f.Close()
		}
		v.m.mu.Lock()
		v.m.attached--
		v.m.mu.Unlock()
	})
	return nil
}

// end is the end of the container's program.
func (v *view) end() { v.pw.Close() }

func serve(t *testing.T, pods Pods) *Server {
	t.Helper()
	return serveAs(t, pods, Config{Address: "127.0.0.1:0"}, func(*limits) {})
}

func serveAs(t *testing.T, pods Pods, config Config, change func(*limits)) *Server {
	t.Helper()
	s, err := Listen(config)
	if err != nil {
		t.Fatal(err)
	}
	s.limits.creation, s.limits.farewell, s.limits.parting = 2*time.Second, time.Second, 200*time.Millisecond
	change(&s.limits)
	run(t, s, pods)
	return s
}

func run(t *testing.T, s *Server, pods Pods) {
	t.Helper()
	served := make(chan error, 1)
	go func() { served <- s.Serve(pods) }()
	t.Cleanup(func() {
		s.Close()
		if err := <-served; err != nil {
			t.Errorf("Serve: %v", err)
		}
		eventually(t, "all room is given back", func() bool { return s.room.used.Load() == 0 })
		eventually(t, "nothing is forwarded or dialed", func() bool { return s.forwarding.Load()+int64(len(s.dials)) == 0 })
	})
}

// client is one SPDY connection, as kubelet and crictl make it.
type client struct {
	t    *testing.T
	raw  net.Conn
	conn httpstream.Connection
}

func dialURL(t *testing.T, url, protocol string) *client {
	t.Helper()
	c, status := tryURL(t, url, protocol)
	if c == nil {
		t.Fatalf("%s: status %d, want an upgrade", url, status)
	}
	return c
}

func tryURL(t *testing.T, url, protocol string) (*client, int) {
	t.Helper()
	request := upgradeRequest(t, url, protocol)
	raw, err := net.Dial("tcp", request.URL.Host)
	if err != nil {
		t.Fatal(err)
	}
	return upgraded(t, raw, request)
}

func speakSPDY(t *testing.T, raw net.Conn, url, protocol string) *client {
	t.Helper()
	c, status := upgraded(t, raw, upgradeRequest(t, url, protocol))
	if c == nil {
		t.Fatalf("%s: status %d, want an upgrade", url, status)
	}
	return c
}

func upgradeRequest(t *testing.T, url, protocol string) *http.Request {
	t.Helper()
	request, err := http.NewRequest(http.MethodPost, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Connection", "Upgrade")
	request.Header.Set("Upgrade", "SPDY/3.1")
	request.Header.Set("X-Stream-Protocol-Version", protocol)
	return request
}

func upgraded(t *testing.T, raw net.Conn, request *http.Request) (*client, int) {
	t.Helper()
	if err := request.Write(raw); err != nil {
		t.Fatal(err)
	}
	answer, err := http.ReadResponse(bufio.NewReader(raw), request)
	if err != nil {
		t.Fatal(err)
	}
	if answer.StatusCode != http.StatusSwitchingProtocols {
		raw.Close()
		return nil, answer.StatusCode
	}
	conn, err := spdy.NewClientConnection(raw)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(); raw.Close() })
	return &client{t, raw, conn}, 0
}

func gone(pid int) bool { return syscall.Kill(pid, 0) != nil }

func (c *client) stream(headers ...string) httpstream.Stream {
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

func text(t *testing.T, r io.Reader) string {
	t.Helper()
	data, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func eventually(t *testing.T, what string, true func() bool) {
	t.Helper()
	for range 200 {
		if true() {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Fatalf("after 10s still not: %s", what)
}

// noGoroutines fails when goroutines of this package or of the library stay.
func noGoroutines(t *testing.T) {
	t.Helper()
	before := goruntime.NumGoroutine()
	t.Cleanup(func() {
		var stacks string
		for range 100 {
			if goruntime.NumGoroutine() <= before {
				return
			}
			buffer := make([]byte, 1<<20)
			stacks = string(buffer[:goruntime.Stack(buffer, true)])
			time.Sleep(50 * time.Millisecond)
		}
		t.Errorf("%d goroutines, %d before:\n%s", goruntime.NumGoroutine(), before, strings.ReplaceAll(stacks, "\n\n", "\n"))
	})
}
