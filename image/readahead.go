package image

import (
	"io"
	"sync"
)

const (
	aheadBuffers = 4
	aheadSize    = 256 << 10
)

// aheadChunks are used again by the next layer, for a new one costs a page fault
// for each of its pages.
var aheadChunks = sync.Pool{New: func() any { return new(chunk) }}

// readAhead reads on another goroutine while its user works.
type readAhead struct {
	full   chan *chunk // closed at the end
	closed chan struct{}
	now    *chunk // what the user reads
	data   []byte // what he has not read yet of it
	err    error  // what ended the reading, once the user has met it
}

// chunk is a piece of what was read, and what ended the reading after it.
type chunk struct {
	buf [aheadSize]byte
	n   int
	err error
}

func newReadAhead(from io.Reader) *readAhead {
	r := &readAhead{full: make(chan *chunk, aheadBuffers), closed: make(chan struct{})}
	go r.run(from)
	return r
}

func (r *readAhead) run(from io.Reader) {
	defer close(r.full)
	for {
		select {
		case <-r.closed:
			return
		default:
		}
		c := aheadChunks.Get().(*chunk)
		c.n, c.err = fill(from, c.buf[:])
		err := c.err // the chunk is given away
		select {
		case r.full <- c:
		case <-r.closed:
			aheadChunks.Put(c)
			return
		}
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
	for len(r.data) == 0 {
		if r.err != nil {
			return 0, r.err
		}
		r.giveBack()
		r.now = <-r.full // there is one: the last has an error, and none is read after it
		r.data, r.err = r.now.buf[:r.now.n], r.now.err
	}
	n := copy(p, r.data)
	r.data = r.data[n:]
	return n, nil
}

func (r *readAhead) giveBack() {
	if r.now != nil {
		aheadChunks.Put(r.now)
		r.now, r.data = nil, nil
	}
}

// Close returns when the source is no longer read.
func (r *readAhead) Close() error {
	close(r.closed)
	for c := range r.full {
		aheadChunks.Put(c)
	}
	r.giveBack()
	return nil
}
