// Package mishap keeps a mistake in this program from ending it: a panic ends
// the one piece of work that met it, and the daemon goes on with all others.
// Whoever caught one decides what must end with the work.
package mishap

import (
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
)

// Err is what a panic becomes.
var Err = errors.New("panicked")

// Caught runs work and turns a panic into an error. The stack is for the log,
// not for the caller.
func Caught(log *slog.Logger, what string, work func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			log.Error("panic", "in", what, "panic", p, "stack", string(debug.Stack()))
			err = fmt.Errorf("%w: %v", Err, p)
		}
	}()
	return work()
}
