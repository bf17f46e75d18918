package podsandbox

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"
)

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
}

type operation struct {
	key     string
	request proto.Message // nil when the key says it all
	began   time.Time
	cancel  context.CancelCauseFunc
	done    chan struct{}

	id  string // the result, to be read after done
	err error

	all     *operations
	callers int    // guarded by all.mu; 0 is abandoned for good
	step    string // guarded by all.mu
}

// at tells what the operation is doing, for those who wait for it.
func (op *operation) at(step string) {
	op.all.mu.Lock()
	defer op.all.mu.Unlock()
	op.step = step
}

// do runs work under key, or joins it.
func (o *operations) do(ctx context.Context, key string, request proto.Message,
	work func(context.Context, *operation) (string, error)) (string, error) {
	for {
		if err := ctx.Err(); err != nil {
			return "", fmt.Errorf("%s: %w", key, err)
		}
		op, joined, err := o.join(ctx, key, request, work)
		if err != nil {
			return "", err
		}
		select {
		case <-op.done:
			if joined {
				return op.id, op.err
			}
		case <-ctx.Done():
			return "", o.leave(ctx, op, joined)
		}
	}
}

// join gives the operation of key, begun if need be. Without joined it was
// abandoned and has to end before the next one can begin.
func (o *operations) join(ctx context.Context, key string, request proto.Message,
	work func(context.Context, *operation) (string, error)) (op *operation, joined bool, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return nil, false, fmt.Errorf("%s: %w", key, errGoingDown)
	}
	if op := o.running[key]; op != nil {
		if op.callers == 0 {
			return op, false, nil
		}
		if request != nil && !proto.Equal(request, op.request) {
			return nil, false, fmt.Errorf("%s: %w: a call with the same name and another config, at %q", key, ErrBusy, op.step)
		}
		op.callers++
		return op, true, nil
	}
	return o.begin(context.WithoutCancel(ctx), key, request, 1, work), true, nil
}

// begin starts an operation. The caller holds o.mu.
func (o *operations) begin(ctx context.Context, key string, request proto.Message, callers int,
	work func(context.Context, *operation) (string, error)) *operation {
	ctx, cancel := context.WithCancelCause(ctx)
	op := &operation{key: key, request: request, began: time.Now(), cancel: cancel,
		done: make(chan struct{}), all: o, callers: callers, step: "begin"}
	if o.running == nil {
		o.running = map[string]*operation{}
	}
	o.running[key] = op
	go func() {
		op.id, op.err = work(ctx, op)
		if op.err != nil {
			op.err = fmt.Errorf("%s: %w", key, op.err)
		}
		if cause := context.Cause(ctx); op.err != nil && cause != nil {
			op.err = fmt.Errorf("%w: %w", cause, op.err)
		}
		cancel(nil)
		o.mu.Lock()
		delete(o.running, key)
		o.mu.Unlock()
		close(op.done)
	}()
	return op
}

func (o *operations) leave(ctx context.Context, op *operation, joined bool) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	cause := ctx.Err()
	if !joined {
		cause = fmt.Errorf("%w: %w", ErrBusy, cause)
	} else if op.callers--; op.callers == 0 {
		op.cancel(nil)
	}
	return fmt.Errorf("%s: at step %q, %s after it began: %w", op.key, op.step,
		time.Since(op.began).Round(time.Millisecond), cause)
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
			return fmt.Errorf("wait for %s: %w", op.key, ctx.Err())
		}
	}
	return nil
}

// close lets no operation begin any more and abandons all.
func (o *operations) close(ctx context.Context) error {
	o.mu.Lock()
	o.closed = true
	o.mu.Unlock()
	return o.abandon(ctx, "", errGoingDown)
}

// turn is a lock that a caller can stop waiting for.
type turn chan struct{}

func newTurn() turn { return make(turn, 1) }

func (t turn) take(ctx context.Context) (release func(), err error) {
	select {
	case t <- struct{}{}:
		return func() { <-t }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}
