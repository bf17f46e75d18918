package admin

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"net"
	"sync"
	"time"
)

// program is what the daemon's end of a conversation talks about.
type program struct {
	stdin          io.WriteCloser // nil when it has none
	stdout, stderr io.Reader      // nil likewise
	resize         func(width, height uint16) error
	signal         func(number int) error
	// wait returns the exit code, or when ctx ends because the client left.
	wait func(ctx context.Context) (int, error)
}

// lastOutput is how long the output of a program that has ended may stay
// open: something left in the background can hold it for ever.
const lastOutput = 2 * time.Second

// converse returns when the program has ended, with the last frame to be sent
// when nothing of it is left; or when the client has left, without one.
func converse(ctx context.Context, conn net.Conn, p program) (last *frame) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	out := &frameWriter{w: conn}
	input := make(chan []byte, window)
	go takeInput(ctx, p.stdin, input, out)
	go func() {
		defer cancel() // nobody is left who could want the program
		if err := listen(conn, p, input); err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) {
			slog.Debug("conversation ended", "err", err)
		}
	}()

	outputs := make(chan struct{})
	var copies sync.WaitGroup
	copies.Go(func() { pass(stream{out, kindStdout}, p.stdout) })
	copies.Go(func() { pass(stream{out, kindStderr}, p.stderr) })
	go func() { copies.Wait(); close(outputs) }()

	code, err := p.wait(ctx)
	if ctx.Err() != nil {
		return nil
	}
	if err != nil {
		return &frame{kindFailed, []byte(err.Error())}
	}
	select {
	case <-outputs:
	case <-time.After(lastOutput):
	case <-ctx.Done():
		return nil
	}
	return &frame{kindExit, binary.BigEndian.AppendUint32(nil, uint32(code))}
}

// listen obeys the client until it closes.
func listen(conn io.Reader, p program, input chan<- []byte) error {
	defer close(input)
	for {
		f, err := readFrame(conn)
		if err != nil {
			return err
		}
		switch f.kind {
		case kindStdin:
			select {
			case input <- f.data:
			default:
				return errors.New("client exceeds its window")
			}
		case kindSignal:
			err = p.signal(int(f.data[0]))
		case kindSize:
			err = p.resize(binary.BigEndian.Uint16(f.data), binary.BigEndian.Uint16(f.data[2:]))
		default:
			return errFrame
		}
		if err != nil {
			slog.Debug("client's wish not fulfilled", "kind", string(f.kind), "err", err)
		}
	}
}

// takeInput gives the program its stdin; one that takes no more loses it.
func takeInput(ctx context.Context, stdin io.WriteCloser, input <-chan []byte, out *frameWriter) {
	open := stdin != nil
	for {
		select {
		case <-ctx.Done():
			return
		case data, more := <-input:
			if !more {
				return // not the end of stdin, but of the client
			}
			if open && len(data) > 0 {
				_, err := stdin.Write(data)
				open = err == nil
			} else if open {
				stdin.Close()
				open = false
			}
			out.send(kindTaken, nil)
		}
	}
}

// pass copies to the end also when the client takes no more, for a full pipe
// would stop the program.
func pass(to io.Writer, from io.Reader) {
	if from == nil {
		return
	}
	io.Copy(to, from)
	io.Copy(io.Discard, from)
}
