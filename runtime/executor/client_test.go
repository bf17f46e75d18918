package executor

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"cri-mini/runtime/spec"
	"cri-mini/runtime/wire"
)

// oddMonitor answers each request as do says, until it says no.
func oddMonitor(t *testing.T, do func(*wire.Request) (answer bool)) *client {
	t.Helper()
	c := &client{state: t.TempDir(), log: slog.New(slog.NewTextHandler(io.Discard, nil))}
	listener, err := listen(filepath.Join(c.state, socketName))
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			fd, _, err := unix.Accept4(number(listener), unix.SOCK_CLOEXEC)
			if err != nil {
				return
			}
			go func() {
				defer unix.Close(fd)
				for {
					body, files, err := wire.Receive(fd)
					if err != nil {
						return
					}
					wire.CloseAll(files)
					r, err := wire.DecodeRequest(body)
					if err != nil || !do(r) || wire.Send(fd, (&wire.Answer{Failed: -1}).Encode(), nil) != nil {
						return
					}
				}
			}()
		}
	}()
	t.Cleanup(func() {
		c.close()
		unix.Shutdown(number(listener), unix.SHUT_RDWR)
		<-done
		listener.Close()
	})
	return c
}

// A monitor that dies after it started a program must not have its successor
// start the program once more.
func TestSpawnIsNotAskedForTwice(t *testing.T) {
	var spawns, forgets atomic.Int32
	c := oddMonitor(t, func(r *wire.Request) bool {
		switch r.Verb {
		case wire.Spawn:
			spawns.Add(1)
			return false
		case wire.Forget:
			return forgets.Add(1) > 1
		}
		return true
	})
	keep := func() {
		if _, _, err := c.request(t.Context(), &wire.Request{Verb: wire.Hello}, nil); err != nil {
			t.Fatal(err)
		}
	}
	keep()
	if _, _, err := c.request(t.Context(), &wire.Request{Verb: wire.Spawn}, nil); err == nil {
		t.Error("a spawn without an answer succeeded")
	}
	if n := spawns.Load(); n != 1 {
		t.Errorf("the monitor was asked %d times to spawn, want once", n)
	}
	keep()
	// What may be repeated is repeated.
	if _, _, err := c.request(t.Context(), &wire.Request{Verb: wire.Forget}, nil); err != nil || forgets.Load() != 2 {
		t.Errorf("a forget whose connection broke: %v after %d tries, want success after 2", err, forgets.Load())
	}
}

// A caller who leaves just when the answer comes must not break the connection
// for the next one.
func TestCallerWhoLeavesDoesNotDisturbTheNext(t *testing.T) {
	asked := make(chan bool, 1)
	c := oddMonitor(t, func(*wire.Request) bool { asked <- true; return true })
	left, kept := 0, 0
	for i := range 5000 {
		fd, _, err := c.take()
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		gone := make(chan struct{})
		go func() {
			defer close(gone)
			<-asked
			for end := time.Now().Add(time.Duration(i%50) * time.Microsecond); time.Now().Before(end); {
				runtime.Gosched()
			}
			cancel()
		}()
		_, _, after := exchange(ctx, fd, &wire.Request{Verb: wire.Spawn}, nil)
		if !after.whole {
			unix.Close(fd)
			left++
			<-gone
			continue
		}
		kept++
		<-gone
		runtime.Gosched()
		if _, err := unix.Read(dontWait(t, fd), make([]byte, 1)); err != unix.EAGAIN {
			t.Fatalf("the connection that was kept: %v, want EAGAIN", err)
		}
		unix.SetNonblock(fd, false)
		c.give(fd)
	}
	if left == 0 || kept == 0 {
		t.Errorf("%d callers left in time, %d did not: the test does not do what it says", left, kept)
	}
}

func dontWait(t *testing.T, fd int) int {
	t.Helper()
	if err := unix.SetNonblock(fd, true); err != nil {
		t.Fatal(err)
	}
	return fd
}

// What nobody heard is asked again while a monitor takes the place of another;
// what one may have heard is not, and the error says what happened.
func TestProgramThatNoMonitorWasAskedForIsAskedForAgain(t *testing.T) {
	asked := 0
	err := untilHeard(t.Context(), func() error {
		if asked++; asked < 3 {
			return unheard{diedOr(unix.ECONNREFUSED)}
		}
		return nil
	})
	if err != nil || asked != 3 {
		t.Errorf("asked %d times: %v; want that the third time succeeds", asked, err)
	}

	var heard atomic.Int32
	c := oddMonitor(t, func(*wire.Request) bool { heard.Add(1); return false })
	err = untilHeard(t.Context(), func() error {
		conn, _, _, err := c.bound(t.Context(), &wire.Request{Verb: wire.Spawn}, nil)
		if err == nil {
			unix.Close(conn)
		}
		return err
	})
	if !errors.Is(err, spec.ErrMonitorDied) || heard.Load() != 1 {
		t.Errorf("a monitor that died over a request was asked %d times: %v; want once, and that it is said", heard.Load(), err)
	}
}
