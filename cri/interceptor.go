package cri

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path"
	"runtime/debug"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// intercept watches calls of one answer.
func intercept(log *slog.Logger) grpc.UnaryServerInterceptor {
	return func(ctx context.Context, request any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (answer any, err error) {
		ctx, cancel := inTime(asked(ctx, info.FullMethod))
		defer cancel()
		err = watch(ctx, log, info.FullMethod, func() (err error) {
			answer, err = next(ctx, request)
			return err
		})
		return answer, err
	}
}

// answerTime is what an error needs at most to reach the caller.
const answerTime = 100 * time.Millisecond

// inTime ends a call a little before its caller hangs up, who would not hear
// what the call was doing.
func inTime(ctx context.Context) (context.Context, context.CancelFunc) {
	deadline, some := ctx.Deadline()
	if !some {
		return ctx, func() {}
	}
	return context.WithDeadline(ctx, deadline.Add(-min(answerTime, time.Until(deadline)/10)))
}

// interceptStream watches calls of many answers. Those that have no end of their
// own end with stopping.
func interceptStream(stopping context.Context, log *slog.Logger) grpc.StreamServerInterceptor {
	return func(server any, stream grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
		stream, done := boundTo(stopping, stream)
		defer done()
		return watch(stream.Context(), log, info.FullMethod, func() error { return next(server, stream) })
	}
}

// watch logs a call, never its content, for that can hold secrets, and turns a
// panic into an error of this one call.
func watch(ctx context.Context, log *slog.Logger, method string, work func() error) (err error) {
	call, start := path.Base(method), time.Now()
	defer func() {
		if p := recover(); p != nil {
			log.Error("call panicked", "call", call, "panic", p, "stack", string(debug.Stack()))
			err = status.Error(codes.Internal, fmt.Sprintf("%s panicked: %v", call, p))
			return
		}
		report(ctx, log, call, time.Since(start), err)
	}()
	return work()
}

func report(ctx context.Context, log *slog.Logger, call string, took time.Duration, err error) {
	switch code := status.Code(err); {
	case code == codes.OK || errors.Is(err, errStopping):
		log.DebugContext(ctx, "call", "call", call, "took", took)
	case code == codes.NotFound, code == codes.Unimplemented, code == codes.Canceled: // what the kubelet asks on purpose
		log.DebugContext(ctx, "call refused", "call", call, "took", took, "err", err)
	default:
		log.WarnContext(ctx, "call failed", "call", call, "took", took, "err", err)
	}
}
