package stream

import "sync/atomic"

// How many bytes of clients may wait for who takes them: of one stream, of one
// client, and of all. More holds the connection, for neither SPDY as its
// clients speak it nor WebSocket can hold one stream.
const (
	queueLimit = 256 << 10
	clientRoom = 4 << 20
	serverRoom = 64 << 20
	// least is what an empty queue takes though there is no room: so nobody
	// waits for another's reader, and who fills the room only slows others.
	least = 4 << 10
)

// room counts what waits in several queues.
type room struct {
	limit  int64
	within *room // nil for that of all
	used   atomic.Int64
}

// part is the room of one client.
func (r *room) part() *room { return &room{limit: clientRoom, within: r} }

// take takes room for n bytes, if there is any.
func (r *room) take(n int64) bool {
	if r.used.Add(n) > r.limit || r.within != nil && !r.within.take(n) {
		r.used.Add(-n)
		return false
	}
	return true
}

// add takes room though there is none, or gives it back.
func (r *room) add(n int64) {
	for ; r != nil; r = r.within {
		r.used.Add(n)
	}
}
