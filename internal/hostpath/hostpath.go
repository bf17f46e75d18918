// Package hostpath asks the node's file systems about paths that users name.
//
// One of them may be on a server that does not answer, and no system call with a
// path has a deadline. Each question therefore has a goroutine, and so a thread,
// of its own, which the one who asks can leave behind. A path that somebody was
// left waiting for is not asked again before it has answered, so that those who
// try again and again do not use up the threads. They wait a moment with it, for
// whoever left may just have been impatient; then the path is silent.
//
// It does not know what is asked, nor of containers.
package hostpath

import (
	"context"
	"fmt"
	"runtime/debug"
	"strings"
	"sync"
	"time"
)

// most is how many questions may be left without an answer. Go ends a program
// with 10,000 threads.
const most = 512

// moment is how long a path may take before it is called silent.
const moment = time.Second

// question is a system call at work.
type question struct {
	path  string
	since time.Time
	done  chan struct{} // closed with the answer
	left  bool          // nobody waits for the answer any more
}

// Threads belong to the process, and so does what uses them up.
var (
	mu        sync.Mutex // guards what follows
	questions = map[*question]bool{}
)

// SilentError is a path that has not answered, or would not: too many have not.
type SilentError struct {
	Path string
	At   string // what has not answered: Path, or one that it is below of
	For  time.Duration
	Err  error // why the one who asked stopped waiting; nil when nothing was asked
}

func (e *SilentError) Error() string {
	text := fmt.Sprintf("host path %s has not answered for %s", e.At, e.For.Round(100*time.Millisecond))
	if e.At != e.Path {
		text = fmt.Sprintf("host path %s: %s", e.Path, text)
	}
	return text
}

func (e *SilentError) Unwrap() error { return e.Err }

// Ask runs a question about path and waits for the answer as long as ctx lasts.
// An answer that comes later is given to drop, which may be nil. Use says what
// the path is for, to the one who waits.
func Ask[T any](ctx context.Context, use, path string, ask func() (T, error), drop func(T)) (T, error) {
	var none T
	q, err := begin(ctx, use, path)
	if err != nil {
		return none, err
	}
	answered := make(chan answer[T], 1)
	go func() {
		var a answer[T]
		defer func() {
			if p := recover(); p != nil {
				a.panicked = fmt.Sprintf("%v\n%s", p, debug.Stack())
			}
			if q.end() && a.err == nil && a.panicked == "" && drop != nil {
				drop(a.value)
			}
			answered <- a
		}()
		a.value, a.err = ask()
	}()
	defer tell(ctx, use+" "+path)()
	select {
	case a := <-answered:
		return a.get()
	case <-ctx.Done():
	}
	if !q.leave() { // the answer came at the same time
		a := <-answered
		return a.get()
	}
	return none, &SilentError{path, path, time.Since(q.since), ctx.Err()}
}

type answer[T any] struct {
	value    T
	err      error
	panicked string
}

// get goes on with a panic where somebody may catch it.
func (a answer[T]) get() (T, error) {
	if a.panicked != "" {
		panic(a.panicked)
	}
	return a.value, a.err
}

// begin waits for a question about the same path that somebody left a moment
// ago.
func begin(ctx context.Context, use, path string) (*question, error) {
	for {
		q, other, err := tryBegin(path)
		if other == nil {
			return q, err
		}
		if err := other.await(ctx, use); err != nil {
			return nil, &SilentError{path, other.path, time.Since(other.since), err}
		}
	}
}

// tryBegin begins a question, or gives the other one that is in its way.
func tryBegin(path string) (q, other *question, err error) {
	mu.Lock()
	defer mu.Unlock()
	left := 0
	for q := range questions {
		if !q.left {
			continue
		}
		left++
		switch covers := q.covers(path); {
		case covers && time.Since(q.since) < moment:
			return nil, q, nil
		case covers, left >= most:
			return nil, nil, &SilentError{Path: path, At: q.path, For: time.Since(q.since)}
		}
	}
	q = &question{path: path, since: time.Now(), done: make(chan struct{})}
	questions[q] = true
	return q, nil, nil
}

// await returns with the answer or after a moment.
func (q *question) await(ctx context.Context, use string) error {
	defer tell(ctx, use+" "+q.path)()
	select {
	case <-q.done:
	case <-time.After(time.Until(q.since.Add(moment))):
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}

// covers says that path is q's or below it.
func (q *question) covers(path string) bool {
	return path == q.path || strings.HasPrefix(path, strings.TrimSuffix(q.path, "/")+"/")
}

// end says whether nobody waits any more.
func (q *question) end() (left bool) {
	mu.Lock()
	defer mu.Unlock()
	delete(questions, q)
	close(q.done)
	return q.left
}

// leave says whether there is something left behind.
func (q *question) leave() bool {
	mu.Lock()
	defer mu.Unlock()
	q.left = questions[q]
	return q.left
}

// Silent lists the paths that somebody stopped waiting for and that have not
// answered since.
func Silent() []string {
	mu.Lock()
	defer mu.Unlock()
	var list []string
	for q := range questions {
		if q.left {
			list = append(list, fmt.Sprintf("%s for %s", q.path, time.Since(q.since).Round(time.Second)))
		}
	}
	return list
}

type listener struct{}

// Heard gives a context in which tell learns what is being asked, and its result
// is called when that is over.
func Heard(ctx context.Context, tell func(what string) (over func())) context.Context {
	return context.WithValue(ctx, listener{}, tell)
}

func tell(ctx context.Context, what string) (over func()) {
	if tell, ok := ctx.Value(listener{}).(func(string) func()); ok {
		return tell(what)
	}
	return func() {}
}
