package executor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"cri-mini/internal/crashpoint"
	"cri-mini/runtime/boot"
	"cri-mini/runtime/internal/mount"
	"cri-mini/runtime/wire"
)

// client talks to the monitor. A connection carries one request at a time;
// there are as many as there are requests under way.
type client struct {
	state string
	log   *slog.Logger

	mu      sync.Mutex // guards what follows
	idle    []int      // sockets
	process int        // of the monitor
	watched int        // connection that tells exits; 0 for none
	closed  bool
}

// socketName is below the state folder.
const socketName = "monitor.sock"

// errMonitor is an answer that is the monitor's own error.
type errMonitor struct {
	verb  wire.Verb
	errno syscall.Errno
}

func (e *errMonitor) Error() string { return "monitor: " + e.errno.Error() }
func (e *errMonitor) Unwrap() error { return e.errno }

func (c *client) pid() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.process
}

// ensure connects to a running monitor, or starts one.
func (c *client) ensure(ctx context.Context) error {
	answer, _, err := c.request(ctx, &wire.Request{Verb: wire.Hello}, nil)
	if err == nil && answer.Version != wire.Version {
		// Nothing can be learned from it before it is one of ours.
		if err := c.upgrade(ctx); err != nil {
			return fmt.Errorf("the running one (pid %d) speaks version %d of the protocol, we speak %d; have it execute this program: %w", answer.PID, answer.Version, wire.Version, err)
		}
		return nil
	}
	if err == nil {
		return c.greet(answer)
	}
	if err := c.start(); err != nil {
		return fmt.Errorf("start it: %w", err)
	}
	answer, _, err = c.request(ctx, &wire.Request{Verb: wire.Hello}, nil)
	if err != nil {
		return fmt.Errorf("it was started but does not answer, see %s: %w", c.logName(), err)
	}
	return c.greet(answer)
}

func (c *client) greet(a *wire.Answer) error {
	if a.Version != wire.Version {
		return fmt.Errorf("the running one (pid %d) speaks version %d of the protocol, we speak %d", a.PID, a.Version, wire.Version)
	}
	c.mu.Lock()
	c.process = int(a.PID)
	c.mu.Unlock()
	return nil
}

func (c *client) logName() string { return filepath.Join(c.state, "monitor.log") }

// start executes our own binary as the monitor. The socket is made here, so
// that a connection can wait in its queue while the monitor comes up.
func (c *client) start() error {
	path := filepath.Join(c.state, socketName)
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	listener, err := listen(path)
	if err != nil {
		return err
	}
	defer listener.Close()
	log, err := os.OpenFile(c.logName(), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	program, err := readOnlyProgram()
	if err != nil {
		return err
	}
	defer program.Close()
	cmd := exec.Command(fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), number(program)))
	cmd.Args = []string{"cri-mini: monitor", c.state}
	cmd.Env = append(crashpoint.Environment(), boot.Variable+"="+boot.Monitor, "GOGC=50")
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = log, log
	cmd.ExtraFiles = []*os.File{listener}
	// Neither a Ctrl-C on our terminal nor our end is to reach it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	go cmd.Wait() // only to collect it; its end shows at the connections
	return nil
}

// readOnlyProgram is our file by way of a mount of its own, which nobody can
// write through: what an image calls its program may be /proc/self/exe, and
// leads to the monitor's file until the execve. A container that keeps a
// descriptor of that could otherwise write our file on the host once no process
// runs it (CVE-2019-5736).
func readOnlyProgram() (*os.File, error) {
	tree, err := mount.Bind(ownProgram, true)
	if err == nil {
		err = tree.Set(unix.MOUNT_ATTR_RDONLY, false)
	}
	if err != nil {
		return nil, fmt.Errorf("read-only view of our program: %w", err)
	}
	return tree.File, nil
}

// listen makes the socket by way of a short name: a path of more than 107
// bytes does not fit into a socket address.
func listen(path string) (*os.File, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), path)
	if err = unix.Fchmod(fd, 0o600); err == nil { // the file will have the rights of the socket
		err = atShortName(path, func(name string) error { return unix.Bind(fd, &unix.SockaddrUnix{Name: name}) })
	}
	if err == nil {
		err = unix.Listen(fd, 128)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	return f, nil
}

func atShortName(path string, do func(string) error) error {
	dir, err := os.OpenFile(filepath.Dir(path), unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer dir.Close()
	return do(fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), filepath.Base(path)))
}

// dial opens a connection.
func (c *client) dial() (int, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	path := filepath.Join(c.state, socketName)
	err = atShortName(path, func(name string) error { return unix.Connect(fd, &unix.SockaddrUnix{Name: name}) })
	if err != nil {
		unix.Close(fd)
		return -1, unheard{diedOr(err)}
	}
	return fd, nil
}

// take gives a connection for one request; fresh tells that it is new.
func (c *client) take() (fd int, fresh bool, err error) {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return -1, false, os.ErrClosed
	}
	if n := len(c.idle); n > 0 {
		fd := c.idle[n-1]
		c.idle = c.idle[:n-1]
		c.mu.Unlock()
		return fd, false, nil
	}
	c.mu.Unlock()
	fd, err = c.dial()
	return fd, true, err
}

