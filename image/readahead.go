package image

import "io"

const (
	aheadBuffers = 4
	aheadSize    = 256 << 10
)

// readAhead reads on another goroutine while its user works.
//
//	reader  ──full──▶  user
//	        ◀─empty──
type readAhead struct {
	full    chan chunk
	empty   chan []byte
	closed  chan struct{}
	stopped chan struct{}
	now     chunk // what the user has not read yet
	whole   []byte
}

// chunk is a filled part of a buffer, and what ended the reading after it.
type chunk struct {
	data []byte
	err  error
}

func newReadAhead(from io.Reader) *readAhead {
	r := &readAhead{
		full:    make(chan chunk, aheadBuffers),
		empty:   make(chan []byte, aheadBuffers),
		closed:  make(chan struct{}),
		stopped: make(chan struct{}),
	}
	for range aheadBuffers {
		r.empty <- nil // made when first needed: many layers are small
	}
	go r.run(from)
	return r
}

func (r *readAhead) run(from io.Reader) {
	defer close(r.stopped)
	for {
		var buf []byte
		select {
		case buf = <-r.empty:
		case <-r.closed:
			return
		}
		if buf == nil {
			buf = make([]byte, aheadSize)
		}
		n, err := fill(from, buf)
		r.full <- chunk{buf[:n], err} // never blocks: there are no more buffers than places
		if err != nil {
			return
		}
	}
}

// fill reads until a good part of buf is full, so that small reads do not
// become small handovers.
func fill(from io.Reader, buf []byte) (n int, err error) {
	for n < len(buf)/4 && err == nil {
		var m int
		m, err = from.Read(buf[n:])
		n += m
	}
	return n, err
}

func (r *readAhead) Read(p []byte) (int, error) {
	for len(r.now.data) == 0 {
		if r.now.err != nil {
			return 0, r.now.err
		}
		if r.whole != nil {
			r.empty <- r.whole[:cap(r.whole)]
		}
		r.now = <-r.full
		r.whole = r.now.data
	}
	n := copy(p, r.now.data)
	r.now.data = r.now.data[n:]
	return n, nil
}

// Close returns when the source is no longer read.
func (r *readAhead) Close() error {
	close(r.closed)
	<-r.stopped
	return nil
}
