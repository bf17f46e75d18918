package image

import (
	"fmt"
	"slices"
	"strings"

	"cri-mini/image/reference"

	"github.com/opencontainers/go-digest"
)

// shortestID keeps short names that happen to be hex digits, like "cafe", from
// meaning some image's ID.
const shortestID = 7

// Get finds an image by tag, by digest, by ID or by the first digits of its
// ID.
func (s *Store) Get(name string) (Image, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e, err := s.find(name)
	if err != nil {
		return Image{}, err
	}
	return e.image, nil
}

// RawConfig is the config of an image as its maker wrote it.
func (s *Store) RawConfig(name string) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e, err := s.find(name)
	if err != nil {
		return nil, err
	}
	return slices.Clone(e.rec.Config), nil
}

// List tells of all images, ordered by ID.
func (s *Store) List() []Image {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.list == nil {
		s.list = make([]Image, 0, len(s.images))
		for _, e := range s.images {
			if e.visible() {
				s.list = append(s.list, e.image)
			}
		}
		slices.SortFunc(s.list, func(a, b Image) int { return strings.Compare(a.ID, b.ID) })
	}
	return slices.Clone(s.list)
}

func (e *entry) visible() bool { return !e.rec.Removed && !e.removing }

// find is Get. s.mu is held.
func (s *Store) find(name string) (*entry, error) {
	if id, ok := reference.FullID(name); ok {
		if e := s.images[id]; e != nil && e.visible() {
			return e, nil
		}
		return nil, fmt.Errorf("image %q: %w", name, ErrNotFound)
	}
	n, err := reference.Parse(name)
	if err == nil {
		if e := s.names[n.String()]; e != nil && e.visible() {
			return e, nil
		}
	}
	prefix, ok := reference.IDPrefix(name)
	if !ok || len(prefix) < len("sha256:")+shortestID {
		if err != nil {
			return nil, err
		}
		return nil, fmt.Errorf("image %q: %w", name, ErrNotFound)
	}
	return s.findPrefix(name, prefix)
}

func (s *Store) findPrefix(name, prefix string) (*entry, error) {
	var found []*entry
	for id, e := range s.images {
		if e.visible() && strings.HasPrefix(id.String(), prefix) {
			found = append(found, e)
		}
	}
	switch len(found) {
	case 0:
		return nil, fmt.Errorf("image %q: %w", name, ErrNotFound)
	case 1:
		return found[0], nil
	}
	return nil, fmt.Errorf("image %q: the IDs of %d images begin like that", name, len(found))
}

// byID finds an image that may have been removed. s.mu is held.
func (s *Store) byID(imageID string) (*entry, error) {
	if e := s.images[digest.Digest(imageID)]; e != nil && !e.removing {
		return e, nil
	}
	return nil, fmt.Errorf("image %q: %w", imageID, ErrNotFound)
}
