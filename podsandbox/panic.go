package podsandbox

import (
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
)

// ErrInternal is a mistake in this program. It ends the one call, or the one step
// in the background, that met it, and not the daemon with all other pods.
var ErrInternal = errors.New("panicked")

// caught runs work and turns a panic into an error. The stack is for the log, not
// for the caller.
func caught(log *slog.Logger, what string, work func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			log.Error("panic", "in", what, "panic", p, "stack", string(debug.Stack()))
			err = fmt.Errorf("%w: %v", ErrInternal, p)
		}
	}()
	return work()
}
