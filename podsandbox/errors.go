package podsandbox

import (
	"errors"
	"fmt"
	"strconv"
)

// The kinds of failure a caller acts upon. Test for them with errors.Is.
var (
	ErrNotFound  = errors.New("not found")
	ErrExists    = errors.New("already exists")
	ErrAmbiguous = errors.New("matches more than one id")
	// ErrInvalid is what every *InvalidError is.
	ErrInvalid = errors.New("invalid")
	// ErrFailedPrecondition is a request that makes no sense in the present
	// state, like an exec in a container that has ended.
	ErrFailedPrecondition = errors.New("not possible in this state")
	// ErrTimeout is a process that did not end in the time it was given.
	ErrTimeout = errors.New("timed out")
	// ErrBusy is a call that left an operation still at work; the same call
	// made again joins it.
	ErrBusy = errors.New("still in progress")
)

// InvalidError is bad input: which field, what it held and why not.
type InvalidError struct {
	Field  string // as in the request: "mounts[2].host_path"
	Value  string
	Reason string
}

func (e *InvalidError) Error() string {
	return fmt.Sprintf("%s %s: %s", e.Field, strconv.Quote(e.Value), e.Reason)
}

func (e *InvalidError) Is(target error) bool { return target == ErrInvalid }

func invalid(field, value, reason string, args ...any) error {
	if len(args) > 0 {
		reason = fmt.Sprintf(reason, args...)
	}
	return &InvalidError{Field: field, Value: value, Reason: reason}
}
