package cri

import (
	"context"
	"errors"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"cri-mini/cri/stream"
	"cri-mini/image"
	"cri-mini/image/reference"
	"cri-mini/internal/mishap"
	"cri-mini/podsandbox"
)

// code tells the kubelet what kind of failure err is. Of these it acts on
// NotFound, DeadlineExceeded and Unimplemented; everything else is Unknown,
// for which alone its client shows our text without a wrapper and finds the
// prefixes that the interface defines.
func code(err error) codes.Code {
	switch {
	case errors.Is(err, podsandbox.ErrNotFound), errors.Is(err, image.ErrNotFound):
		return codes.NotFound
	case errors.Is(err, mishap.Err):
		return codes.Internal
	case errors.Is(err, podsandbox.ErrExists):
		return codes.AlreadyExists
	case errors.Is(err, podsandbox.ErrInvalid), errors.Is(err, podsandbox.ErrAmbiguous), errors.Is(err, reference.ErrInvalid):
		return codes.InvalidArgument
	case errors.Is(err, podsandbox.ErrFailedPrecondition):
		return codes.FailedPrecondition
	case errors.Is(err, podsandbox.ErrTimeout), errors.Is(err, context.DeadlineExceeded):
		return codes.DeadlineExceeded
	case errors.Is(err, context.Canceled):
		return codes.Canceled
	case errors.Is(err, stream.ErrTooMany):
		return codes.ResourceExhausted
	case errors.Is(err, podsandbox.ErrBusy), errors.Is(err, podsandbox.ErrMonitorDied):
		return codes.Unavailable
	}
	return codes.Unknown
}

func rpcError(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := status.FromError(err); ok {
		return err
	}
	return status.Error(code(err), err.Error())
}

// gone is rpcError for the calls that end something: the kubelet repeats
// them, and what is gone is done.
func gone(err error) error {
	if errors.Is(err, podsandbox.ErrNotFound) {
		return nil
	}
	return rpcError(err)
}

// invalidMessage is invalidArgument for a field that is a message.
func invalidMessage(field, reason string) error {
	return rpcError(&podsandbox.InvalidError{Field: field, Reason: reason, NoText: true})
}

func invalidArgument(field, value, reason string) error {
	return rpcError(&podsandbox.InvalidError{Field: field, Value: value, Reason: reason})
}
