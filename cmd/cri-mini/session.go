package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/term"

	"cri-mini/internal/admin"
)

// terminal tells whether a person sits at both ends.
func terminal() bool {
	return term.IsTerminal(int(os.Stdin.Fd())) && term.IsTerminal(int(os.Stdout.Fd()))
}

// forwarded are the signals that are meant for the program, not for us. On a
// terminal in raw mode Ctrl-C comes as a byte; these come from elsewhere.
var forwarded = []os.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2}

// converse is the rest of the life of exec and run: it passes on streams,
// signals and the size of the terminal, and returns the program's exit code.
func converse(ctx context.Context, s *admin.Session, stdin io.Reader, tty bool) error {
	defer s.Close()
	// What would end us goes to the program instead, and its end ends us.
	ctx = context.WithoutCancel(ctx)
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, forwarded...)
	defer signal.Stop(signals)
	if tty {
		restore, err := raw()
		if err != nil {
			return err
		}
		defer restore()
		signal.Notify(signals, syscall.SIGWINCH)
		resize(s)
	}
	done := make(chan struct{})
	defer close(done)
	go func() {
		for {
			select {
			case <-done:
				return
			case got := <-signals:
				pass(s, got)
			}
		}
	}()
	code, err := s.Run(ctx, stdin, os.Stdout, os.Stderr)
	if err != nil {
		return err
	}
	if code != 0 {
		return exitCode(code)
	}
	return nil
}

// raw gives every key to the program. The way back must be taken however we
// end, or the user's shell is unusable.
func raw() (restore func(), err error) {
	before, err := term.MakeRaw(int(os.Stdin.Fd()))
	if err != nil {
		return nil, fmt.Errorf("terminal: %w", err)
	}
	return func() { term.Restore(int(os.Stdin.Fd()), before) }, nil
}

func pass(s *admin.Session, got os.Signal) {
	if got == syscall.SIGWINCH {
		resize(s)
		return
	}
	s.Signal(int(got.(syscall.Signal))) // a lost daemon shows itself to Run
}

func resize(s *admin.Session) {
	if size := terminalSize(); size != (admin.Size{}) {
		s.Resize(size.Width, size.Height)
	}
}

func terminalSize() admin.Size {
	width, height, err := term.GetSize(int(os.Stdout.Fd()))
	if err != nil {
		return admin.Size{} // no terminal
	}
	return admin.Size{Width: uint16(width), Height: uint16(height)}
}
