package podsandbox

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"google.golang.org/protobuf/proto"

	"cri-mini/internal/mishap"
	"cri-mini/podsandbox/history"
)

// errLeft is the end of a call that nobody waits for any more.
var errLeft = errors.New("every caller has left")

var errGoingDown = fmt.Errorf("%w: going down", ErrFailedPrecondition)

// operations are the calls at work, by what they do to which thing. A client
// whose patience ended calls again: it then joins the call that is still
// running and gets its result. An operation works as long as one caller waits
// for it; then it is cancelled and takes back what it did. Nothing is reserved
// beyond that.
type operations struct {
	mu      sync.Mutex
	running map[string]*operation
	closed  bool
	pods    *Pods
}

// order is what one operation is to do.
type order struct {
	key     string // of all with the same key one is at work
	what    string // a word of package history
	about   history.Subject
	request proto.Message // nil when the key says it all
}

type operation struct {
	*work
	order
	cancel context.CancelCauseFunc
	done   chan struct{}

	id  string // the result, to be read after done
	err error

	callers int // guarded by the operations' mu; 0 is abandoned for good
}

// task is what an operation does. Its context is that of the operation.
type task func(context.Context, *operation) (id string, err error)

// do runs a task, or joins it.
func (o *operations) do(ctx context.Context, want order, run task) (string, error) {
	for {
		if err := ctx.Err(); err != nil {
			return "", fmt.Errorf("%s: %w", want.key, err)
		}
		op, joined, err := o.join(ctx, want, run)
		if err != nil {
			return "", err
		}
		gotOn := workOf(ctx).waits(op.work)
		select {
		case <-op.done:
			gotOn()
			if joined {
				return op.id, op.err
			}
		case <-ctx.Done():
			gotOn()
			return "", o.leave(ctx, op, joined)
		}
	}
}

// join gives the operation of a key, begun if need be. Without joined it was
// abandoned and has to end before the next one can begin.
func (o *operations) join(ctx context.Context, want order, run task) (op *operation, joined bool, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return nil, false, fmt.Errorf("%s: %w", want.key, errGoingDown)
	}
	if op := o.running[want.key]; op != nil {
		if op.callers == 0 {
			return op, false, nil
		}
		if want.request != nil && !proto.Equal(want.request, op.request) {
			return nil, false, fmt.Errorf("%w: a call with the same name and another config is at work: %s", ErrBusy, op)
		}
		op.callers++
		return op, true, nil
	}
	return o.begin(context.WithoutCancel(ctx), want, 1, run), true, nil
}

// begin starts an operation. The caller holds o.mu.
func (o *operations) begin(ctx context.Context, want order, callers int, run task) *operation {
	ctx, cancel := context.WithCancelCause(ctx)
	op := &operation{work: o.pods.work(ctx, want.key, want.what, want.about), order: want, cancel: cancel, done: make(chan struct{}), callers: callers}
	if o.running == nil {
		o.running = map[string]*operation{}
	}
	o.running[want.key] = op
	go func() {
		// Nobody above us would catch a panic: this is no caller's goroutine.
		op.err = mishap.Caught(o.pods.log, want.key, func() (err error) {
			op.id, err = run(op.within(ctx), op)
			return err
		})
		if op.err != nil {
			op.err = fmt.Errorf("%s: %w", want.key, op.err)
		}
		if cause := context.Cause(ctx); op.err != nil && cause != nil {
			op.err = fmt.Errorf("%w: %w", cause, op.err)
		}
		cancel(nil)
		op.deed.End(op.err)
		o.mu.Lock()
		delete(o.running, want.key)
		o.mu.Unlock()
		close(op.done)
	}()
	return op
}

// leave gives up waiting. The error says what for.
func (o *operations) leave(ctx context.Context, op *operation, joined bool) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !joined {
		return fmt.Errorf("%w, and being taken back: %s: %w", ErrBusy, op, ctx.Err())
	}
	// Before the end of the work, which by then waits for nothing any more.
	err := fmt.Errorf("%s: %w", op, ctx.Err())
	if op.callers--; op.callers == 0 {
		op.cancel(errLeft)
	}
	return err
}

// abandon cancels the operations whose key begins with prefix and waits until
// they have taken back what they did. Their callers get cause.
func (o *operations) abandon(ctx context.Context, prefix string, cause error) error {
	o.mu.Lock()
	var found []*operation
	for key, op := range o.running {
		if strings.HasPrefix(key, prefix) {
			op.cancel(cause)
			found = append(found, op)
		}
	}
	o.mu.Unlock()
	for _, op := range found {
		select {
		case <-op.done:
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w", op, ctx.Err())
		}
	}
	return nil
}

// atWork lists what the operations do, for a person.
func (o *operations) atWork() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	var list []string
	for _, op := range o.running {
		list = append(list, op.String())
	}
	return list
}

// close lets no operation begin any more and abandons all.
func (o *operations) close(ctx context.Context) error {
	o.mu.Lock()
	o.closed = true
	o.mu.Unlock()
	return o.abandon(ctx, "", errGoingDown)
}
