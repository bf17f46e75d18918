package main

import (
	"fmt"
	"io"

	"cri-mini/internal/config"
)

// configCmd takes the flags of serve, to try them.
type configCmd struct {
	config.Config `embed:""`
}

func (c *configCmd) Run(out io.Writer, e *config.Endpoint) error {
	text, err := config.Text(*e, c.Config)
	if err != nil {
		return err
	}
	_, err = fmt.Fprint(out, text)
	return err
}
