package image

import (
	"context"
	"errors"
	"slices"
	"strings"

	"cri-mini/image/layer"

	"github.com/opencontainers/go-digest"
)

// VerifyOptions of one Verify.
type VerifyOptions struct {
	Repair bool  // fetch what is not whole
	Auth   *Auth // for that; nil: none
}

// Verified is what Verify tells of one layer.
type Verified struct {
	Layer       digest.Digest
	Images      []string // those it is part of: a name of each, or the ID
	Differences []layer.Difference
	Unknown     error // it cannot be compared: nil, or layer.ErrNoIndex or layer.ErrNotFound
	Repaired    bool
	Failed      error // of the repair
}

// Whole tells whether the layer is known to be as it was written.
func (v *Verified) Whole() bool {
	return v.Repaired || len(v.Differences) == 0 && v.Unknown == nil
}

// Verify compares the layers of images with what was written when they were
// unpacked: of the images named, or of all, those that are only held included.
// Each layer is told of once, and stays while it is looked at.
func (s *Store) Verify(ctx context.Context, names []string, o VerifyOptions, tell func(Verified)) error {
	layers, end, err := s.layersOf(names)
	if err != nil {
		return err
	}
	defer end()
	for _, v := range layers {
		if err := s.verify(ctx, &v, o); err != nil {
			return err
		}
		tell(v)
	}
	return nil
}

func (s *Store) verify(ctx context.Context, v *Verified, o VerifyOptions) error {
	err := s.store.Verify(ctx, v.Layer, func(d layer.Difference) { v.Differences = append(v.Differences, d) })
	switch {
	case errors.Is(err, layer.ErrNoIndex):
		v.Unknown = layer.ErrNoIndex
	case errors.Is(err, layer.ErrNotFound):
		v.Unknown = layer.ErrNotFound
	case err != nil:
		return err
	}
	if !o.Repair || v.Whole() {
		return nil
	}
	v.Failed = s.repair(ctx, v.Layer, o.Auth)
	v.Repaired = v.Failed == nil
	return ctx.Err()
}

// layersOf lists the layers of images, the lowest of each first, and keeps them
// until end.
func (s *Store) layersOf(names []string) (layers []Verified, end func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	images, err := s.named(names)
	if err != nil {
		return nil, nil, err
	}
	var used []digest.Digest
	for _, e := range images {
		for _, d := range e.parsed.diffIDs {
			if e.rec.Directory == "" && !slices.Contains(used, d) {
				used = append(used, d)
				layers = append(layers, Verified{Layer: d, Images: s.namesWith(d)})
			}
		}
	}
	return layers, s.useLocked(used), nil
}

// named finds images, or all there are in the order of their IDs. s.mu is held.
func (s *Store) named(names []string) (images []*entry, err error) {
	if len(names) == 0 {
		for _, e := range s.images {
			images = append(images, e)
		}
		slices.SortFunc(images, byEntryID)
		return images, nil
	}
	for _, name := range names {
		e, err := s.find(name)
		if err != nil {
			return nil, err
		}
		images = append(images, e)
	}
	return images, nil
}

func byEntryID(a, b *entry) int { return strings.Compare(a.id.String(), b.id.String()) }

// withLayer finds the images that have a layer. s.mu is held.
func (s *Store) withLayer(d digest.Digest) (images []*entry) {
	for _, e := range s.images {
		if slices.Contains(e.layers(), d) {
			images = append(images, e)
		}
	}
	slices.SortFunc(images, byEntryID)
	return images
}

// namesWith calls each image with a layer by a name. s.mu is held.
func (s *Store) namesWith(d digest.Digest) (names []string) {
	for _, e := range s.withLayer(d) {
		name := slices.Concat(e.rec.Tags, e.rec.Digests, []string{e.id.String()})[0]
		names = append(names, name)
	}
	return names
}
