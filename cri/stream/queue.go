package stream

import (
	"io"
	"sync"
)

// queueLimit is how much of a client's bytes wait for who takes them. More
// than that holds the connection, for neither SPDY as its clients speak it nor
// WebSocket can hold one stream.
const queueLimit = 1 << 20

// queue is a pipe with room: a reader that is slow does not stop the streams
// beside its own. Writes after Close are thrown away.
type queue struct {
	mu     sync.Mutex
	change sync.Cond
	data   []byte
	ended  bool // no more comes
	closed bool // nobody reads
}

func newQueue() *queue {
	q := new(queue)
	q.change.L = &q.mu
	return q
}

func (q *queue) Write(p []byte) (int, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.data) > 0 && len(q.data)+len(p) > queueLimit && !q.ended && !q.closed {
		q.change.Wait()
	}
	if !q.ended && !q.closed {
		q.data = append(q.data, p...)
		q.change.Broadcast()
	}
	return len(p), nil
}

func (q *queue) Read(p []byte) (int, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.data) == 0 && !q.ended && !q.closed {
		q.change.Wait()
	}
	if len(q.data) == 0 || q.closed {
		return 0, io.EOF
	}
	n := copy(p, q.data)
	if q.data = q.data[n:]; len(q.data) == 0 {
		q.data = nil // an idle stream keeps no memory
	}
	q.change.Broadcast()
	return n, nil
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
	q.closed, q.data = true, nil
	q.change.Broadcast()
	q.mu.Unlock()
	return nil
}
