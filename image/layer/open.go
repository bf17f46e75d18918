package layer

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// Open opens, or makes, a store at root in the given form. For Erofs it asks
// Probe first. Auto keeps the form of the layers that are there and else takes
// what docs/decisions/0002-layer-form.md chose for this kernel.
func Open(root, form string, options ...Option) (Store, error) {
	if err := os.MkdirAll(root, 0o700); err != nil {
		return nil, fmt.Errorf("layer store: %w", err)
	}
	switch form {
	case Directory:
		return OpenDirectory(root, options...)
	case Erofs:
		if err := Probe(root); err != nil {
			return nil, fmt.Errorf("layer store: %w", err)
		}
		return OpenErofs(root, options...)
	case Auto:
		return openAuto(root, options)
	}
	return nil, fmt.Errorf("layer store: form %q is none of %q, %q, %q", form, Auto, Directory, Erofs)
}

func openAuto(root string, options []Option) (Store, error) {
	form, err := formInUse(root)
	if err != nil {
		return nil, fmt.Errorf("layer store: %w", err)
	}
	if form != "" {
		return Open(root, form, options...)
	}
	var missing *ErrUnsupported
	switch err := Probe(root); {
	case errors.As(err, &missing):
		return OpenDirectory(root, options...)
	case err != nil:
		return nil, fmt.Errorf("layer store: %w", err)
	}
	return OpenErofs(root, options...)
}

// formInUse is the form of the layers that a store has, "" for an empty one.
func formInUse(root string) (string, error) {
	folders, err := filepath.Glob(filepath.Join(root, layersDir, "*"))
	for _, folder := range folders {
		if form := formOf(folder); form != "" {
			return form, err
		}
	}
	return "", err
}
