package model

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"
)

// May is the set of worlds that may be. The zero value is an empty node.
type May struct {
	worlds  map[World]bool
	pending []Op // cut off, and perhaps still at work
}

// settled gives the worlds that may be now, with whatever happened since the
// last answer: programs that ended, cut off calls that went on.
func (m *May) settled() map[World]bool {
	if m.worlds == nil {
		m.worlds = map[World]bool{{}: true}
	}
	todo := slices.Collect(maps.Keys(m.worlds))
	for len(todo) > 0 {
		w := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		next := w.alone()
		for _, op := range m.pending {
			next = append(next, w.Begun(op)...)
		}
		for _, w := range next {
			if !m.worlds[w] {
				m.worlds[w] = true
				todo = append(todo, w)
			}
		}
	}
	return m.worlds
}

// narrow replaces the worlds, unless that leaves none.
func (m *May) narrow(what string, next map[World]bool) error {
	if len(next) == 0 {
		return fmt.Errorf("%s does not fit what may be: %s", what, m)
	}
	m.worlds = next
	return nil
}

// Answer takes note of a call's answer.
func (m *May) Answer(op Op, code codes.Code) error {
	next := map[World]bool{}
	for w := range m.settled() {
		for _, o := range w.Do(op) {
			if o.Code == code {
				next[o.After] = true
			}
		}
	}
	m.ended(op, code)
	return m.narrow(fmt.Sprintf("%s: %s", op, code), next)
}

// Answers takes note of what several calls of the same kind at the same time
// heard. They may have joined each other or come one after the other. Others of
// them, if some were cut off, may have been first, and not come to their end.
func (m *May) Answers(op Op, cut bool, heard ...codes.Code) error {
	next := map[World]bool{}
	for w := range m.settled() {
		begun := []World{w}
		if cut {
			begun = append(begun, w.Begun(op)...)
		}
		for _, b := range begun {
			for _, first := range b.Do(op) {
				all := map[codes.Code]bool{first.Code: true}
				for _, second := range first.After.Do(op) {
					all[second.Code] = true
				}
				if (cut || slices.Contains(heard, first.Code)) && !slices.ContainsFunc(heard, func(c codes.Code) bool { return !all[c] }) {
					next[first.After] = true
				}
			}
		}
	}
	if cut {
		m.CutOff(op)
	}
	m.ended(op, heard[0])
	return m.narrow(fmt.Sprintf("%s, called %d times at once: %v", op, len(heard), heard), next)
}

// Both takes note of the answers to two calls at the same time: one must have
// come before the other.
func (m *May) Both(a Op, heardA codes.Code, b Op, heardB codes.Code) error {
	next := map[World]bool{}
	order := func(first Op, firstHeard codes.Code, second Op, secondHeard codes.Code) {
		for w := range m.settled() {
			for _, one := range w.Do(first) {
				if !meant(one.Code, firstHeard, first, second) {
					continue
				}
				for after := range (&May{worlds: map[World]bool{one.After: true}}).settled() {
					for _, two := range after.Do(second) {
						if meant(two.Code, secondHeard, second, first) {
							next[two.After] = true
						}
					}
				}
			}
		}
	}
	order(a, heardA, b, heardB)
	order(b, heardB, a, heardA)
	m.ended(a, heardA)
	m.ended(b, heardB)
	return m.narrow(fmt.Sprintf("%s: %s, and at the same time %s: %s", a, heardA, b, heardB), next)
}

// meant tells whether a code that was heard can stand for the model's. What is
// being removed by another call is not there any more, or not in the right
// state, as one likes; and an exec may meet the end of its container.
func meant(code, heard codes.Code, op, other Op) bool {
	removed := other.Kind == Remove || other.Kind == RemovePod
	switch {
	case code == heard:
		return true
	case removed && code == codes.NotFound && heard == codes.FailedPrecondition:
		return true
	case op.Kind == Exec && heard != codes.NotFound:
		return true
	}
	return false
}

// CutOff takes note of a call whose answer nobody heard.
func (m *May) CutOff(op Op) {
	if !slices.Contains(m.pending, op) {
		m.pending = append(m.pending, op)
	}
	m.settled()
}

// ended forgets the cut off calls that an answer proves to have ended: the same
// call, and those about what is gone.
func (m *May) ended(op Op, code codes.Code) {
	m.settled()
	m.pending = slices.DeleteFunc(m.pending, func(p Op) bool {
		switch {
		case p.same(op):
			return true
		case code != codes.OK:
			return false
		case op.Kind == RemovePod:
			return p.Pod == op.Pod && p.Kind != RunPod && p.Kind < Pull
		case op.Kind == Remove:
			return p.Pod == op.Pod && p.Slot == op.Slot && p.Kind >= Start && p.Kind < Pull
		}
		return false
	})
}

// See takes note of something seen.
func (m *May) See(what string, fits func(World) bool) error {
	next := map[World]bool{}
	for w := range m.settled() {
		if fits(w) {
			next[w] = true
		}
	}
	return m.narrow(what, next)
}

// One gives a world that may be, and whether it is the only one.
func (m *May) One() (one World, only bool) {
	list := slices.SortedFunc(maps.Keys(m.settled()), func(a, b World) int { return strings.Compare(a.String(), b.String()) })
	return list[0], len(list) == 1
}

func (m *May) String() string {
	var list []string
	for w := range m.settled() {
		list = append(list, w.String())
	}
	slices.Sort(list)
	if more := len(list) - 8; more > 0 {
		list = append(list[:8], fmt.Sprintf("and %d more", more))
	}
	text := strings.Join(list, ", or ")
	for _, op := range m.pending {
		text += fmt.Sprintf(" (cut off: %s)", op)
	}
	return text
}
