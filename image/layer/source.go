package layer

import (
	"context"
	"crypto/sha256"
	"fmt"
	"hash"
	"io"
	"sync"

	"github.com/opencontainers/go-digest"
)

// source reads an archive ahead of the unpacker, so that the decompression
// behind the reader runs beside the hashing and the writing of files: neither
// side alone has much more to do than the other.
type source struct {
	ctx   context.Context
	r     io.Reader
	limit int64

	full chan *block   // in order; closed at the end
	quit chan struct{} // closed when nobody wants more
	err  error         // why reading ended, nil at the end of the stream; read it after full is closed

	hash    hash.Hash
	now     *block // what Read serves from
	current []byte
	ended   bool  // Read has met the end of the stream
	failed  error // Read has met this
}

// block is a piece of an archive.
type block struct {
	data [256 << 10]byte
	n    int
}

// blocks are used again by the next layer, for a new one costs a page fault for
// each of its pages.
var blocks = sync.Pool{New: func() any { return new(block) }}

// sourceBlocks bounds what is read ahead.
const sourceBlocks = 4

func newSource(ctx context.Context, r io.Reader, limit int64) *source {
	s := &source{
		ctx: ctx, r: r, limit: limit,
		full: make(chan *block, sourceBlocks),
		quit: make(chan struct{}), hash: sha256.New(),
	}
	go s.fill()
	return s
}

func (s *source) fill() {
	defer close(s.full)
	var total int64
	for {
		select {
		case <-s.quit:
			return
		default:
		}
		b := blocks.Get().(*block)
		var err error
		b.n, err = s.fillBlock(b.data[:])
		if total += int64(b.n); s.limit > 0 && total > s.limit {
			err = invalidf("archive of more than %d bytes", s.limit)
		}
		if err != nil && err != io.EOF {
			s.err = err
		}
		select {
		case s.full <- b:
		case <-s.quit:
			blocks.Put(b)
			return
		}
		if err != nil {
			return
		}
	}
}

// fillBlock reads until the block is full, for readers of compressed data
// return little at a time. A canceled context ends it between two reads.
func (s *source) fillBlock(block []byte) (n int, err error) {
	for idle := 0; n < len(block) && err == nil; {
		if err = context.Cause(s.ctx); err != nil {
			return n, err
		}
		var m int
		m, err = s.r.Read(block[n:])
		n += m
		if idle++; m > 0 {
			idle = 0
		} else if idle == 100 && err == nil {
			err = io.ErrNoProgress
		}
	}
	return n, err
}

// Read serves the unpacker.
func (s *source) Read(p []byte) (int, error) {
	if len(s.current) == 0 {
		if err := s.next(); err != nil {
			return 0, err
		}
	}
	n := copy(p, s.current)
	s.current = s.current[n:]
	return n, nil
}

func (s *source) next() error {
	s.giveBack()
	b, ok := <-s.full
	switch {
	case ok:
		s.now, s.current = b, b.data[:b.n]
		s.hash.Write(s.current)
		return nil
	case s.err != nil:
		s.failed = fmt.Errorf("read archive: %w", s.err)
		return s.failed
	}
	s.ended = true
	return io.EOF
}

func (s *source) giveBack() {
	if s.now != nil {
		blocks.Put(s.now)
		s.now, s.current = nil, nil
	}
}

// finish reads what follows the end of the archive, for the digest is that of
// the whole stream, and returns it. An archive that just stops is refused: it
// may have been cut off between two entries.
func (s *source) finish() (digest.Digest, error) {
	if s.ended {
		return "", invalidf("archive ends without its end marker")
	}
	for {
		s.current = nil
		switch err := s.next(); {
		case err == io.EOF:
			return digest.NewDigest(digest.SHA256, s.hash), nil
		case err != nil:
			return "", err
		}
	}
}

// stop ends the reading; the reader is not touched any more afterwards.
func (s *source) stop() {
	close(s.quit)
	for b := range s.full {
		blocks.Put(b)
	}
	s.giveBack()
}
