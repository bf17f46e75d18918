package stream

import (
	"io"
	"sync"
)

// queue is a pipe with room: a reader that is slow does not stop the streams
// beside its own. Writes after Close are thrown away.
type queue struct {
	room *room

	mu     sync.Mutex
	change sync.Cond
	data   []byte
	held   int  // bytes of data, and those that WriteTo has under way
	ended  bool // no more comes
	closed bool // nobody reads
}

func newQueue(space *room) *queue {
	q := &queue{room: space}
	q.change.L = &q.mu
	return q
}

// Write waits for room.
func (q *queue) Write(p []byte) (int, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for rest := p; len(rest) > 0 && !q.ended && !q.closed; {
		n := q.admit(len(rest))
		if n == 0 {
			q.change.Wait()
			continue
		}
		q.data = append(q.data, rest[:n]...)
		rest = rest[n:]
		q.change.Broadcast()
	}
	return len(p), nil
}

// admit says how many of n bytes may come in now, and takes the room for them.
func (q *queue) admit(n int) int {
	n = min(n, queueLimit-q.held)
	if n <= 0 {
		return 0
	}
	if !q.room.take(int64(n)) {
		if q.held > 0 {
			return 0 // till our own reader has moved
		}
		n = min(n, least)
		q.room.add(int64(n))
	}
	q.held += n
	return n
}

func (q *queue) Read(p []byte) (int, error) {
	next := q.next(len(p))
	n := copy(p, next)
	q.taken(n)
	if len(p) > 0 && n == 0 {
		return 0, io.EOF
	}
	return n, nil
}

// WriteTo is for io.Copy, which then needs no memory of its own.
func (q *queue) WriteTo(w io.Writer) (int64, error) {
	for total := int64(0); ; {
		next := q.next(32 << 10)
		if next == nil {
			return total, nil
		}
		n, err := q.pass(w, next)
		total += int64(n)
		if err != nil {
			return total, err
		}
	}
}

func (q *queue) pass(w io.Writer, data []byte) (int, error) {
	defer q.taken(len(data)) // whatever happens to w
	return w.Write(data)
}

// next waits for data and takes up to n bytes of it out; nil is the end. They
// count until taken is called.
func (q *queue) next(n int) []byte {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.data) == 0 && !q.ended && !q.closed {
		q.change.Wait()
	}
	if len(q.data) == 0 {
		return nil
	}
	next := q.data[:min(n, len(q.data))]
	if q.data = q.data[len(next):]; len(q.data) == 0 {
		q.data = nil // an idle stream keeps no memory
	}
	return next
}

func (q *queue) taken(n int) {
	q.mu.Lock()
	q.release(n)
	q.mu.Unlock()
}

func (q *queue) release(n int) {
	q.held -= n
	q.room.add(int64(-n))
	q.change.Broadcast()
}

// end is the end of what comes; what waits is still read.
func (q *queue) end() {
	q.mu.Lock()
	q.ended = true
	q.change.Broadcast()
	q.mu.Unlock()
}

// Close is the end of the reading.
func (q *queue) Close() error {
	q.mu.Lock()
	q.closed = true
	q.release(len(q.data))
	q.data = nil
	q.mu.Unlock()
	return nil
}
