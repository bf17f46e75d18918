package main

import (
	"errors"
	"strings"
	"syscall"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"cri-mini/internal/admin"
	"cri-mini/internal/config"
)

// oneLine is an error for people: without gRPC's frame, on one line.
func oneLine(err error) string {
	text := err.Error()
	if s, ok := status.FromError(err); ok {
		text = s.Message()
	}
	return strings.Join(strings.Fields(text), " ")
}

// hintFor says what to do next where we know it.
func hintFor(err error, e config.Endpoint) string {
	switch {
	case errors.Is(err, syscall.EACCES) || errors.Is(err, syscall.EPERM):
		return "this needs root"
	case errors.Is(err, admin.ErrNoDaemon), status.Code(err) == codes.Unavailable && strings.Contains(err.Error(), "connect"):
		return "start the daemon with: cri-mini serve --listen " + e.Listen
	case errors.Is(err, admin.ErrLost):
		return "its containers go on; look with: cri-mini ps"
	}
	return ""
}
