package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/term"

	"cri-mini/internal/admin"
	"cri-mini/internal/config"
)

type pullCmd struct {
	Image       string      `arg:"" help:"Name of the image."`
	Credentials credentials `embed:""`
}

// credentials are what a registry may ask for.
type credentials struct {
	User          string `placeholder:"NAME" help:"User name at the registry."`
	PasswordStdin bool   `help:"Read the password from stdin."`
}

func (c *credentials) read(verb string) (user, password string, err error) {
	if c.PasswordStdin != (c.User != "") {
		return "", "", usageError{verb, errors.New("--user and --password-stdin go together")}
	}
	if !c.PasswordStdin {
		return "", "", nil
	}
	text, err := io.ReadAll(io.LimitReader(os.Stdin, 1<<16))
	return c.User, strings.TrimRight(string(text), "\r\n"), err
}

func (c *pullCmd) Run(ctx context.Context, e *config.Endpoint, out io.Writer) error {
	request := admin.PullRequest{Image: c.Image}
	var err error
	if request.Username, request.Password, err = c.Credentials.read("pull"); err != nil {
		return err
	}
	id, err := pull(ctx, daemonAt(e), request)
	if err != nil {
		return err
	}
	fmt.Fprintln(out, id)
	return nil
}

// pull shows the progress on stderr.
func pull(ctx context.Context, daemon admin.Client, request admin.PullRequest) (string, error) {
	show := &progress{out: os.Stderr, live: term.IsTerminal(int(os.Stderr.Fd()))}
	return daemon.Pull(ctx, request, show.layer)
}

// progress shows how far layers are: on a terminal by drawing the lines anew,
// elsewhere by a line at the beginning and at the end of each.
type progress struct {
	out    io.Writer
	live   bool
	layers []admin.Layer
	drawn  int // lines on the screen
}

func (p *progress) layer(l admin.Layer) {
	before := ""
	found := false
	for i, known := range p.layers {
		if known.Digest == l.Digest {
			before, found = known.Phase, true
			p.layers[i] = l
		}
	}
	if !found {
		p.layers = append(p.layers, l)
	}
	switch {
	case p.live:
		p.draw()
	case l.Phase != before && l.Phase != "waiting":
		fmt.Fprintf(p.out, "%s  %-11s  %s\n", short(l.Digest), l.Phase, byteCount(l.Total))
	}
}

const barWidth = 30

func (p *progress) draw() {
	var screen strings.Builder
	if p.drawn > 0 {
		fmt.Fprintf(&screen, "\x1b[%dA", p.drawn) // up to the first line
	}
	for _, l := range p.layers {
		fmt.Fprintf(&screen, "\r\x1b[K%s  %-11s  %s\n", short(l.Digest), l.Phase, bar(l))
	}
	p.drawn = len(p.layers)
	io.WriteString(p.out, screen.String())
}

func bar(l admin.Layer) string {
	switch l.Phase {
	case "downloading":
		full := 0
		if l.Total > 0 {
			full = int(min(l.Done*barWidth/l.Total, barWidth))
		}
		return fmt.Sprintf("[%-*s]  %s of %s", barWidth, strings.Repeat("=", full), byteCount(l.Done), byteCount(l.Total))
	case "waiting":
		return ""
	}
	return byteCount(l.Total)
}
