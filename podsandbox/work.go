package podsandbox

import (
	"context"
	"fmt"
	"sync"
	"time"

	"cri-mini/internal/hostpath"
	"cri-mini/podsandbox/history"
)

// work is a call on its way: what it is, what it does now and since when, so
// that whoever waits can be told why.
type work struct {
	name  string
	began time.Time
	deed  *history.Deed // what will be remembered of it

	mu     sync.Mutex
	step   string
	since  time.Time
	behind *work  // what it waits for, if it is another one
	asking string // the host path that has to answer, with what it is for
}

// work begins a call of a name, which is what with an id.
func (p *Pods) work(ctx context.Context, name, what string, about history.Subject) *work {
	now := time.Now()
	w := &work{name: name, began: now, step: "beginning", since: now}
	w.deed = p.opt.History.Begin(ctx, about, what, w.doing)
	return w
}

// at says what the work does from now on.
func (w *work) at(step string) {
	w.mu.Lock()
	w.step, w.since, w.behind = step, time.Now(), nil
	w.mu.Unlock()
	w.deed.Stage(step)
}

// waits says that the work goes on when other has got further; the caller calls
// done then.
func (w *work) waits(other *work) (done func()) {
	if w == nil || other == nil || w == other {
		return func() {}
	}
	w.mu.Lock()
	w.behind = other
	w.mu.Unlock()
	began := time.Now()
	return func() {
		w.remember(began, other.name)
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.behind == other {
			w.behind = nil
		}
	}
}

// asks says that the file system of a host path has to answer.
func (w *work) asks(what string) (answered func()) {
	set := func(what string) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.asking = what
	}
	set(what)
	began := time.Now()
	return func() { w.remember(began, what); set("") }
}

// remember keeps what was waited for if somebody could ask about it.
func (w *work) remember(began time.Time, what string) {
	if time.Since(began) >= 100*time.Millisecond {
		w.deed.Waits(what)
	}
}

// String is like "run pod default/web: setting up the network for 12s".
func (w *work) String() string { return w.name + ": " + w.doing() }

// doing is String without the name.
func (w *work) doing() string {
	w.mu.Lock()
	step, since, behind, asking := w.step, w.since, w.behind, w.asking
	w.mu.Unlock()
	now := time.Now()
	text := fmt.Sprintf("%s for %s", step, age(now.Sub(since)))
	if all := now.Sub(w.began); age(all) != age(now.Sub(since)) {
		text += fmt.Sprintf(", begun %s ago", age(all))
	}
	if asking != "" {
		text += ", waiting for " + asking
	}
	if behind != nil {
		text += fmt.Sprintf(" (%s)", behind)
	}
	return text
}

// age is as exact as a person needs it.
func age(d time.Duration) time.Duration {
	if d >= time.Second {
		return d.Round(time.Second)
	}
	return d.Round(time.Millisecond)
}

type workKey struct{}

// workOf gives the work that a context belongs to; nil for none.
func workOf(ctx context.Context) *work {
	w, _ := ctx.Value(workKey{}).(*work)
	return w
}

// within gives the context of a work.
func (w *work) within(ctx context.Context) context.Context {
	return hostpath.Heard(context.WithValue(ctx, workKey{}, w), w.asks)
}

// turn is a lock that a caller can stop waiting for, and that tells who has it.
type turn struct {
	slot chan struct{}

	mu     sync.Mutex
	holder *work
}

func newTurn() *turn { return &turn{slot: make(chan struct{}, 1)} }

// take waits for the turn on behalf of w.
func (t *turn) take(ctx context.Context, w *work) (release func(), err error) {
	select {
	case t.slot <- struct{}{}:
	default:
		w.at("waiting for its turn")
		defer w.waits(t.who())()
		select {
		case t.slot <- struct{}{}:
		case <-ctx.Done():
			return nil, fmt.Errorf("%s: %w", w.doing(), ctx.Err())
		}
	}
	t.set(w)
	return func() { t.set(nil); <-t.slot }, nil
}

func (t *turn) who() *work {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.holder
}

func (t *turn) set(w *work) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.holder = w
}
