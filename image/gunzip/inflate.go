package gunzip

import (
	"encoding/binary"
	"io"
)

// refill has at least 56 bits ready.
func (z *Reader) refill() error {
	if err := z.more(8); err != nil {
		return err
	}
	if z.ended() {
		return io.ErrUnexpectedEOF
	}
	z.bits |= binary.LittleEndian.Uint64(z.in[z.pos:]) << (z.n & 63)
	z.pos += int(63-z.n) >> 3
	z.n |= 56
	return nil
}

// take takes bits that are ready.
func (z *Reader) take(n uint) int {
	v := int(z.bits & (1<<n - 1))
	z.bits >>= n
	z.n -= n
	return v
}

// block reads the header of a block.
func (z *Reader) block() error {
	if z.last {
		z.last, z.state = false, atTrailer
		return nil
	}
	if err := z.refill(); err != nil {
		return err
	}
	z.last = z.take(1) == 1
	switch z.take(2) {
	case 0:
		z.align()
		b, err := z.bytes(4)
		if err != nil {
			return err
		}
		size := binary.LittleEndian.Uint16(b)
		if size != ^binary.LittleEndian.Uint16(b[2:]) {
			return errCorrupt
		}
		z.stored, z.state = int(size), inStored
	case 1:
		z.lit, z.dist = &fixed().lit, &fixed().dist
		z.state = inCodes
	case 2:
		z.lit, z.dist = &z.ownLit, &z.ownDist
		z.state = inCodes
		return z.describedCodes()
	default:
		return errCorrupt
	}
	return nil
}

func (z *Reader) copyStored() error {
	if z.stored == 0 {
		z.state = atBlock
		return nil
	}
	if err := z.more(1); err != nil {
		return err
	}
	if z.pos >= z.end {
		return io.ErrUnexpectedEOF
	}
	n := copy(z.out[z.put:], z.in[z.pos:min(z.end, z.pos+z.stored)])
	z.put += n
	z.pos += n
	z.stored -= n
	return nil
}

// preOrder is the order in which the lengths of the code of lengths come.
var preOrder = [19]uint8{16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15}

// describedCodes reads the codes that a block brings along.
func (z *Reader) describedCodes() error {
	lits, dists, pres := z.take(5)+257, z.take(5)+1, z.take(4)+4
	if lits > 286 || dists > 30 {
		return errCorrupt
	}
	var lengths [286 + 30]uint8
	for _, symbol := range preOrder[:pres] {
		if err := z.refill(); err != nil {
			return err
		}
		lengths[symbol] = uint8(z.take(3))
	}
	var pre preTable
	if err := build(pre[:], preBits, lengths[:19], preSymbols[:]); err != nil {
		return err
	}
	clear(lengths[:19])
	for i := 0; i < lits+dists; {
		if err := z.refill(); err != nil {
			return err
		}
		e := pre[z.bits&preMask]
		if e&special != 0 {
			return errCorrupt
		}
		z.take(uint(e & 63))
		var length uint8
		times := 1
		switch symbol := e >> 16; {
		case symbol < 16:
			length = uint8(symbol)
		case symbol == 16 && i == 0:
			return errCorrupt
		case symbol == 16:
			length, times = lengths[i-1], 3+z.take(2)
		case symbol == 17:
			times = 3 + z.take(3)
		default:
			times = 11 + z.take(7)
		}
		if i+times > lits+dists {
			return errCorrupt
		}
		for range times {
			lengths[i] = length
			i++
		}
	}
	if err := build(z.ownLit[:], litBits, lengths[:lits], litSymbols[:]); err != nil {
		return err
	}
	return build(z.ownDist[:], distBits, lengths[lits:lits+dists], distSymbols[:])
}

// limit is where in the input a round of codes can begin at the latest: its two
// fillings look at no byte behind the end, or behind the padding.
func (z *Reader) limit() (int, error) {
	if err := z.more(padding); err != nil {
		return 0, err
	}
	if !z.eof {
		return z.end - 24, nil
	}
	if z.pos > z.end+8 {
		return 0, io.ErrUnexpectedEOF
	}
	return z.end + 8, nil
}

// codes decodes symbols until the block ends, out is full or more input is
// needed. A round takes at most three literals of the first table (33 bits) on
// one filling, a length and a distance (48 bits) on another.
func (z *Reader) codes() error {
	limit, err := z.limit()
	if err != nil {
		return err
	}
	lit, dist := z.lit, z.dist
	in, out := &z.in, &z.out
	bits, n, pos, put, base := z.bits, z.n, z.pos, z.put, z.base
	for pos <= limit && put <= outSize-maxMade {
		bits |= binary.LittleEndian.Uint64(in[pos:]) << (n & 63)
		pos += int(63-n) >> 3
		n |= 56
		e := lit[bits&litMask]
		if e&literal != 0 {
			bits >>= e & 63
			n -= uint(e & 63)
			out[put] = byte(e >> 16)
			put++
			e = lit[bits&litMask]
			if e&literal != 0 {
				bits >>= e & 63
				n -= uint(e & 63)
				out[put] = byte(e >> 16)
				put++
				e = lit[bits&litMask]
				if e&literal != 0 {
					bits >>= e & 63
					n -= uint(e & 63)
					out[put] = byte(e >> 16)
					put++
					continue
				}
			}
			bits |= binary.LittleEndian.Uint64(in[pos:]) << (n & 63)
			pos += int(63-n) >> 3
			n |= 56
		}
		if e&special != 0 {
			if e&subTable != 0 {
				e = lit[uint64(e>>16)+bits>>litBits&(1<<(e&15)-1)]
			}
			if e&(literal|endBlock) != 0 {
				bits >>= e & 63
				n -= uint(e & 63)
				if e&literal == 0 {
					z.state = atBlock
					break
				}
				out[put] = byte(e >> 16)
				put++
				continue
			}
			if e&special != 0 {
				err = errCorrupt
				break
			}
		}
		length := int(e>>16 + uint32(bits&(1<<(e&63)-1)>>(e>>8&15)))
		bits >>= e & 63
		n -= uint(e & 63)

		e = dist[bits&distMask]
		if e&special != 0 {
			if e&subTable != 0 {
				e = dist[uint64(e>>16)+bits>>distBits&(1<<(e&15)-1)]
			}
			if e&special != 0 {
				err = errCorrupt
				break
			}
		}
		back := int(e>>16 + uint32(bits&(1<<(e&63)-1)>>(e>>8&15)))
		bits >>= e & 63
		n -= uint(e & 63)

		from := put - back
		if from < base {
			err = errCorrupt
			break
		}
		end := put + length
		if back >= 8 {
			// Eight bytes at a time, and the last ones too many: they are
			// written again.
			for put < end {
				binary.LittleEndian.PutUint64(out[put:], binary.LittleEndian.Uint64(out[from:]))
				put, from = put+8, from+8
			}
			put = end
			continue
		}
		for put < end {
			out[put] = out[from]
			put, from = put+1, from+1
		}
	}
	z.bits, z.n, z.pos, z.put = bits, n, pos, put
	return err
}