const keepIdle = 8

func (c *client) give(fd int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || len(c.idle) >= keepIdle {
		unix.Close(fd)
		return
	}
	c.idle = append(c.idle, fd)
}

// request sends one request and waits for its answer.
func (c *client) request(ctx context.Context, r *wire.Request, send []*os.File) (*wire.Answer, files, error) {
	for {
		fd, fresh, err := c.take()
		if err != nil {
			return nil, nil, err
		}
		answer, got, after := exchange(ctx, fd, r, send)
		if after.whole {
			c.give(fd)
		} else {
			unix.Close(fd)
		}
		if fresh || !after.again(r) {
			return answer, got, after.err
		}
	}
}

// bound sends a request on a connection of its own, which stays with the
// caller.
func (c *client) bound(ctx context.Context, r *wire.Request, send []*os.File) (int, *wire.Answer, files, error) {
	fd, err := c.dial()
	if err != nil {
		return -1, nil, nil, err
	}
	answer, got, after := exchange(ctx, fd, r, send)
	if err = after.err; err == nil && !after.whole { // given up at the last moment
		got.close()
		err = ctx.Err()
	}
	if err != nil {
		unix.Close(fd)
		return -1, nil, nil, err
	}
	return fd, answer, got, nil
}

// aftermath is how an exchange left its connection.
type aftermath struct {
	err   error // nil with an answer
	whole bool  // the connection is good for another request
	sent  bool  // the monitor may have the request
}

// again tells whether to try on a new connection: a kept one may belong to a
// monitor that has died since. What was sent may have been done, and must not
// be done twice: two programs would run in one container.
func (a aftermath) again(r *wire.Request) bool {
	return (errors.Is(a.err, unix.EPIPE) || errors.Is(a.err, unix.ECONNRESET)) && (!a.sent || r.Verb != wire.Spawn)
}

func exchange(ctx context.Context, fd int, r *wire.Request, send []*os.File) (answer *wire.Answer, got files, after aftermath) {
	cut := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(cut)
		unix.Shutdown(fd, unix.SHUT_RDWR)
	})
	defer func() {
		// A shutdown that comes late must not meet the next request, or what
		// has the number of the descriptor by then.
		if !stop() {
			<-cut
			after.whole = false
		}
	}()
	numbers := make([]int, len(send))
	for i, f := range send {
		numbers[i] = number(f)
	}
	if err := wire.Send(fd, r.Encode(), numbers); err != nil {
		return nil, nil, aftermath{err: orDone(ctx, unheard{diedOr(err)})}
	}
	crashpoint.Here("request.sent")
	answer, got, err := receive(fd)
	if err != nil {
		return nil, nil, aftermath{err: orDone(ctx, diedOr(err)), sent: true}
	}
	if answer.Failed == refusal {
		got.close()
		return nil, nil, aftermath{err: &errMonitor{r.Verb, answer.Errno}, whole: true, sent: true}
	}
	return answer, got, aftermath{whole: true, sent: true}
}

// refusal in Answer.Failed: Errno is the monitor's own.
const refusal = -3

func receive(fd int) (*wire.Answer, files, error) {
	body, numbers, err := wire.Receive(fd)
	if err != nil {
		return nil, nil, err
	}
	answer, err := wire.DecodeAnswer(body)
	if err == nil && len(answer.Names) != len(numbers) {
		err = unix.EBADMSG
	}
	if err != nil {
		wire.CloseAll(numbers)
		return nil, nil, err
	}
	got := files{}
	for i, name := range answer.Names {
		got[name] = os.NewFile(uintptr(numbers[i]), name)
	}
	return answer, got, nil
}

func orDone(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// quit ends the monitor and waits until it has gone.
func (c *client) quit(ctx context.Context) error {
	if _, _, err := c.request(ctx, &wire.Request{Verb: wire.Quit}, nil); err != nil {
		return err
	}
	for range 200 {
		fd, err := c.dial()
		if err != nil {
			os.Remove(filepath.Join(c.state, socketName))
			return nil
		}
		unix.Close(fd)
		time.Sleep(5 * time.Millisecond)
	}
	return errors.New("monitor: it does not end")
}

// watching remembers the connection that another goroutine reads, so that
// close can end the reading.
func (c *client) watching(fd int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.watched = fd
	if c.closed {
		unix.Shutdown(fd, unix.SHUT_RDWR)
	}
}

// unwatch closes it, by its reader.
func (c *client) unwatch(fd int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.watched = 0
	unix.Close(fd)
}

// dropIdle closes the connections to a monitor that has died.
func (c *client) dropIdle() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, fd := range c.idle {
		unix.Close(fd)
	}
	c.idle = nil
}

func (c *client) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	if c.watched != 0 {
		unix.Shutdown(c.watched, unix.SHUT_RDWR)
	}
	for _, fd := range c.idle {
		unix.Close(fd)
	}
	c.idle = nil
}
