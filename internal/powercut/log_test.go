package powercut

import (
	"bytes"
	"math/rand/v2"
	"testing"
)

// writes makes a log of whole blocks, each full of its own number, to
// blocks one after the other, with a flush after every third.
func writes(n int) *Log {
	l := &Log{start: make([]byte, (n+1)*Block)}
	for i := range n {
		l.entries = append(l.entries, entry{int64(i+1) * Block, bytes.Repeat([]byte{byte(i + 1)}, Block)})
		if i%3 == 2 {
			l.entries = append(l.entries, entry{})
		}
	}
	return l
}

func TestCutKeepsWhatWasFlushedAndNothingThatWasNotWritten(t *testing.T) {
	l := writes(30)
	flushes := l.Flushes()
	for seed := range uint64(4) {
		replay, chance := l.Replay(Sector), rand.New(rand.NewPCG(seed, 0))
		for position := range l.Len() {
			got := replay.Cut(position, chance).flat()
			flushed, written := 0, 0
			for _, e := range l.entries[:position] {
				if e.flush() {
					flushed = written
				} else {
					written++
				}
			}
			for i := range 30 {
				page := got[(i+1)*Block : (i+2)*Block]
				for _, b := range page {
					switch {
					case i < flushed && b != byte(i+1):
						t.Fatalf("cut at %d: block %d was flushed and has %d", position, i+1, b)
					case i >= written && b != 0:
						t.Fatalf("cut at %d: block %d was not written and has %d", position, i+1, b)
					case b != 0 && b != byte(i+1):
						t.Fatalf("cut at %d: block %d has %d, which nobody wrote there", position, i+1, b)
					}
				}
			}
		}
	}
	if len(flushes) != 10 || !l.entries[flushes[3]].flush() {
		t.Errorf("flushes at %v, want 10", flushes)
	}
}

func TestCutsTearLoseAndReorderWhatWasNotFlushed(t *testing.T) {
	l := writes(2)
	seen := map[string]bool{}
	for seed := range uint64(400) {
		got := l.Replay(Sector).Cut(2, rand.New(rand.NewPCG(seed, 0))).flat()
		first, second := state(got[Block:2*Block]), state(got[2*Block:])
		seen[first+", "+second] = true
	}
	for _, want := range []string{"none, none", "whole, whole", "whole, none", "none, whole", "whole, torn", "torn, torn"} {
		if !seen[want] {
			t.Errorf("no cut left %s of two writes: %v", want, seen)
		}
	}
}

func state(page []byte) string {
	switch bytes.Count(page, []byte{0}) {
	case 0:
		return "whole"
	case len(page):
		return "none"
	}
	return "torn"
}

func TestSuperblockIsNotTorn(t *testing.T) {
	l := &Log{start: make([]byte, 2*Block), entries: []entry{{0, bytes.Repeat([]byte{1}, 2*Block)}}}
	for seed := range uint64(200) {
		if got := l.Replay(Sector).Cut(1, rand.New(rand.NewPCG(seed, 0))).flat(); state(got[:Block]) == "torn" {
			t.Fatalf("seed %d: torn", seed)
		}
	}
}
