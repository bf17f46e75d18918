package stream

import (
	"context"
	"io"
	"sync"
	"sync/atomic"
	"time"
)

// quiet is how long the output of a program that has ended may be silent
// before we stop waiting for its end: a child in the background can hold it
// open for ever.
const quiet = 2 * time.Second

// drain copies the outputs of a program until each is at its end.
type drain struct {
	copies sync.WaitGroup
	bytes  atomic.Int64
}

// copy starts to copy src. Without a dst, or when dst takes no more, src is
// read and thrown away, for a full pipe would stop the program.
func (d *drain) copy(dst io.Writer, src io.Reader) {
	if src == nil {
		return
	}
	d.copies.Go(func() {
		if dst != nil {
			io.Copy(&counted{dst, &d.bytes}, src)
		}
		io.Copy(io.Discard, src)
	})
}

func (d *drain) wait() { d.copies.Wait() }

// settle waits for the last output of a program that has ended.
func (d *drain) settle(ctx context.Context) {
	done := make(chan struct{})
	go func() {
		d.copies.Wait()
		close(done)
	}()
	tick := time.NewTicker(quiet)
	defer tick.Stop()
	before := d.bytes.Load()
	for {
		select {
		case <-done:
			return
		case <-ctx.Done():
			return
		case <-tick.C:
			now := d.bytes.Load()
			if now == before {
				return
			}
			before = now
		}
	}
}

type counted struct {
	to    io.Writer
	bytes *atomic.Int64
}

func (c *counted) Write(p []byte) (int, error) {
	n, err := c.to.Write(p)
	c.bytes.Add(int64(n))
	return n, err
}
