package image

import (
	"errors"
	"fmt"
	"os"
	"slices"

	"cri-mini/image/layer"
	"cri-mini/internal/crashpoint"

	"github.com/opencontainers/go-digest"
)

// Layer is one layer of an image, where the kernel can find it.
type Layer struct {
	Digest digest.Digest // diff id; empty for a linked directory
	Path   string
	Form   string // layer.Directory or layer.Erofs
}

// Hold keeps the layers of an image until owner releases them, whatever
// happens to the image. An owner may hold several images.
func (s *Store) Hold(imageID, owner string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	e, err := s.byID(imageID)
	if err != nil {
		return fmt.Errorf("hold for %s: %w", owner, err)
	}
	if !e.owners[owner] {
		e.owners[owner] = true
		s.owners[owner] = append(s.owners[owner], e)
	}
	return nil
}

// Release gives up all that owner holds. It does nothing for an unknown owner.
func (s *Store) Release(owner string) {
	s.mu.Lock()
	entries := s.owners[owner]
	delete(s.owners, owner)
	s.releaseReplaced(owner)
	orphaned := false
	for _, e := range entries {
		delete(e.owners, owner)
		orphaned = orphaned || (e.needsHolder() && len(e.owners) == 0)
	}
	s.mu.Unlock()
	if !orphaned {
		return
	}
	s.write.Lock()
	defer s.write.Unlock()
	for _, e := range entries {
		s.mu.Lock()
		gone := s.images[e.id] == e && e.needsHolder()
		s.mu.Unlock()
		if !gone {
			continue
		}
		if _, err := s.drop(e); err != nil {
			// The next Collect finds it again.
			s.log.Warn("removed image cannot be cleaned up", "image", e.id, "err", err)
		}
	}
}

// Layers lists the layers of an image, bottom first. It also answers for an
// image that was removed and is still held.
func (s *Store) Layers(imageID string) ([]Layer, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e, err := s.byID(imageID)
	if err != nil {
		return nil, err
	}
	if dir := e.rec.Directory; dir != "" {
		if info, err := os.Stat(dir); err != nil || !info.IsDir() {
			return nil, fmt.Errorf("image %s: linked directory %q: not there", imageID, dir)
		}
		return []Layer{{Path: dir, Form: layer.Directory}}, nil
	}
	out := make([]Layer, 0, len(e.parsed.diffIDs))
	for _, d := range e.parsed.diffIDs {
		path, err := s.store.Path(d)
		if err != nil {
			return nil, fmt.Errorf("image %s: layer %s: %w", imageID, d, err)
		}
		out = append(out, Layer{Digest: d, Path: path, Form: s.store.Form()})
	}
	return out, nil
}

// Remove removes an image with all its names. It is gone at once for all but
// its holders; its layers go when nobody needs them. An unknown image is no
// error: it is as gone as can be.
func (s *Store) Remove(name string) error {
	s.write.Lock()
	defer s.write.Unlock()
	s.mu.Lock()
	e, err := s.find(name)
	s.mu.Unlock()
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("remove: %w", err)
	}
	if err := s.removeImage(e); err != nil {
		return fmt.Errorf("remove image %q: %w", name, err)
	}
	return nil
}

// removeImage takes an image from the disk or, while someone holds it, only
// its names. s.write is held.
func (s *Store) removeImage(e *entry) error {
	if dropped, err := s.drop(e); dropped || err != nil {
		return err
	}
	rec := e.rec
	rec.Tags, rec.Digests, rec.Removed = nil, nil, true
	if err := s.save(e.id, rec); err != nil {
		return err
	}
	crashpoint.Here("remove-image.names-gone")
	s.mu.Lock()
	s.forget(e)
	e.rec = rec
	s.refresh(e)
	s.mu.Unlock()
	_, err := s.drop(e) // it may have been released meanwhile
	return err
}

// drop takes an image from the disk and then from memory, unless someone holds
// it. The record goes first: layers without a record are swept at the next
// start, a record without layers would be damage. s.write is held.
func (s *Store) drop(e *entry) (dropped bool, err error) {
	s.mu.Lock()
	if len(e.owners) > 0 {
		s.mu.Unlock()
		return false, nil
	}
	e.removing = true // from now on it cannot be found or held
	s.list = nil
	s.mu.Unlock()

	err = os.Remove(s.recordFile(e.id))
	crashpoint.Here("remove-image.record-gone")

	s.mu.Lock()
	defer s.mu.Unlock()
	e.removing = false
	s.list = nil
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return false, err
	}
	s.forget(e)
	delete(s.images, e.id)
	s.unuse(e.layers())
	return true, nil
}

// forget takes an entry's names. s.mu is held.
func (s *Store) forget(e *entry) {
	for _, name := range slices.Concat(e.rec.Tags, e.rec.Digests) {
		if s.names[name] == e {
			delete(s.names, name)
		}
	}
}

// unuse gives up one use of each layer and removes those without any. s.mu is
// held.
func (s *Store) unuse(layers []digest.Digest) {
	for _, d := range layers {
		if s.uses[d]--; s.uses[d] > 0 {
			continue
		}
		delete(s.uses, d)
		s.removeLayer(d)
	}
}

// removeLayer makes a layer unavailable; its space is freed in the background.
// s.mu is held, or nobody else knows s yet.
func (s *Store) removeLayer(d digest.Digest) {
	l, ok := s.layers[d]
	if !ok {
		return
	}
	delete(s.layers, d)
	s.bytes -= l.Size
	s.inodes -= l.Inodes
	if err := s.store.Remove(d); err != nil && !errors.Is(err, layer.ErrNotFound) {
		s.log.Warn("layer cannot be removed", "layer", d, "err", err)
	}
}
