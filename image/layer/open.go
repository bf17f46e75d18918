package layer

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
)

// Open opens, or makes, a store at root in the given form. For Erofs it asks
// Probe first. Auto keeps the form of the layers that are there; a new store
// gets directories, for the reasons in docs/decisions/0002-layer-form.md.
func Open(root, form string, options ...Option) (Store, error) {
	if err := os.MkdirAll(root, 0o700); err != nil {
		return nil, fmt.Errorf("layer store: %w", err)
	}
	if form == Auto {
		form = cmp.Or(formInUse(root), Directory)
	}
	switch form {
	case Directory:
		return OpenDirectory(root, options...)
	case Erofs:
		if err := Probe(root); err != nil {
			return nil, fmt.Errorf("layer store: %w", err)
		}
		return OpenErofs(root, options...)
	}
	return nil, fmt.Errorf("layer store: form %q is none of %q, %q, %q", form, Auto, Directory, Erofs)
}

// formInUse is the form of the layers that a store has, "" for an empty one.
func formInUse(root string) string {
	folders, err := os.ReadDir(filepath.Join(root, layersDir))
	if err != nil {
		return "" // a new store; or open meets the error again
	}
	for _, folder := range folders {
		if form := formOf(filepath.Join(root, layersDir, folder.Name())); form != "" {
			return form
		}
	}
	return ""
}
