package stream

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/moby/spdystream"
)

// maxStreams bounds those of one client, also if the library does not take
// them: two for each forward, for as many that are refused, and the frames that
// the library keeps.
const maxStreams = 4*maxClientForwards + 256

// spdyStream is one stream of a client. What comes on it waits in the queue;
// the library has the half towards the client.
type spdyStream struct {
	*queue
	ctx    context.Context // ends when the client resets the stream, or leaves
	cancel context.CancelFunc
	said   atomic.Bool // all that we have to say

	*spdystream.Stream // once the library has told of it
}

func (s *spdyStream) Read(p []byte) (int, error)  { return s.queue.Read(p) }
func (s *spdyStream) Write(p []byte) (int, error) { return s.Stream.Write(p) }

// Close is the end of the reading.
func (s *spdyStream) Close() error { return s.queue.Close() }

func (s *spdyStream) CloseWrite() error {
	s.said.Store(true)
	return s.Stream.Close()
}

// reset is the client's. One that has heard all wants nothing more; what it had
// sent before still arrives.
func (s *spdyStream) reset() {
	s.end()
	if !s.said.Load() {
		s.cancel()
	}
}

// drop ends a stream both ways.
func (s *spdyStream) drop() {
	s.queue.Close()
	s.cancel()
	if s.Stream != nil {
		s.Stream.Reset()
	}
}

// spdyStreams are the open ones of a client.
type spdyStreams struct {
	ctx  context.Context // of the connection
	room *room

	mu    sync.Mutex
	open  map[uint32]*spdyStream
	next  uint32 // the lowest number that may come
	ended bool   // no more are opened
}

func newSPDYStreams(ctx context.Context, space *room) *spdyStreams {
	return &spdyStreams{ctx: ctx, room: space, open: map[uint32]*spdyStream{}, next: 1}
}

// add takes a stream before the library knows it, for its data may come first.
// Of a number that came before, the library would start a goroutine to refuse
// it, and many of these.
func (t *spdyStreams) add(id uint32, ended bool) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if id < t.next {
		return fmt.Errorf("stream %d, want %d or above", id, t.next)
	}
	if len(t.open) >= maxStreams {
		return fmt.Errorf("stream %d is one of more than %d", id, maxStreams)
	}
	t.next = id + 2
	if t.ended {
		return nil
	}
	s := &spdyStream{queue: newQueue(t.room)}
	s.ctx, s.cancel = context.WithCancel(t.ctx)
	if ended {
		s.end()
	}
	t.open[id] = s
	return nil
}

// get returns nil for a stream that is not open.
func (t *spdyStreams) get(id uint32) *spdyStream {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.open[id]
}

func (t *spdyStreams) reset(id uint32) {
	if s := t.get(id); s != nil {
		s.reset()
	}
}

// join gives a stream the library's half of it.
func (t *spdyStreams) join(half *spdystream.Stream) *spdyStream {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.open[half.Identifier()]
	if s != nil {
		s.Stream = half
	}
	return s
}

func (t *spdyStreams) remove(id uint32) {
	t.mu.Lock()
	delete(t.open, id)
	t.mu.Unlock()
}

// end leaves none, and returns those that were open.
func (t *spdyStreams) end() []*spdyStream {
	t.mu.Lock()
	defer t.mu.Unlock()
	var all []*spdyStream
	for _, s := range t.open {
		all = append(all, s)
	}
	clear(t.open)
	t.ended = true
	return all
}
