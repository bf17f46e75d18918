package network

import "errors"

// ErrInvalid is what is wrong whatever the state of the node: two mappings of
// one host port in a pod, a range that is none.
var ErrInvalid = errors.New("invalid")

// invalidError is an error that is also ErrInvalid.
type invalidError struct{ error }

func (e invalidError) Is(target error) bool { return target == ErrInvalid }
func (e invalidError) Unwrap() error        { return e.error }
