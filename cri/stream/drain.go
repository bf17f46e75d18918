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
	ctx    context.Context // of the connection
	copies sync.WaitGroup
	bytes  atomic.Int64
	busy   atomic.Int32 // writes that a slow client holds
}

// copy starts to copy src. Without a dst, or when dst takes no more, src is
// read and thrown away, for a full pipe would stop the program.
func (d *drain) copy(dst io.Writer, src io.Reader) {
	if src == nil {
		return
	}
	d.copies.Go(func() {
		guarded(d.ctx, "copy output", func() {
			if dst != nil {
				io.Copy(counted{dst, d}, src)
			}
			io.Copy(io.Discard, src)
		})
	})
}

func (d *drain) wait() { d.copies.Wait() }

// settle waits for the last output of a program that has ended. A client that
// is slow to take it is waited for; only silence of the program counts.
func (d *drain) settle() {
	done := make(chan struct{})
	begin(d.ctx, "wait for output", func() {
		d.copies.Wait()
		close(done)
	})
	tick := time.NewTicker(quiet)
	defer tick.Stop()
	before := d.bytes.Load()
	for {
		select {
		case <-done:
			return
		case <-d.ctx.Done():
			return
		case <-tick.C:
			now := d.bytes.Load()
			if now == before && d.busy.Load() == 0 {
				return
			}
			before = now
		}
	}
}

type counted struct {
	to io.Writer
	d  *drain
}

func (c counted) Write(p []byte) (int, error) {
	c.d.busy.Add(1)
	defer c.d.busy.Add(-1)
	n, err := c.to.Write(p)
	c.d.bytes.Add(int64(n))
	return n, err
}
