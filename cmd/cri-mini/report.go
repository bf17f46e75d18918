package main

import (
	"errors"
	"regexp"
	"strings"
	"syscall"

	"cri-mini/internal/admin"
	"cri-mini/internal/config"
)

// oneLine is an error for people: without gRPC's frame, on one line.
func oneLine(err error) string {
	return strings.Join(strings.Fields(frame.ReplaceAllString(err.Error(), "")), " ")
}

var frame = regexp.MustCompile(`rpc error: code = \w+ desc = `)

// hintFor says what to do next where we know it.
func hintFor(err error, e config.Endpoint) string {
	switch {
	case errors.Is(err, syscall.EACCES) || errors.Is(err, syscall.EPERM):
		return "this needs root"
	case errors.Is(err, admin.ErrNoDaemon):
		return "start the daemon with: cri-mini serve --listen " + e.Listen
	case errors.Is(err, admin.ErrLost):
		return "its containers go on; look with: cri-mini ps"
	}
	return ""
}
