package image

import (
	"context"
	"path/filepath"

	"cri-mini/image/layer"
	"cri-mini/internal/audit"

	"github.com/opencontainers/go-digest"
)

// StoredLayers lists layers on the disk. The owner of one that is in use is itself; a
// layer without owner belongs to no image and to no pull.
func (s *Store) StoredLayers() ([]audit.Thing, error) {
	folders, err := s.store.Folders()
	if err != nil {
		return nil, err
	}
	var list []audit.Thing
	for _, f := range folders {
		t := audit.Thing{Kind: "layer", Name: f.Path, Since: f.Made}
		switch {
		case f.Layer == "":
			t.Foreign = "its name is not that of a layer"
		case s.needs(f.Layer):
			t.Owner = string(f.Layer)
		case s.keepUnknown:
			t.Stays = "a damaged image record may mean it, see " + filepath.Join(s.recordDir(), "*"+badSuffix)
		}
		t.Remove = func(context.Context) error { return s.removeUnknown(f) }
		list = append(list, t)
	}
	return list, nil
}

// needs says that an image or a pull uses a layer.
func (s *Store) needs(d digest.Digest) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, coming := s.flights[d]
	return coming || s.uses[d] > 0
}

// removeUnknown removes a layer unless it was pulled meanwhile.
func (s *Store) removeUnknown(f layer.Folder) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, coming := s.flights[f.Layer]; coming || s.uses[f.Layer] > 0 {
		return nil
	}
	if _, known := s.layers[f.Layer]; known {
		s.removeLayer(f.Layer)
		return nil
	}
	return s.store.Drop(f)
}

// MissingLayers tells which layers images lack.
func (s *Store) MissingLayers() []audit.Finding {
	s.mu.Lock()
	defer s.mu.Unlock()
	var missing []audit.Finding
	for _, e := range s.images {
		if e.rec.Directory != "" || e.removing {
			continue
		}
		for _, d := range e.layers() {
			if _, ok := s.layers[d]; !ok {
				missing = append(missing, audit.Finding{About: audit.Missing, Kind: "layer", Name: string(d), Owner: string(e.id),
					Why: "an image needs it", Do: "remove the image and pull it again"})
			}
		}
	}
	return missing
}
