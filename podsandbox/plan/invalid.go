package plan

import (
	"errors"
	"fmt"
	"strconv"
)

// ErrInvalid is what every *InvalidError is.
var ErrInvalid = errors.New("invalid")

// InvalidError is bad input: which field, what it held and why not.
type InvalidError struct {
	Field  string // as in the request: "mounts[2].host_path"; empty when Reason names it
	Value  string
	Reason string
	// NoText is a field that is a message: what it held has no text.
	NoText bool
}

func (e *InvalidError) Error() string {
	if e.Field == "" {
		return e.Reason
	}
	if e.NoText {
		return e.Field + ": " + e.Reason
	}
	return fmt.Sprintf("%s %s: %s", e.Field, strconv.Quote(e.Value), e.Reason)
}

func (e *InvalidError) Is(target error) bool { return target == ErrInvalid }

func invalid(field string, value any, reason string, args ...any) error {
	return &InvalidError{Field: field, Value: fmt.Sprint(value), Reason: fmt.Sprintf(reason, args...)}
}

// NoText is the error of a field that is a message.
func NoText(field, reason string) error {
	return &InvalidError{Field: field, Reason: reason, NoText: true}
}

// ImageVolumeError is a mount of an image that cannot be made. The kubelet
// knows it by the beginning of its text, so nothing may be put before it.
type ImageVolumeError struct{ Cause error }

func (e *ImageVolumeError) Error() string { return "ImageVolumeMountFailed: " + e.Cause.Error() }
func (e *ImageVolumeError) Unwrap() error { return e.Cause }
