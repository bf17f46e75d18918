package cri

import (
	"context"
	"fmt"
	"log/slog"
	"path"
	"runtime/debug"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// intercept logs each call, never its content, for that can hold secrets, and
// turns a panic into an error of this one call.
func intercept(log *slog.Logger) grpc.UnaryServerInterceptor {
	return func(ctx context.Context, request any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (answer any, err error) {
		call, start := path.Base(info.FullMethod), time.Now()
		defer func() {
			if p := recover(); p != nil {
				log.Error("call panicked", "call", call, "panic", p, "stack", string(debug.Stack()))
				err = status.Error(codes.Internal, fmt.Sprintf("%s panicked: %v", call, p))
				return
			}
			report(ctx, log, call, time.Since(start), err)
		}()
		return next(ctx, request)
	}
}

func report(ctx context.Context, log *slog.Logger, call string, took time.Duration, err error) {
	switch status.Code(err) {
	case codes.OK:
		log.DebugContext(ctx, "call", "call", call, "took", took)
	case codes.NotFound, codes.Unimplemented, codes.Canceled: // what the kubelet asks on purpose
		log.DebugContext(ctx, "call refused", "call", call, "took", took, "err", err)
	default:
		log.WarnContext(ctx, "call failed", "call", call, "took", took, "err", err)
	}
}
