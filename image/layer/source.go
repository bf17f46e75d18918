package layer

import (
	"context"
	"crypto/sha256"
	"fmt"
	"hash"
	"io"

	"github.com/opencontainers/go-digest"
)

// source reads an archive ahead of the unpacker and hashes it, so that the
// decompression behind the reader and the writing of files run side by side.
type source struct {
	ctx   context.Context
	r     io.Reader
	limit int64

	full  chan []byte   // read and hashed, in order; closed at the end
	empty chan []byte   // to be filled
	quit  chan struct{} // closed when nobody wants more

	// Written by fill, read by others after full is closed.
	hash hash.Hash
	err  error // why reading ended, nil at the end of the stream

	block   []byte // what Read serves from
	current []byte
	ended   bool  // Read has met the end of the stream
	failed  error // Read has met this
}

const (
	sourceBlocks    = 4
	sourceBlockSize = 256 << 10
)

func newSource(ctx context.Context, r io.Reader, limit int64) *source {
	s := &source{
		ctx: ctx, r: r, limit: limit,
		full: make(chan []byte, sourceBlocks), empty: make(chan []byte, sourceBlocks),
		quit: make(chan struct{}), hash: sha256.New(),
	}
	for range sourceBlocks {
		s.empty <- make([]byte, sourceBlockSize)
	}
	go s.fill()
	return s
}

func (s *source) fill() {
	defer close(s.full)
	var total int64
	for {
		var block []byte
		select {
		case block = <-s.empty:
		case <-s.quit:
			return
		}
		n, err := s.fillBlock(block[:sourceBlockSize])
		s.hash.Write(block[:n])
		if total += int64(n); s.limit > 0 && total > s.limit {
			err = invalidf("archive of more than %d bytes", s.limit)
		}
		s.full <- block[:n]
		if err != nil {
			if err != io.EOF {
				s.err = err
			}
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
	if s.block != nil {
		s.empty <- s.block
		s.block = nil
	}
	block, ok := <-s.full
	switch {
	case ok:
		s.block, s.current = block, block
		return nil
	case s.err != nil:
		s.failed = fmt.Errorf("read archive: %w", s.err)
		return s.failed
	}
	s.ended = true
	return io.EOF
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
	for range s.full {
	}
}
