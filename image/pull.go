package image

import (
	"context"
	"fmt"
	"io"
	"time"

	"cri-mini/image/reference"
	"cri-mini/image/registry"
	"cri-mini/internal/crashpoint"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Auth is what a caller knows to prove who it is to a registry.
type Auth = registry.Auth

// Why a pull failed, for callers that act on it. ErrNotFound is one more.
var (
	ErrInvalidName  = reference.ErrInvalid // is what a *NameError is
	ErrUnauthorized = registry.ErrUnauthorized
	ErrUnavailable  = registry.ErrUnavailable // worth another try later
)

// NameError is a name that no image can have.
type NameError = reference.Error

// PullOptions of one pull.
type PullOptions struct {
	Auth     *Auth          // nil: none
	Progress func(Progress) // nil: nobody listens; called one at a time, and waited for
}

// maxAnnotations bounds what a manifest's annotations add to every answer that
// lists images.
const maxAnnotations = 32 << 10

// Pull fetches an image and gives it the name asked for: a tag is taken from
// the image that had it, and with or without a tag the image is known by its
// digest in that repository.
func (s *Store) Pull(ctx context.Context, ref string, o PullOptions) (Image, error) {
	began := time.Now()
	name, err := reference.Parse(ref)
	if err != nil {
		return Image{}, err
	}
	repo, err := s.client.Repository(name, o.Auth)
	if err != nil {
		return Image{}, err
	}
	defer repo.Close()
	resolved, err := repo.Resolve(ctx, s.platform)
	if err != nil && ctx.Err() != nil {
		return Image{}, fmt.Errorf("pull %s: asking the registry for %s: %w", name, age(began), ctx.Err())
	}
	if err != nil {
		return Image{}, err
	}
	crashpoint.Here("pull.resolved")
	in := incoming{
		config:      resolved.Config,
		digest:      name.WithDigest(resolved.Digest).String(),
		annotations: s.annotations(name.String(), resolved.Manifest.Annotations),
		progress:    &progress{call: o.Progress},
	}
	defer in.progress.close()
	if name.Tag != "" {
		in.tags = []string{name.String()}
	}
	for _, desc := range resolved.Manifest.Layers {
		in.layers = append(in.layers, remoteLayer(repo, desc))
	}
	img, err := s.ingest(ctx, in)
	if err != nil && ctx.Err() != nil {
		return Image{}, fmt.Errorf("pull %s: downloading for %s, %s: %w", name, age(began), in.progress, ctx.Err())
	}
	if err != nil {
		return Image{}, fmt.Errorf("pull %s: %w", name, err)
	}
	return img, nil
}

func age(began time.Time) time.Duration { return time.Since(began).Round(100 * time.Millisecond) }

func remoteLayer(repo *registry.Repository, desc ocispec.Descriptor) incomingLayer {
	return incomingLayer{
		digest: desc.Digest,
		size:   desc.Size,
		fetch: func(ctx context.Context, consume func(io.Reader) error) error {
			defer repo.Close() // the flight may outlast the pull that began it
			return repo.Fetch(ctx, desc, consume)
		},
	}
}

func (s *Store) annotations(name string, a map[string]string) map[string]string {
	size := 0
	for k, v := range a {
		size += len(k) + len(v)
	}
	if size > maxAnnotations {
		s.log.Info("annotations of an image are too large to keep", "image", name, "bytes", size)
		return nil
	}
	return a
}
