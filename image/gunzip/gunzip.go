// Package gunzip decompresses gzip (RFC 1951, RFC 1952) faster than the
// libraries do, for it is most of the work of a pull.
//
// A Reader has its input and its output in two buffers of its own, so that the
// loop over symbols (codes, in inflate.go) takes eight bytes at a time and asks
// nobody for more. What is read and what was written last stay in one piece:
// there is no ring. The package knows nothing of archives or layers, and trusts
// no byte of its input; a mistake in it can end in a panic, but not outside
// of its buffers.
package gunzip

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"sync"
)

var (
	errHeader   = errors.New("header is not that of gzip")
	errCorrupt  = errors.New("compressed data is corrupt")
	errChecksum = errors.New("checksum is wrong")
)

const (
	window  = 32 << 10 // how far back a match can lie
	inSize  = 64 << 10
	outSize = window + 256<<10

	// padding lies behind the end of the input, so that looking ahead needs no
	// care; whoever uses bits of it has met the end (see ended).
	padding = 32
	// maxMade is more than one round of the loop over symbols writes: three
	// literals, the longest match and what is copied too much.
	maxMade = 3 + 258 + 16
)

// state is what comes next in the input.
type state int

const (
	atHeader state = iota
	atBlock
	inStored
	inCodes
	atTrailer
)

// Reader decompresses all members of a gzip file.
type Reader struct {
	from   io.Reader
	eof    bool  // from has ended
	failed error // what Read returns when out is read
	state  state
	later  bool // a member has ended: there need not be another
	last   bool // this block is the last of its member

	in       [inSize + padding]byte
	pos, end int
	bits     uint64 // taken from in and not used: the lowest n
	n        uint

	out       [outSize]byte
	base      int // where the member begins, as far as it is still there
	read, put int // what was read of it, what was put into it

	sum    uint32 // of the member, or its header
	size   uint32
	stored int // bytes left of a stored block

	lit     *litTable
	dist    *distTable
	ownLit  litTable
	ownDist distTable
}

var readers = sync.Pool{New: func() any { return new(Reader) }}

// NewReader reads from r, also more than it needs. Close gives its memory to
// the next.
func NewReader(r io.Reader) *Reader {
	z := readers.Get().(*Reader)
	z.from, z.eof, z.failed = r, false, nil
	z.state, z.later, z.last = atHeader, false, false
	z.pos, z.end, z.bits, z.n = 0, 0, 0, 0
	z.base, z.read, z.put = 0, 0, 0
	return z
}

// Close ends the use of a Reader. It does not close what it read from.
func (z *Reader) Close() {
	z.from = nil
	readers.Put(z)
}

// Read returns what is decompressed. What it returns before an error may be
// part of corrupt data: only io.EOF says that all was right.
func (z *Reader) Read(p []byte) (int, error) {
	for z.read == z.put {
		if z.failed != nil {
			return 0, z.failed
		}
		z.failed = z.step()
	}
	n := copy(p, z.out[z.read:z.put])
	z.read += n
	return n, nil
}

// step does the next piece of work, when all of out was read.
func (z *Reader) step() error {
	if z.put > outSize-maxMade {
		moved := z.put - window
		copy(z.out[:window], z.out[moved:z.put])
		z.base = max(z.base-moved, 0)
		z.read, z.put = window, window
	}
	switch z.state {
	case atHeader:
		return z.header()
	case atBlock:
		return z.block()
	case atTrailer:
		return z.trailer()
	}
	var err error
	if z.state == inStored {
		err = z.copyStored()
	} else {
		err = z.codes()
	}
	if err == nil && z.ended() {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		z.put = z.read // the end may be made of padding
		return err
	}
	made := z.out[z.read:z.put]
	z.sum = crc32.Update(z.sum, crc32.IEEETable, made)
	z.size += uint32(len(made))
	return nil
}

