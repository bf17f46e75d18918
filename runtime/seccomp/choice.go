package seccomp

import (
	"maps"
	"slices"

	"golang.org/x/sys/unix"
)

// choice is what the program does with one call: always the same answer, or
// the first alternative whose conditions hold, or else the default.
type choice struct {
	answer       uint32
	alternatives []alternative
}

type alternative struct {
	when   []condition
	answer uint32
}

// span is a range of numbers up to the next span, all with the same choice.
type span struct {
	first  uint32
	choice *choice
}

// missing is the answer to calls that the profile could not know.
const missing = unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)

// spans divides all numbers of an architecture.
//
// Numbers above the largest one that the profile names are calls newer than
// the profile. They answer ENOSYS, as a kernel of the profile's time would: a
// C library then falls back to the older call, while with the default EPERM it
// gives up. (runc does the same. It is left out where the default lets calls
// through: such a profile forbids what it lists.) Names that this compiler
// does not know are passed over; being newer, they are in that upper part.
// Numbers in between that the profile does not name get the default.
//
// A number that is no call of this architecture at all, x32 on amd64, answers
// ENOSYS always, as most kernels do: those calls would otherwise do what the
// profile forbids under another number.
func (a *arch) spans(rules []rule, fallback uint32) []span {
	byNumber, largest := a.choices(rules, fallback)
	standard := &choice{answer: fallback}
	newer := &choice{answer: missing}

	all := append(make([]span, 0, 2*len(byNumber)+4), span{0, standard})
	put := func(first uint32, c *choice) {
		if last := &all[len(all)-1]; last.first == first {
			last.choice = c
		} else {
			all = append(all, span{first, c})
		}
	}
	sorted := slices.Sorted(maps.Keys(byNumber))
	first, _ := slices.BinarySearch(sorted, a.foreign)
	for _, n := range sorted[:first] {
		put(n, byNumber[n])
		put(n+1, standard)
	}
	if !permissive(fallback) {
		put(largest+1, newer)
	}
	switch a.foreign {
	case x32:
		put(x32, newer)
	case armPrivate:
		put(armPrivate, standard)
	}
	for _, n := range sorted[first:] {
		put(n, byNumber[n])
		put(n+1, standard)
	}
	return slices.CompactFunc(all, func(a, b span) bool { return a.choice.same(b.choice) })
}

// permissive answers let the call happen. A tracer is taken for one: it may
// emulate what it gets.
func permissive(answer uint32) bool {
	switch answer & unix.SECCOMP_RET_ACTION_FULL {
	case unix.SECCOMP_RET_ALLOW, unix.SECCOMP_RET_LOG, unix.SECCOMP_RET_TRACE:
		return true
	}
	return false
}

func (c *choice) same(other *choice) bool {
	return c == other || c.answer == other.answer && c.alternatives == nil && other.alternatives == nil
}

// choices collects the rules by number, and finds the largest number named.
func (a *arch) choices(rules []rule, fallback uint32) (byNumber map[uint32]*choice, largest uint32) {
	byNumber = make(map[uint32]*choice, 512)
	for _, r := range rules {
		for _, name := range r.names {
			if row, ok := numbers(name); ok && row.numbers[a.column] >= 0 {
				n := uint32(row.numbers[a.column])
				if n < a.foreign {
					largest = max(largest, n)
				}
				a.add(byNumber, n, r, fallback)
			}
			mux, ok := muxed[name]
			if !ok || a != i386 {
				continue
			}
			if moved, ok := r.behind(mux); ok {
				a.add(byNumber, mux.number, moved, fallback)
			}
		}
	}
	return byNumber, largest
}

// add joins a rule to what is known of a number. The first rule without
// conditions decides, whatever conditions stand before or after it; that is
// how libseccomp joins rules. A rule that only repeats the default is no rule:
// before one without conditions it would make a difference, and runc has
// always dropped it.
func (a *arch) add(byNumber map[uint32]*choice, n uint32, r rule, fallback uint32) {
	c := byNumber[n]
	if r.answer == fallback || c != nil && c.alternatives == nil {
		return
	}
	always := len(r.when) == 0
	var more []alternative
	for _, when := range r.when {
		seen := a.visible(when)
		always = always || len(seen) == 0
		more = append(more, alternative{seen, r.answer})
	}
	switch {
	case always:
		byNumber[n] = &choice{answer: r.answer}
	case c == nil:
		byNumber[n] = &choice{answer: fallback, alternatives: more}
	default:
		c.alternatives = append(c.alternatives, more...)
	}
}

// visible cuts conditions down to the bits that an argument has, and leaves
// out those that then say nothing.
func (a *arch) visible(when []condition) []condition {
	var seen []condition
	for _, c := range when {
		if a.bits == 32 {
			c.mask, c.value = c.mask&0xffffffff, c.value&0xffffffff
		}
		if c.mask != 0 {
			seen = append(seen, c)
		}
	}
	return seen
}

// behind is the rule for the call that holds this one as its first argument.
// The real arguments are in memory, where a filter cannot look: a rule with
// conditions forbids the call for all of them, and allows it for none.
// (libseccomp allows it for all but the first, and so every kind of socket to
// a profile that allows one.)
func (r rule) behind(mux muxCall) (rule, bool) {
	number := condition{index: 0, op: eq, mask: mux.mask, value: mux.call}
	moved := rule{names: r.names, answer: r.answer, when: [][]condition{{number}}}
	return moved, r.when == nil || !permissive(r.answer)
}
