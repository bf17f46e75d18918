package main

import (
	"context"
	"io"
	"os"

	"cri-mini/internal/admin"
	"cri-mini/internal/config"
)

// streamFlags choose what a program gets of our stdin and terminal.
type streamFlags struct {
	Interactive bool  `short:"i" help:"Give our stdin to the program; of itself on a terminal."`
	TTY         *bool `short:"t" negatable:"" help:"Give it a terminal; of itself on a terminal."`
}

func (f streamFlags) choose() (stdin io.Reader, tty bool) {
	tty = terminal()
	if f.TTY != nil {
		tty = *f.TTY && terminal()
	}
	if f.Interactive || tty {
		return os.Stdin, tty
	}
	return nil, tty
}

type execCmd struct {
	streamFlags `embed:""`
	Container   string   `arg:"" help:"Name, id or the beginning of it; or a pod with one container."`
	Args        []string `arg:"" passthrough:"" name:"command" help:"Program and arguments."`
}

func (c *execCmd) Run(ctx context.Context, e *config.Endpoint) error {
	cri, err := dial(e)
	if err != nil {
		return err
	}
	defer cri.Close()
	container, err := cri.find(ctx, c.Container)
	if err != nil {
		return err
	}
	stdin, tty := c.choose()
	session, err := daemonAt(e).Exec(ctx, admin.ExecRequest{
		Container: container.Id, Args: withoutDashes(c.Args), TTY: tty, Stdin: stdin != nil, Size: terminalSize(),
	})
	if err != nil {
		return err
	}
	return converse(ctx, session, stdin, tty)
}

// withoutDashes takes away the -- that may stand before a command.
func withoutDashes(args []string) []string {
	if len(args) > 0 && args[0] == "--" {
		return args[1:]
	}
	return args
}
