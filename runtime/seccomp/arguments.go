package seccomp

import (
	"cmp"
	"slices"

	"golang.org/x/sys/unix"
)

// choice writes what to do with a call whose number was found.
func (p *program) choice(a *arch, c *choice, fallback uint32) label {
	if len(c.alternatives) == 0 {
		return p.answer(c.answer)
	}
	if set, arg, ok := c.values(a.bits); ok {
		return p.oneOf(a, arg, set, c.alternatives[0].answer, fallback)
	}
	no := p.answer(fallback)
	for _, alt := range slices.Backward(c.alternatives) {
		yes := p.answer(alt.answer)
		for _, when := range slices.Backward(alt.when) {
			yes = p.condition(a, when, yes, no)
		}
		no = yes
	}
	return no
}

// condition writes one comparison. An argument is loaded in halves, for the
// machine of classic BPF has words of 32 bits.
func (p *program) condition(a *arch, c condition, yes, no label) label {
	switch c.op {
	case ne, lt, le: // the opposite of eq, ge, gt
		yes, no = no, yes
	}
	mask, value := uint32(c.mask), uint32(c.value)
	lower := yes
	switch {
	case mask == 0:
		// Only the upper half is asked for.
	case c.op == gt || c.op == le:
		lower = p.load(low(c.index), p.jump(unix.BPF_JGT, value, yes, no))
	case c.op == ge || c.op == lt:
		lower = p.load(low(c.index), p.jump(unix.BPF_JGE, value, yes, no))
	default:
		lower = p.equal(low(c.index), mask, value, yes, no)
	}
	mask, value = uint32(c.mask>>32), uint32(c.value>>32)
	if a.bits == 32 || mask == 0 {
		return lower
	}
	switch c.op {
	case eq, ne:
		return p.equal(high(c.index), mask, value, lower, no)
	}
	same := p.jump(unix.BPF_JEQ, value, lower, no)
	return p.load(high(c.index), p.jump(unix.BPF_JGT, value, yes, same))
}

// equal compares the bits of a mask in one half.
func (p *program) equal(offset, mask, value uint32, yes, no label) label {
	if mask == 0xffffffff {
		return p.load(offset, p.jump(unix.BPF_JEQ, value, yes, no))
	}
	if value == 0 {
		return p.load(offset, p.jump(unix.BPF_JSET, mask, no, yes))
	}
	compare := p.jump(unix.BPF_JEQ, value, yes, no)
	and := p.then(unix.SockFilter{Code: unix.BPF_ALU | unix.BPF_AND | unix.BPF_K, K: mask}, compare)
	return p.load(offset, and)
}

// interval is a range of values of an argument, both ends in it.
type interval struct{ first, last uint64 }

// values joins alternatives that only list values of one argument, as the
// default profile does with the families of sockets. A search by halves then
// takes the place of a long row of comparisons.
func (c *choice) values(bits int) (set []interval, arg uint32, ok bool) {
	most := allBits >> (64 - bits)
	for _, alt := range c.alternatives {
		if len(alt.when) != 1 || alt.answer != c.alternatives[0].answer ||
			alt.when[0].index != c.alternatives[0].when[0].index || alt.when[0].mask != most {
			return nil, 0, false
		}
		set = append(set, alt.when[0].intervals(most)...)
	}
	slices.SortFunc(set, func(a, b interval) int { return cmp.Compare(a.first, b.first) })
	var joined []interval
	for _, next := range set {
		if n := len(joined); n > 0 && (joined[n-1].last == most || next.first <= joined[n-1].last+1) {
			joined[n-1].last = max(joined[n-1].last, next.last)
			continue
		}
		joined = append(joined, next)
	}
	for _, i := range joined { // one search of the lower half must do
		if i.first > 0xffffffff || i.last > 0xffffffff && i.last != most {
			return nil, 0, false
		}
	}
	return joined, c.alternatives[0].when[0].index, len(joined) > 0
}

func (c condition) intervals(most uint64) []interval {
	var below, above []interval
	if c.value > 0 {
		below = []interval{{0, c.value - 1}}
	}
	if c.value < most {
		above = []interval{{c.value + 1, most}}
	}
	at := interval{c.value, c.value}
	switch c.op {
	case lt:
		return below
	case le:
		return append(below, at)
	case gt:
		return above
	case ge:
		return append(above, at)
	case ne:
		return append(below, above...)
	}
	return []interval{at}
}

// oneOf writes the search for a value of an argument in a set.
func (p *program) oneOf(a *arch, arg uint32, set []interval, inside, outside uint32) label {
	parts := []part{{0, outside, func() label { return p.answer(outside) }}}
	put := func(first uint32, value uint32) {
		if first == 0 {
			parts = parts[:0]
		}
		parts = append(parts, part{first, value, func() label { return p.answer(value) }})
	}
	beyond := outside // what values above the lower half get
	for _, i := range set {
		put(uint32(i.first), inside)
		if i.last < 0xffffffff {
			put(uint32(i.last)+1, outside)
		} else if i.last > 0xffffffff {
			beyond = inside
		}
	}
	lower := p.load(low(arg), p.search(parts))
	if a.bits == 32 {
		return lower
	}
	return p.load(high(arg), p.jump(unix.BPF_JEQ, 0, lower, p.answer(beyond)))
}
