package gunzip

import (
	"math/bits"
	"sync"
)

// An entry of a table says what the next bits mean:
//
//	bit 31      a literal, in bits 16 to 23
//	bit 15      neither a literal nor a match: with bit 14 a table for the bits
//	            that follow, at bits 16 to 28 and 2^(bits 0 to 3) long; with
//	            bit 13 the end of the block; else no symbol has this code
//	bits 16-30  of a match: the least length or distance
//	bits 8-11   the bits of the code
//	bits 0-5    the bits of the code and those that are added to the least
type entry = uint32

const (
	literal  entry = 1 << 31
	special  entry = 1 << 15
	subTable entry = 1 << 14
	endBlock entry = 1 << 13
)

const (
	maxCode  = 15 // bits
	litBits  = 11
	distBits = 8
	preBits  = 7

	// The most that a complete code needs: each further table has at least two
	// of the symbols, and as many entries as the longest code makes it.
	litSize  = 1<<litBits + 286/2<<(maxCode-litBits)
	distSize = 1<<distBits + 30/2<<(maxCode-distBits)

	litMask  = 1<<litBits - 1
	distMask = 1<<distBits - 1
	preMask  = 1<<preBits - 1
)

type (
	litTable  [litSize]entry
	distTable [distSize]entry
	preTable  [1 << preBits]entry
)

// What symbols mean, as entries without the lengths of their codes.
var (
	litSymbols  = makeLitSymbols()
	distSymbols = makeDistSymbols()
	preSymbols  = makePreSymbols()
)

func makeLitSymbols() (s [288]entry) {
	for i := range 256 {
		s[i] = literal | entry(i)<<16
	}
	s[256] = special | endBlock
	least := entry(3)
	for i := range 28 {
		extra := entry(max(i/4-1, 0))
		s[257+i] = least<<16 | extra
		least += 1 << extra
	}
	s[285] = 258 << 16
	s[286], s[287] = special, special // the fixed code has them, no data may
	return s
}

func makeDistSymbols() (s [32]entry) {
	least := entry(1)
	for i := range 30 {
		extra := entry(max(i/2-1, 0))
		s[i] = least<<16 | extra
		least += 1 << extra
	}
	s[30], s[31] = special, special
	return s
}

func makePreSymbols() (s [19]entry) {
	for i := range s {
		s[i] = entry(i) << 16
	}
	return s
}

// build fills a table for the code in which each symbol has so many bits; the
// first 2^primary entries are for the next bits, others for those behind them.
// A code must be complete, but for the one that has one symbol or none.
func build(table []entry, primary int, lengths []uint8, symbols []entry) error {
	var count [maxCode + 1]int
	for _, n := range lengths {
		count[n]++
	}
	used := len(lengths) - count[0]
	longest := maxCode
	for longest > 0 && count[longest] == 0 {
		longest--
	}
	var first [maxCode + 2]int // of the sorted symbols, by length
	left := 1
	for n := 1; n <= longest; n++ {
		if left = left<<1 - count[n]; left < 0 {
			return errCorrupt
		}
		first[n+1] = first[n] + count[n]
	}
	if used == 0 || left > 0 {
		if used > 1 || longest > 1 {
			return errCorrupt
		}
		for i := range table[:1<<primary] {
			table[i] = special
		}
	}
	var sorted [288]uint16
	for symbol, n := range lengths {
		if n > 0 {
			sorted[first[n]] = uint16(symbol)
			first[n]++
		}
	}

	code, length := 0, 0
	free, sub, prefix := 1<<primary, 0, -1
	subBits := longest - primary
	for _, symbol := range sorted[:used] {
		n := int(lengths[symbol])
		code <<= n - length
		length = n
		// Codes come with their first bit lowest.
		reversed := int(bits.Reverse16(uint16(code)) >> (16 - n))
		code++
		e := symbols[symbol] + entry(n)<<8 + entry(n)
		if n <= primary {
			for i := reversed; i < 1<<primary; i += 1 << n {
				table[i] = e
			}
			continue
		}
		if p := reversed & (1<<primary - 1); p != prefix {
			prefix, sub = p, free
			free += 1 << subBits
			table[p] = special | subTable | entry(sub)<<16 | entry(subBits)
		}
		for i := reversed >> primary; i < 1<<subBits; i += 1 << (n - primary) {
			table[sub+i] = e
		}
	}
	return nil
}

// fixed is the code that a block can use without describing it.
var fixed = sync.OnceValue(func() *struct {
	lit  litTable
	dist distTable
} {
	var lit [288]uint8
	for i := range lit {
		switch {
		case i < 144, i >= 280:
			lit[i] = 8
		case i < 256:
			lit[i] = 9
		default:
			lit[i] = 7
		}
	}
	var dist [32]uint8
	for i := range dist {
		dist[i] = 5
	}
	t := new(struct {
		lit  litTable
		dist distTable
	})
	if build(t.lit[:], litBits, lit[:], litSymbols[:]) != nil || build(t.dist[:], distBits, dist[:], distSymbols[:]) != nil {
		panic("gunzip: the fixed code is not complete")
	}
	return t
})
