package main

import (
	"errors"
	"regexp"
	"strings"
	"syscall"

	"github.com/alecthomas/kong"

	"cri-mini/internal/admin"
	"cri-mini/internal/config"
)

// oneLine is an error for people: without gRPC's frame, on one line.
func oneLine(err error) string {
	return strings.Join(strings.Fields(frame.ReplaceAllString(err.Error(), "")), " ")
}

var frame = regexp.MustCompile(`rpc error: code = \w+ desc = `)

// usageError is a mistake in the words of a command.
type usageError struct {
	verb string
	error
}

// hintFor says what to do next where we know it.
func hintFor(err error, g *commandLine) string {
	var advised *admin.Advised
	switch {
	case errors.As(err, &advised):
		return advised.Hint
	case errors.Is(err, syscall.EACCES) || errors.Is(err, syscall.EPERM):
		return "this needs root"
	case errors.Is(err, admin.ErrNoDaemon):
		// Another root or state would be another instance, with none of the
		// pods that are meant.
		return "start the daemon with: " + g.serveLine() + ", and with the same --root and --state as before"
	case errors.Is(err, admin.ErrLost):
		return "its containers go on, programs of exec are killed; look with: cri-mini ps"
	}
	return usageHint(err)
}

func (g *commandLine) serveLine() string {
	line := "cri-mini serve"
	if g.ConfigFile != config.DefaultFile {
		line += " --config " + g.ConfigFile
	}
	return line + " --listen " + g.Listen
}

func usageHint(err error) string {
	var usage usageError
	var parse *kong.ParseError
	var value *config.Error
	switch {
	case errors.As(err, &usage):
		return "see: cri-mini " + usage.verb + " --help"
	case !errors.As(err, &parse) || errors.As(err, &value): // a value's error says all
		return ""
	case parse.Context != nil && parse.Context.Selected() != nil:
		return "see: cri-mini " + parse.Context.Selected().Name + " --help"
	}
	return "see: cri-mini --help"
}
