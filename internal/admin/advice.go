package admin

import (
	"archive/tar"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"

	"cri-mini/image"
	"cri-mini/image/reference"
	"cri-mini/image/registry"
)

// Advised is an error of the daemon's that a person can do something about.
type Advised struct {
	Words string
	Hint  string // what to do
}

func (e *Advised) Error() string { return e.Words }

// said is what a client makes of a daemon's words.
func said(words, hint string) error {
	if hint != "" {
		return &Advised{Words: words, Hint: hint}
	}
	return errors.New(words)
}

// hintHeader is the header with the Hint of an Advised.
const hintHeader = "Hint"

func importHint(err error) string {
	if errors.Is(err, image.ErrNoArchive) || errors.Is(err, tar.ErrHeader) {
		return "if it is a root file system, as a tar archive or one static program, use --rootfs"
	}
	return ""
}

// pullHint tells where an operator says what could make a pull succeed.
func pullHint(err error, name, configDir string) string {
	n, bad := reference.Parse(name)
	if bad != nil {
		return ""
	}
	dir := filepath.Join(configDir, n.Domain)
	switch {
	case errors.Is(err, registry.ErrUnknownCA):
		return "put the certificate of its authority into " + filepath.Join(dir, "ca.crt")
	case errors.Is(err, http.ErrSchemeMismatch):
		return fmt.Sprintf("it speaks plain HTTP; to allow that, write server = %q into %s", "http://"+n.Domain, filepath.Join(dir, "hosts.toml"))
	}
	return ""
}
