package image

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"

	"cri-mini/image/layer"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
)

// unpack brings one layer in while it is fetched. Nothing of it is kept
// compressed, and nothing is visible before both digests are verified.
func (s *Store) unpack(ctx context.Context, l incomingLayer, want digest.Digest, report func(int64)) (layer.Info, error) {
	if l.ready != nil {
		return l.ready.Info(), l.ready.Commit()
	}
	pending, err := s.receive(ctx, l, want, report)
	if err != nil {
		return layer.Info{}, err
	}
	defer s.discard(pending) // it does nothing once it is committed
	return pending.Info(), pending.Commit()
}

// receive fetches a layer and writes it where nobody sees it yet.
func (s *Store) receive(ctx context.Context, l incomingLayer, want digest.Digest, report func(int64)) (pending layer.Pending, err error) {
	err = l.fetch(ctx, func(blob io.Reader) error {
		if pending != nil { // what an earlier host began
			s.discard(pending)
			pending = nil
		}
		counted := &countingReader{from: blob, report: report}
		var err error
		if pending, err = s.writeLayer(ctx, counted); err != nil {
			return err
		}
		if got := pending.DiffID(); got != want {
			return wrongDiffID(got, want)
		}
		return nil
	})
	switch {
	case err == nil && pending != nil:
		return pending, nil
	case err == nil:
		return nil, fmt.Errorf("layer %s: nothing was fetched", want)
	}
	if pending != nil {
		s.discard(pending)
	}
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	return nil, err
}

func (s *Store) discard(pending layer.Pending) {
	if err := pending.Discard(); err != nil {
		s.log.Warn("half a layer cannot be removed", "layer", pending.DiffID(), "err", err)
	}
}

// writeLayer has three goroutines at work: one downloads and hashes what it
// gets, one decompresses, and one hashes that and writes it (see layer.Store).
func (s *Store) writeLayer(ctx context.Context, blob io.Reader) (layer.Pending, error) {
	ahead := newReadAhead(blob)
	defer ahead.Close()
	tar, closeTar, err := decompress(ahead)
	if err != nil {
		return nil, err
	}
	defer closeTar()
	return s.store.Write(ctx, tar)
}

// maxWindow bounds the memory that a stranger's archive can make zstd take.
const maxWindow = 128 << 20

// decompress looks at the first bytes, not at a media type: those are wrong
// too often.
func decompress(r io.Reader) (tar io.Reader, closeTar func(), err error) {
	b := bufio.NewReaderSize(r, 64<<10)
	magic, err := b.Peek(4)
	if err != nil && err != io.EOF {
		return nil, nil, err
	}
	switch {
	case bytes.HasPrefix(magic, []byte{0x1f, 0x8b}):
		z, err := gzip.NewReader(b)
		if err != nil {
			return nil, nil, fmt.Errorf("gzip: %w", err)
		}
		return named{"gzip", z}, func() { z.Close() }, nil
	case bytes.Equal(magic, []byte{0x28, 0xb5, 0x2f, 0xfd}), len(magic) == 4 && magic[0]&0xf0 == 0x50 && bytes.Equal(magic[1:], []byte{0x2a, 0x4d, 0x18}):
		z, err := zstd.NewReader(b, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderLowmem(true))
		if err != nil {
			return nil, nil, fmt.Errorf("zstd: %w", err)
		}
		return named{"zstd", z}, z.Close, nil
	case bytes.HasPrefix(magic, []byte("BZh")), bytes.Equal(magic, []byte{0xfd, '7', 'z', 'X'}):
		return nil, nil, fmt.Errorf("compression is neither gzip nor zstd (first bytes %x)", magic)
	}
	return b, func() {}, nil
}

// named tells in errors which decompressor found something wrong.
type named struct {
	name string
	from io.Reader
}

func (n named) Read(p []byte) (int, error) {
	c, err := n.from.Read(p)
	if err != nil && err != io.EOF {
		err = fmt.Errorf("%s: %w", n.name, err)
	}
	return c, err
}

type countingReader struct {
	from   io.Reader
	report func(int64)
	done   int64
}

func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.from.Read(p)
	c.done += int64(n)
	c.report(c.done)
	return n, err
}
