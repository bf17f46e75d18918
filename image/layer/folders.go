package layer

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
)

// Folder is what lies where complete layers are.
type Folder struct {
	Path  string
	Layer digest.Digest // by its name; empty when that is no layer's
	Made  time.Time
}

// layerOf is the opposite of folderName, empty for a name that we never give.
func layerOf(folder string) digest.Digest {
	id := digest.Digest(strings.Replace(folder, "-", ":", 1))
	if id.Validate() != nil {
		return ""
	}
	return id
}

// Folders lists what lies where complete layers are, also what cannot be used.
func (s *store) Folders() ([]Folder, error) {
	s.mu.Lock() // so that a layer is in the list and known, or neither
	defer s.mu.Unlock()
	entries, err := os.ReadDir(s.path(layersDir))
	if err != nil {
		return nil, err
	}
	var list []Folder
	for _, e := range entries {
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		f := Folder{Path: s.path(layersDir, e.Name()), Made: info.ModTime()}
		f.Layer = layerOf(e.Name())
		list = append(list, f)
	}
	return list, nil
}

// Drop removes a folder that List does not know.
func (s *store) Drop(f Folder) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, known := s.layers[f.Layer]; known || filepath.Dir(f.Path) != s.path(layersDir) {
		return nil // it came meanwhile
	}
	err := s.setAside(f.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
