package image

import (
	"context"
	"fmt"
	"io"
	"reflect"
	"time"

	"cri-mini/image/layer"
	"cri-mini/image/manifest"
	"cri-mini/internal/crashpoint"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"
)

// parallelLayers bounds the layers that one pull fetches at a time. Unpacking
// keeps a core busy per layer, and the network likes a few connections.
const parallelLayers = 4

// incoming is an image on its way into the store, from wherever.
type incoming struct {
	config      []byte
	tags        []string // complete names
	digest      string   // as repository@digest, or empty
	annotations map[string]string
	pinned      bool
	passing     bool   // see record
	directory   string // linked instead of layers
	layers      []incomingLayer
	progress    *progress
}

// incomingLayer is one layer, as often compressed as not.
type incomingLayer struct {
	digest digest.Digest // for people: of the blob, or the diff id
	size   int64         // of the blob; 0 if it is not known
	ready  layer.Pending // unpacked already; then there is no fetch
	// fetch hands the blob to consume, perhaps more than once, and returns
	// nil only when what consume saw last was the blob.
	fetch func(ctx context.Context, consume func(io.Reader) error) error
}

// ingest brings an image into the store: first all layers, then the record that
// makes the image visible. It does not wait for the layers to be on stable
// storage: the layer store knows after a power cut which were not, and an image
// that misses one is not shown.
func (s *Store) ingest(ctx context.Context, in incoming) (Image, error) {
	p, err := parseConfig(in.config)
	if err != nil {
		return Image{}, err
	}
	if err := manifest.Suits(p.platform, s.platform); err != nil {
		return Image{}, err
	}
	if in.directory == "" {
		if len(in.layers) != len(p.diffIDs) {
			return Image{}, fmt.Errorf("image has %d layers, its config promises %d", len(in.layers), len(p.diffIDs))
		}
		defer s.use(unique(p.diffIDs))()
		if err := s.ingestLayers(ctx, in, p.diffIDs); err != nil {
			return Image{}, err
		}
	}
	crashpoint.Here("pull.layers-there")
	return s.record(in)
}

func (s *Store) ingestLayers(ctx context.Context, in incoming, diffIDs []digest.Digest) error {
	if in.progress == nil {
		in.progress = &progress{}
	}
	shown := make([]*layerProgress, len(in.layers))
	for i, l := range in.layers {
		shown[i] = in.progress.layer(l.digest, l.size)
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(parallelLayers)
	for i, l := range in.layers {
		g.Go(func() error {
			unpack := func(ctx context.Context, report func(int64)) (layer.Info, error) {
				return s.unpack(ctx, l, diffIDs[i], report)
			}
			if err := s.ensure(ctx, diffIDs[i], unpack, shown[i]); err != nil {
				return fmt.Errorf("layer %d of %d: %w", i+1, len(in.layers), err)
			}
			return nil
		})
	}
	return g.Wait()
}

// record makes an image visible under its names, takes its tag from whoever
// had it, and drops that one if no name is left.
func (s *Store) record(in incoming) (Image, error) {
	s.write.Lock()
	defer s.write.Unlock()
	id := digest.FromBytes(in.config)

	s.mu.Lock()
	old := s.images[id]
	s.mu.Unlock()
	rec := record{Version: recordVersion, Config: in.config, Directory: in.directory, Passing: in.passing}
	if old != nil {
		rec = old.rec
		rec.Removed = false
	}
	rec.Pinned = rec.Pinned || in.pinned
	if in.annotations != nil {
		rec.Annotations = in.annotations
	}
	for _, tag := range in.tags {
		rec.Tags = with(rec.Tags, tag)
	}
	if in.digest != "" {
		rec.Digests = with(rec.Digests, in.digest)
	}
	if old != nil && reflect.DeepEqual(rec, old.rec) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.refresh(old)
		return old.image, nil // nothing new, so nothing to wait for
	}
	rec.Written = time.Now()
	e, err := newEntry(id, rec)
	if err != nil {
		return Image{}, err
	}
	if err := s.save(id, rec); err != nil {
		return Image{}, fmt.Errorf("record: %w", err)
	}

	crashpoint.Here("pull.recorded")
	s.mu.Lock()
	robbed := s.rob(in.tags, old)
	if old != nil {
		e = old
		e.rec = rec
		s.claim(e)
	} else {
		s.enter(e)
	}
	out := e.image
	s.mu.Unlock()
	crashpoint.Here("pull.tag-taken")
	for _, other := range robbed {
		if err := s.settle(other); err != nil {
			// The new record is younger and has the tag, now and at any start.
			s.log.Warn("image cannot be told that it lost a tag", "image", other.id, "err", err)
		}
	}
	return out, nil
}

// rob takes tags from all but one image, in memory. s.mu is held.
func (s *Store) rob(tags []string, but *entry) []*entry {
	var robbed []*entry
	for _, tag := range tags {
		e := s.names[tag]
		if e == nil || e == but {
			continue
		}
		delete(s.names, tag)
		e.rec.Tags = without(e.rec.Tags, tag)
		s.refresh(e)
		robbed = append(robbed, e)
	}
	return robbed
}

// settle brings what rob did to the disk. s.write is held.
func (s *Store) settle(e *entry) error {
	if len(e.rec.Tags) == 0 && len(e.rec.Digests) == 0 {
		return s.removeImage(e)
	}
	return s.save(e.id, e.rec)
}
