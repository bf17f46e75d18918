package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"cri-mini/internal/admin"
	"cri-mini/internal/config"
)

type imageCmd struct {
	Verify imageVerifyCmd `cmd:"" help:"Compare the layers of images on the disk with what was unpacked. Exits with 1 unless all are whole in the end."`
}

type imageVerifyCmd struct {
	Images []string `arg:"" optional:"" placeholder:"IMAGE" help:"Names or ids; without any, all images."`
	Repair bool     `help:"Fetch each layer that is not whole from the registry of its image. Containers that run keep the old one until they are removed."`
	JSON   bool     `name:"json" help:"For programs."`

	Credentials credentials `embed:""`
}

func (c *imageVerifyCmd) Run(ctx context.Context, e *config.Endpoint, out io.Writer) error {
	request := admin.VerifyRequest{Images: c.Images, Repair: c.Repair}
	var err error
	if request.Username, request.Password, err = c.Credentials.read("image verify"); err != nil {
		return err
	}
	var sum verifySum
	layers := []admin.VerifiedLayer{}
	err = daemonAt(e).Verify(ctx, request, func(l admin.VerifiedLayer) {
		sum.add(l)
		if c.JSON {
			layers = append(layers, l)
		} else {
			fmt.Fprint(out, verifyLines(l))
		}
	})
	if err != nil {
		return err
	}
	if c.JSON {
		err = printJSON(out, layers)
	} else {
		_, err = fmt.Fprintln(out, sum)
		if err == nil && !c.Repair && sum.whole+sum.unknown < sum.layers {
			_, err = fmt.Fprintln(out, "--repair fetches what is damaged anew")
		}
	}
	if err == nil && sum.whole < sum.layers {
		return exitCode(1)
	}
	return err
}

// verifyLines says what is wrong with a layer; of a whole one, nothing.
func verifyLines(l admin.VerifiedLayer) string {
	var text strings.Builder
	if l.Whole && !l.Repaired {
		return ""
	}
	fmt.Fprintf(&text, "layer %s of %s\n", l.Layer, strings.Join(l.Images, ", "))
	for _, d := range l.Differences {
		if d.Path == "" {
			fmt.Fprintf(&text, "  %s\n", d.What)
		} else {
			fmt.Fprintf(&text, "  %s: %s\n", printable(d.Path), d.What)
		}
	}
	for _, line := range []string{l.Unknown, map[bool]string{true: "repaired"}[l.Repaired]} {
		if line != "" {
			fmt.Fprintf(&text, "  %s\n", line)
		}
	}
	if l.Failed != "" {
		fmt.Fprintf(&text, "  not repaired: %s\n", strings.ReplaceAll(l.Failed, "\n", "; "))
	}
	return text.String()
}

// printable quotes a path that could play tricks with a terminal: it is a
// stranger's.
func printable(path string) string {
	if quoted := fmt.Sprintf("%q", path); quoted[1:len(quoted)-1] != path {
		return quoted
	}
	return path
}

// verifySum counts layers.
type verifySum struct{ layers, whole, repaired, unknown int }

func (s *verifySum) add(l admin.VerifiedLayer) {
	s.layers++
	switch {
	case l.Repaired:
		s.repaired++
		s.whole++
	case l.Whole:
		s.whole++
	case l.Unknown != "":
		s.unknown++
	}
}

func (s verifySum) String() string {
	layers := "layers"
	if s.layers == 1 {
		layers = "layer"
	}
	text := fmt.Sprintf("%d %s: %d whole", s.layers, layers, s.whole)
	if s.repaired > 0 {
		text += fmt.Sprintf(" (%d repaired)", s.repaired)
	}
	if damaged := s.layers - s.whole - s.unknown; damaged > 0 {
		text += fmt.Sprintf(", %d damaged", damaged)
	}
	if s.unknown > 0 {
		text += fmt.Sprintf(", %d not verifiable", s.unknown)
	}
	return text
}
