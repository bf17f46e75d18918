package podsandbox

import (
	"errors"

	"cri-mini/podsandbox/plan"
	"cri-mini/runtime/spec"
)

// The kinds of failure a caller acts upon. Test for them with errors.Is.
var (
	ErrNotFound  = errors.New("not found")
	ErrExists    = errors.New("already exists")
	ErrAmbiguous = errors.New("matches more than one")
	// ErrInvalid is what every *InvalidError is: bad input.
	ErrInvalid = plan.ErrInvalid
	// ErrFailedPrecondition is a request that makes no sense in the present
	// state, like an exec in a container that has ended.
	ErrFailedPrecondition = errors.New("not possible in this state")
	// ErrTimeout is a process that did not end in the time it was given.
	ErrTimeout = errors.New("timed out")
	// ErrBusy is a call that has to wait for another one to end.
	ErrBusy = errors.New("still in progress")
	// ErrMonitorDied is a call that met the end of the monitor, and may be made again.
	ErrMonitorDied = spec.ErrMonitorDied
)

// InvalidError is bad input: which field, what it held and why not.
type InvalidError = plan.InvalidError
