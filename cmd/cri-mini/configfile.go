package main

import (
	"github.com/alecthomas/kong"

	"cri-mini/internal/config"
)

// fromFile gives the flags that are not on the command line their values from
// the configuration file.
type fromFile struct {
	read   bool
	values config.Values
	err    error
}

func (f *fromFile) Validate(*kong.Application) error { return nil }

func (f *fromFile) Resolve(ctx *kong.Context, _ *kong.Path, flag *kong.Flag) (any, error) {
	if !f.read {
		f.read = true
		f.values, f.err = config.Load(chosenFile(ctx))
	}
	if value, ok := f.values[flag.Name]; ok {
		return value, nil
	}
	return nil, nil
}

// chosenFile is the value of --config, which itself cannot come from a file.
func chosenFile(ctx *kong.Context) string {
	for _, path := range ctx.Path {
		if path.Flag != nil && path.Flag.Name == "config" {
			return ctx.FlagValue(path.Flag).(string)
		}
	}
	return config.DefaultFile
}
