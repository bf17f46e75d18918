package stream

import (
	"context"
	"log/slog"

	"cri-mini/internal/mishap"
)

// begin runs work beside what else is done for the connection of ctx.
func begin(ctx context.Context, what string, work func()) { go guarded(ctx, what, work) }

// guarded runs work. A panic ends this connection, for its streams may be in
// any state, and with it all that was done for it; the others go on. Every
// goroutine of this package begins here.
func guarded(ctx context.Context, what string, work func()) {
	err := mishap.Caught(slog.Default(), what, func() error { work(); return nil })
	if conn, ok := ctx.Value(connKey{}).(*watchedConn); ok && err != nil {
		conn.Close()
	}
}
