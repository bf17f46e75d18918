package admin

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"cri-mini/internal/leakcheck"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

// converseWith joins a client's session with a program.
func converseWith(t *testing.T, p program) (*Session, <-chan bool) {
	t.Helper()
	here, there := net.Pipe()
	left := make(chan bool, 1)
	go func() {
		last := converse(t.Context(), there, p)
		left <- last == nil
		if last != nil {
			(&frameWriter{w: there}).send(last.kind, last.data)
		}
		there.Close()
	}()
	s := newSession(here, here)
	t.Cleanup(func() { s.Close() })
	return s, left
}

func TestSessionCarriesStreamsAndExitCode(t *testing.T) {
	stdin, typed := io.Pipe()
	got := make(chan string, 1)
	p := program{
		stdin:  typed,
		stdout: strings.NewReader(strings.Repeat("out", 50000)),
		stderr: strings.NewReader("err"),
		wait: func(context.Context) (int, error) {
			text, _ := io.ReadAll(stdin)
			got <- string(text)
			return 137, nil
		},
	}
	s, left := converseWith(t, p)
	var stdout, stderr bytes.Buffer
	input := strings.Repeat("in", 10*window*maxFrame)
	code, err := s.Run(t.Context(), strings.NewReader(input), &stdout, &stderr)
	if code != 137 || err != nil {
		t.Fatalf("Run = %d, %v; want 137", code, err)
	}
	if text := <-got; text != input {
		t.Errorf("stdin had %d bytes, want %d", len(text), len(input))
	}
	if stdout.Len() != 150000 || stderr.String() != "err" {
		t.Errorf("stdout %d bytes, stderr %q", stdout.Len(), stderr.String())
	}
	if <-left {
		t.Error("the daemon thinks that the client left")
	}
}

func TestSignalPassesAProgramThatReadsNothing(t *testing.T) {
	_, stuck := io.Pipe()
	signals, sizes := make(chan int, 1), make(chan string, 1)
	p := program{
		stdin:  stuck,
		signal: func(n int) error { signals <- n; return nil },
		resize: func(w, h uint16) error { sizes <- fmt.Sprint(w, "x", h); return nil },
		wait: func(context.Context) (int, error) {
			return 128 + <-signals, nil
		},
	}
	s, _ := converseWith(t, p)
	done := make(chan int)
	go func() {
		code, _ := s.Run(t.Context(), endless{}, io.Discard, io.Discard)
		done <- code
	}()
	time.Sleep(50 * time.Millisecond) // the window fills up
	s.Resize(80, 25)
	s.Signal(2)
	select {
	case code := <-done:
		if code != 130 {
			t.Errorf("exit code %d, want 130", code)
		}
	case <-time.After(5 * time.Second):
		t.Fatal("the signal did not get through in 5s")
	}
	if size := <-sizes; size != "80x25" {
		t.Errorf("size %s, want 80x25", size)
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

func TestDaemonLearnsThatTheClientLeft(t *testing.T) {
	p := program{wait: func(ctx context.Context) (int, error) { <-ctx.Done(); return 0, ctx.Err() }}
	s, left := converseWith(t, p)
	s.Close()
	select {
	case l := <-left:
		if !l {
			t.Error("converse says that the program ended")
		}
	case <-time.After(5 * time.Second):
		t.Fatal("converse did not return in 5s")
	}
}

func TestFailuresAndLossAreTold(t *testing.T) {
	s, _ := converseWith(t, program{wait: func(context.Context) (int, error) { return 0, errors.New("monitor is gone") }})
	if _, err := s.Run(t.Context(), nil, io.Discard, io.Discard); err == nil || err.Error() != "monitor is gone" {
		t.Errorf("Run: %v, want the daemon's words", err)
	}
	here, there := net.Pipe()
	there.Close()
	if _, err := newSession(here, here).Run(t.Context(), nil, io.Discard, io.Discard); !errors.Is(err, ErrLost) {
		t.Errorf("Run: %v, want ErrLost", err)
	}
}

func TestWindowIsEnforced(t *testing.T) {
	here, there := net.Pipe()
	_, stuck := io.Pipe()
	left := make(chan bool, 1)
	go func() {
		last := converse(t.Context(), there, program{
			stdin: stuck,
			wait:  func(ctx context.Context) (int, error) { <-ctx.Done(); return 0, ctx.Err() },
		})
		left <- last == nil
		there.Close()
	}()
	w := &frameWriter{w: here}
	go func() {
		for range window + 5 {
			w.send(kindStdin, []byte("x"))
		}
	}()
	if !<-left {
		t.Error("a client that exceeds its window is not cut off")
	}
	here.Close()
}
