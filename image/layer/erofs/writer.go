package erofs

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"

	"cri-mini/image/layer/tree"

	"golang.org/x/sys/unix"
)

// Writer writes one image.
type Writer struct {
	file   *os.File
	offset int64  // where buf goes in the file
	buf    []byte // filled and not written
	holes  int64  // bytes that were never written

	summing bool // what is written from now on counts into sum
	sum     uint32
}

// Written is what Finish tells of an image.
type Written struct {
	Size   int64 // bytes on the disk
	Length int64 // of the file

	// The CRC-32C of the first block, and of all from Rest on: together what
	// is not content of files.
	HeadSum uint32
	Rest    int64
	RestSum uint32
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

const (
	bufferSize = 1 << 20
	holeSize   = 64 << 10 // zeros are left out in pieces of this
)

// NewWriter starts an image in an empty file.
func NewWriter(f *os.File) *Writer {
	// The superblock comes last, into a first block that is zero until then.
	return &Writer{file: f, offset: blockSize, buf: make([]byte, 0, bufferSize)}
}

func (w *Writer) position() int64 { return w.offset + int64(len(w.buf)) }

// Content writes the content of a regular file and sets n.Block. Zeros in a
// sparse file take no space on the disk.
func (w *Writer) Content(n *tree.Node, r io.Reader, sparse bool) error {
	n.Block = uint64(w.position() / blockSize)
	if n.Size > (maxBlocks<<blockBits)-w.position() {
		return fmt.Errorf("%d bytes exceed what an image can hold", n.Size)
	}
	for left := n.Size; left > 0; {
		if len(w.buf) == cap(w.buf) {
			if err := w.flush(); err != nil {
				return err
			}
		}
		chunk := w.buf[len(w.buf):min(int64(cap(w.buf)), int64(len(w.buf))+left)]
		if sparse {
			chunk = chunk[:min(len(chunk), holeSize)]
		}
		if _, err := io.ReadFull(r, chunk); err != nil {
			return fmt.Errorf("read content: %w", err)
		}
		left -= int64(len(chunk))
		if sparse && isZero(chunk) {
			if err := w.skip(int64(len(chunk))); err != nil {
				return err
			}
			continue
		}
		w.buf = w.buf[:len(w.buf)+len(chunk)]
	}
	return w.pad()
}

// skip leaves a hole.
func (w *Writer) skip(n int64) error {
	if err := w.flush(); err != nil {
		return err
	}
	w.offset += n
	w.holes += n
	return nil
}

// pad goes to the start of the next block.
func (w *Writer) pad() error {
	_, err := w.write(zeros[:roundUp(w.position(), blockSize)-w.position()])
	return err
}

func (w *Writer) write(p []byte) (int, error) {
	written := len(p)
	for len(p) > 0 {
		if len(w.buf) == cap(w.buf) {
			if err := w.flush(); err != nil {
				return 0, err
			}
		}
		n := copy(w.buf[len(w.buf):cap(w.buf)], p)
		w.buf = w.buf[:len(w.buf)+n]
		p = p[n:]
	}
	return written, nil
}

func (w *Writer) flush() error {
	if len(w.buf) == 0 {
		return nil
	}
	if _, err := w.file.WriteAt(w.buf, w.offset); err != nil {
		return fmt.Errorf("write image: %w", withoutPath(err))
	}
	if w.summing {
		w.sum = crc32.Update(w.sum, castagnoli, w.buf)
	}
	w.offset += int64(len(w.buf))
	w.buf = w.buf[:0]
	return nil
}

// Finish writes all else and makes the file an image. The identifier is the
// UUID of the file system.
func (w *Writer) Finish(root *tree.Node, identifier [16]byte) (Written, error) {
	if err := w.flush(); err != nil {
		return Written{}, err
	}
	out := Written{Rest: w.offset}
	w.summing = true
	l, err := plan(root, uint64(w.position()/blockSize))
	if err != nil {
		return out, err
	}
	for i := range l.inodes {
		if err := w.blocks(&l.inodes[i]); err != nil {
			return out, err
		}
	}
	s := super{rootID: root.ID, inodes: len(l.inodes), identifier: identifier}
	s.metaBlock = uint64(w.position() / blockSize)
	if err := w.meta(l); err != nil {
		return out, err
	}
	s.blocks = uint64(w.position() / blockSize)
	if s.blocks > maxBlocks {
		return out, errors.New("image of more than 16 TiB")
	}
	if err := w.flush(); err != nil {
		return out, err
	}
	// A file that ends in a hole, or is empty but for it, is as long as we say.
	if err := w.file.Truncate(w.offset); err != nil {
		return out, fmt.Errorf("write image: %w", withoutPath(err))
	}
	head := s.encode()
	if _, err := w.file.WriteAt(head, 0); err != nil {
		return out, fmt.Errorf("write image: %w", withoutPath(err))
	}
	out.Length, out.Size = w.offset, w.offset-w.holes
	out.HeadSum, out.RestSum = crc32.Checksum(head, castagnoli), w.sum
	return out, nil
}

// blocks writes the content of a directory or symbolic link that does not go
// with the inode.
func (w *Writer) blocks(p *placed) error {
	switch p.node.Type() {
	case unix.S_IFDIR:
		content := list(p.node)
		for i := range content.starts {
			if p.tail > 0 && i == len(content.starts)-1 {
				break
			}
			block := make([]byte, blockSize)
			content.encode(block, p.node, i)
			if _, err := w.write(block); err != nil {
				return err
			}
		}
	case unix.S_IFLNK:
		if p.tail > 0 {
			return nil
		}
		if _, err := io.WriteString(writerFunc(w.write), p.node.Target); err != nil {
			return err
		}
		return w.pad()
	}
	return nil
}

// meta writes the inodes, each at the offset it was planned for.
func (w *Writer) meta(l *layout) error {
	start := w.position()
	for i := range l.inodes {
		p := &l.inodes[i]
		gap := start + p.offset - w.position()
		if gap < 0 || gap > blockSize {
			return fmt.Errorf("inode %d: planned at %d, written %d off", i, p.offset, -gap)
		}
		head := make([]byte, inodeSize)
		encodeInode(head, p.node, p, i+1)
		for _, part := range [][]byte{zeros[:gap], head, p.xattrs, tail(p)} {
			if _, err := w.write(part); err != nil {
				return err
			}
		}
	}
	return w.pad()
}

func tail(p *placed) []byte {
	if p.tail == 0 {
		return nil
	}
	if p.node.Type() == unix.S_IFLNK {
		return []byte(p.node.Target)
	}
	content := list(p.node)
	b := make([]byte, p.tail)
	content.encode(b, p.node, len(content.starts)-1)
	return b
}

type writerFunc func(p []byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// withoutPath leaves the reason only: the path is ours and nobody's business.
func withoutPath(err error) error {
	var path *os.PathError
	if errors.As(err, &path) {
		return path.Err
	}
	return err
}

var zeros [64 << 10]byte

func isZero(p []byte) bool {
	for len(p) > len(zeros) {
		if !bytes.Equal(p[:len(zeros)], zeros[:]) {
			return false
		}
		p = p[len(zeros):]
	}
	return bytes.Equal(p, zeros[:len(p)])
}
