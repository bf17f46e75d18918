package powercut

import "math/rand/v2"

// Log is what was written to a Disk, in the order in which it was done. The
// disk answers one request after the other: what an entry is before was done
// before it.
type Log struct {
	start   []byte // the content before the first entry
	entries []entry
}

// entry is a write or, without data, a flush: all before it is on stable
// storage once it is answered.
type entry struct {
	offset int64
	data   []byte
}

func (e entry) flush() bool { return e.data == nil }

// Len is how many positions there are to cut at, which begin with 0.
func (l *Log) Len() int { return len(l.entries) + 1 }

// Flushes lists the positions right before a flush, where most is at risk.
func (l *Log) Flushes() (positions []int) {
	for i, e := range l.entries {
		if e.flush() {
			positions = append(positions, i)
		}
	}
	return positions
}

// Replay makes what a disk may have after a cut. Its cuts have to come in the
// order of their positions, for it goes through the log only once.
type Replay struct {
	log     *Log
	unit    int64
	durable Content // all before the last flush
	flushed int     // how many entries that is
}

// Replay begins at the start of the log, which nothing is added to any more. The
// unit is what the disk writes as a whole or not at all, Sector or Block.
func (l *Log) Replay(unit int64) *Replay {
	return &Replay{log: l, unit: unit, durable: Content{base: l.start}}
}

// Cut is what a disk may have after the power went when position entries of the
// log had been done: all up to the last flush, and of what came after it what
// chance lets survive.
func (r *Replay) Cut(position int, chance *rand.Rand) *Content {
	for i := position - 1; i >= r.flushed; i-- {
		if r.log.entries[i].flush() {
			for _, e := range r.log.entries[r.flushed:i] {
				r.durable.write(e.offset, e.data)
			}
			r.durable = r.durable.settled()
			r.flushed = i + 1
			break
		}
	}
	c := r.durable // whose own pages are none
	survive := fate(chance, r.unit)
	for i, e := range r.log.entries[r.flushed:position] {
		survive(&c, e, position-r.flushed-i)
	}
	return &c
}

// What disks write as a whole.
const (
	Sector = 512
	Block  = 4096
)

// pieceAt is how much of a write can only survive together. The first block has
// the superblock, of two sectors: ext4 mounts nothing where only one of them was
// written, as can happen on no disk whose sectors are as large as its blocks.
func pieceAt(offset, size int64) int64 {
	if offset < Block {
		size = Block
	}
	return size - offset%size
}

// fate chooses what happens to all writes that were not flushed. What survives
// of two writes to the same place is the later one, for a disk keeps that order.
func fate(chance *rand.Rand, unit int64) func(c *Content, e entry, fromEnd int) {
	odds := []float64{0.1, 0.5, 0.9}[chance.IntN(3)]
	whole := func(c *Content, e entry, _ int) { c.write(e.offset, e.data) }
	pieces := func(size int64) func(*Content, entry, int) {
		return func(c *Content, e entry, _ int) {
			for at, n := int64(0), int64(0); at < int64(len(e.data)); at += n {
				n = min(pieceAt(e.offset+at, size), int64(len(e.data))-at)
				if chance.Float64() < odds {
					c.write(e.offset+at, e.data[at:at+n])
				}
			}
		}
	}
	switch chance.IntN(6) {
	case 0: // nothing
		return func(*Content, entry, int) {}
	case 1: // everything, and of the last write a part
		torn := pieces(unit)
		return func(c *Content, e entry, fromEnd int) {
			if fromEnd == 1 {
				torn(c, e, fromEnd)
			} else {
				whole(c, e, fromEnd)
			}
		}
	case 2: // only the last ones
		last := 1 + chance.IntN(8)
		return func(c *Content, e entry, fromEnd int) {
			if fromEnd <= last {
				whole(c, e, fromEnd)
			}
		}
	case 3: // some writes
		return func(c *Content, e entry, fromEnd int) {
			if chance.Float64() < odds {
				whole(c, e, fromEnd)
			}
		}
	case 4:
		return pieces(Block)
	default:
		return pieces(unit)
	}
}
