package image

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"

	"cri-mini/image/layer"
	"cri-mini/image/reference"

	"github.com/opencontainers/go-digest"
)

// errNoSource says that nothing is known of where a layer came from.
var errNoSource = errors.New("no image with it has a name in a registry: import the image again")

// repair fetches one layer anew and puts it in the place of the one that is
// there. Everybody who wants that at a time shares one flight. The caller has
// counted a use of the layer.
func (s *Store) repair(ctx context.Context, d digest.Digest, auth *Auth) error {
	s.mu.Lock()
	f := s.flights[d]
	if f == nil {
		f = s.launch(ctx, d, func(ctx context.Context, report func(int64)) (layer.Info, error) {
			return s.fetchAnew(ctx, d, auth, report)
		})
	}
	f.waiters++
	s.mu.Unlock()
	return s.await(ctx, f)
}

// fetchAnew asks for each name of each image with the layer, for a registry
// knows layers by the digest of what it sends, and only a manifest tells which
// one that is. Whoever sends it: only a layer with the right content is taken.
func (s *Store) fetchAnew(ctx context.Context, d digest.Digest, auth *Auth, report func(int64)) (layer.Info, error) {
	failed := errNoSource
	for _, name := range s.sources(d) {
		info, err := s.fetchFrom(ctx, name, d, auth, report)
		switch {
		case err == nil || errors.Is(err, layer.ErrNotDurable): // the old one has been moved
			return info, errors.Join(err, s.watchReplaced())
		case ctx.Err() != nil:
			return info, ctx.Err()
		case failed == errNoSource:
			failed = err
		default:
			failed = errors.Join(failed, err)
		}
	}
	return layer.Info{}, failed
}

// sources are the names to ask for, digests first: what a tag means may have
// changed.
func (s *Store) sources(d digest.Digest) (names []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	images := s.withLayer(d)
	for _, e := range images {
		names = append(names, e.rec.Digests...)
	}
	for _, e := range images {
		names = append(names, e.rec.Tags...)
	}
	return names
}

func (s *Store) fetchFrom(ctx context.Context, name string, d digest.Digest, auth *Auth, report func(int64)) (info layer.Info, err error) {
	n, err := reference.Parse(name)
	if err != nil {
		return info, err
	}
	repo, err := s.client.Repository(n, auth)
	if err != nil {
		return info, err
	}
	defer repo.Close()
	resolved, err := repo.Resolve(ctx, s.platform)
	if err != nil {
		return info, err
	}
	p, err := parseConfig(resolved.Config)
	if err != nil {
		return info, fmt.Errorf("%s: %w", name, err)
	}
	at := slices.Index(p.diffIDs, d)
	if at < 0 || len(p.diffIDs) != len(resolved.Manifest.Layers) {
		return info, fmt.Errorf("%s: is an image without this layer by now", name)
	}
	pending, err := s.receive(ctx, remoteLayer(repo, resolved.Manifest.Layers[at]), d, report)
	if err != nil {
		return info, fmt.Errorf("%s: %w", name, err)
	}
	defer s.discard(pending) // it does nothing once it has its place
	if err := pending.Replace(ctx); err != nil {
		return pending.Info(), err
	}
	s.log.Info("a layer was fetched anew", "layer", d, "from", name)
	return pending.Info(), nil
}

// watchReplaced learns who may use layers that were replaced: whoever holds an
// image with such a layer at the moment, for which of the two copies its
// container has, we cannot know. So this is as good after a restart.
func (s *Store) watchReplaced() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	list, err := s.store.Replaced()
	if err != nil {
		return err
	}
	for _, r := range list {
		if s.replaced[r] != nil {
			continue
		}
		owners := map[string]bool{}
		for _, e := range s.withLayer(r.DiffID) {
			maps.Copy(owners, e.owners)
		}
		s.replaced[r] = owners
	}
	return s.dropReplaced()
}

// releaseReplaced is for an owner who has released all. s.mu is held.
func (s *Store) releaseReplaced(owner string) {
	for _, owners := range s.replaced {
		delete(owners, owner)
	}
	if err := s.dropReplaced(); err != nil {
		// The next Collect finds it again.
		s.log.Warn("replaced layer cannot be removed", "err", err)
	}
}

// dropReplaced removes what nobody can use any more. s.mu is held.
func (s *Store) dropReplaced() (failed error) {
	for r, owners := range s.replaced {
		if len(owners) > 0 {
			continue
		}
		delete(s.replaced, r)
		if err := s.store.RemoveReplaced(r); err != nil && !errors.Is(err, fs.ErrNotExist) {
			failed = errors.Join(failed, err)
		}
	}
	return failed
}