// more reads until so many bytes lie ahead, or the source has ended. The last
// bytes before pos stay, for they may be given back (see align).
func (z *Reader) more(ahead int) error {
	if z.end-z.pos >= ahead || z.eof {
		return nil
	}
	kept := min(z.pos, 8)
	z.end = copy(z.in[:], z.in[z.pos-kept:z.end])
	z.pos = kept
	for idle := 0; z.end-z.pos < ahead; {
		n, err := z.from.Read(z.in[z.end:inSize])
		z.end += n
		switch idle++; {
		case err == io.EOF:
			z.eof = true
			clear(z.in[z.end : z.end+padding])
			return nil
		case err != nil:
			return err
		case n > 0:
			idle = 0
		case idle == 100:
			return io.ErrNoProgress
		}
	}
	return nil
}

// ended says that more was used than there is.
func (z *Reader) ended() bool { return z.eof && z.pos*8-int(z.n) > z.end*8 }

// align goes on with the next whole byte, and with no bits taken.
func (z *Reader) align() {
	z.pos -= int(z.n / 8)
	z.bits, z.n = 0, 0
}

// bytes takes up to 16 whole bytes.
func (z *Reader) bytes(n int) ([]byte, error) {
	if err := z.more(n); err != nil {
		return nil, err
	}
	if z.end-z.pos < n {
		return nil, io.ErrUnexpectedEOF
	}
	b := z.in[z.pos : z.pos+n]
	z.pos += n
	return b, nil
}

// The flags of a header.
const (
	hasSum     = 1 << 1
	hasExtra   = 1 << 2
	hasName    = 1 << 3
	hasComment = 1 << 4
)

// header reads all that comes before the blocks of a member.
func (z *Reader) header() error {
	if err := z.more(1); err != nil {
		return err
	}
	if z.later && z.pos >= z.end {
		return io.EOF
	}
	h, err := z.bytes(10)
	if err != nil {
		return err
	}
	if h[0] != 0x1f || h[1] != 0x8b || h[2] != 8 {
		return errHeader
	}
	flags := h[3]
	z.sum = crc32.ChecksumIEEE(h)
	if flags&hasExtra != 0 {
		if err := z.skipExtra(); err != nil {
			return err
		}
	}
	for _, flag := range []byte{hasName, hasComment} {
		if flags&flag != 0 {
			if err := z.skipText(); err != nil {
				return err
			}
		}
	}
	if flags&hasSum != 0 {
		sum := uint16(z.sum)
		b, err := z.bytes(2)
		if err != nil {
			return err
		}
		if binary.LittleEndian.Uint16(b) != sum {
			return errHeader
		}
	}
	z.state, z.sum, z.size = atBlock, 0, 0
	z.base = z.put
	return nil
}

// headerBytes takes bytes that the sum of the header covers.
func (z *Reader) headerBytes(n int) ([]byte, error) {
	b, err := z.bytes(n)
	z.sum = crc32.Update(z.sum, crc32.IEEETable, b)
	return b, err
}

func (z *Reader) skipExtra() error {
	b, err := z.headerBytes(2)
	if err != nil {
		return err
	}
	for left := int(binary.LittleEndian.Uint16(b)); left > 0 && err == nil; left -= min(left, 16) {
		_, err = z.headerBytes(min(left, 16))
	}
	return err
}

// maxText is what the libraries accept of a file's name and of a comment.
const maxText = 512

func (z *Reader) skipText() error {
	for range maxText {
		b, err := z.headerBytes(1)
		if err != nil {
			return err
		}
		if b[0] == 0 {
			return nil
		}
	}
	return errHeader
}

func (z *Reader) trailer() error {
	z.align()
	b, err := z.bytes(8)
	if err != nil {
		return err
	}
	if binary.LittleEndian.Uint32(b) != z.sum || binary.LittleEndian.Uint32(b[4:]) != z.size {
		return errChecksum
	}
	z.state, z.later = atHeader, true
	return nil
}
