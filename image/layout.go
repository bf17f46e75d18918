package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"cri-mini/image/manifest"
	"cri-mini/image/reference"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

var errCorrupt = errors.New("content is not what was promised")

// layoutImages finds the images of an OCI image layout. Several manifests of
// one name are one image for several platforms.
func (s *Store) layoutImages(a archive) ([]archived, error) {
	data, err := readSmall(a, "index.json", manifest.MaxSize)
	if err != nil {
		return nil, err
	}
	doc, err := manifest.Parse(data, "")
	if err != nil {
		return nil, fmt.Errorf("index.json: %w", err)
	}
	if doc.Index == nil {
		return nil, fmt.Errorf("index.json is %q, not an index", doc.MediaType)
	}
	byName := map[string][]ocispec.Descriptor{}
	for _, m := range doc.Index.Manifests {
		n := layoutName(m)
		byName[n] = append(byName[n], m)
	}
	var found []archived
	for _, n := range slices.Sorted(maps.Keys(byName)) {
		f, err := s.layoutImage(a, byName[n])
		if err != nil {
			return nil, fmt.Errorf("image %q: %w", n, err)
		}
		if n != "" {
			parsed, err := reference.Parse(n)
			if err != nil {
				return nil, err
			}
			f.name(parsed)
		}
		found = append(found, f)
	}
	if len(found) == 0 {
		return nil, errors.New("index.json: no image in it")
	}
	return found, nil
}

// layoutName is the complete name that a tool left with a manifest, or empty.
func layoutName(d ocispec.Descriptor) string {
	if n := d.Annotations["io.containerd.image.name"]; n != "" {
		return n
	}
	// Some tools write only a tag here, which names nothing by itself.
	if n := d.Annotations[ocispec.AnnotationRefName]; strings.Contains(n, "/") {
		return n
	}
	return ""
}

func (s *Store) layoutImage(a archive, choices []ocispec.Descriptor) (archived, error) {
	desc, err := manifest.Choose(&ocispec.Index{Manifests: choices}, s.platform)
	if err != nil {
		return archived{}, err
	}
	f := archived{digest: desc.Digest}
	for range 4 {
		data, err := readBlob(a, desc, manifest.MaxSize)
		if err != nil {
			return f, err
		}
		doc, err := manifest.Parse(data, desc.MediaType)
		if err != nil {
			return f, err
		}
		if doc.Manifest != nil {
			f.annotations = s.annotations(desc.Digest.String(), doc.Manifest.Annotations)
			f.config, err = readBlob(a, doc.Manifest.Config, manifest.MaxConfigSize)
			for _, l := range doc.Manifest.Layers {
				f.layers = append(f.layers, incomingLayer{digest: l.Digest, size: l.Size, fetch: fetchBlob(a, l)})
			}
			return f, err
		}
		if desc, err = manifest.Choose(doc.Index, s.platform); err != nil {
			return f, err
		}
	}
	return f, errors.New("more than 4 indexes lead to each other")
}

func blobFile(d digest.Digest) string {
	return "blobs/" + d.Algorithm().String() + "/" + d.Encoded()
}

func readBlob(a archive, desc ocispec.Descriptor, limit int64) ([]byte, error) {
	data, err := readSmall(a, blobFile(desc.Digest), limit)
	if err != nil {
		return nil, err
	}
	if got := desc.Digest.Algorithm().FromBytes(data); got != desc.Digest || int64(len(data)) != desc.Size {
		return nil, fmt.Errorf("blob %s: has digest %s and %d bytes, not %d: %w", desc.Digest, got, len(data), desc.Size, errCorrupt)
	}
	return data, nil
}

// fetchBlob is the fetch of a layer that lies in an archive.
func fetchBlob(a archive, desc ocispec.Descriptor) func(context.Context, func(io.Reader) error) error {
	return func(ctx context.Context, consume func(io.Reader) error) error {
		f, size, err := a.open(blobFile(desc.Digest))
		if err != nil {
			return err
		}
		defer f.Close()
		if size != desc.Size {
			return fmt.Errorf("blob %s: has %d bytes, not %d: %w", desc.Digest, size, desc.Size, errCorrupt)
		}
		verifier := desc.Digest.Verifier()
		content := io.TeeReader(readerWithContext{ctx, f}, verifier)
		failed := consume(content)
		if _, err := io.Copy(io.Discard, content); err != nil {
			return err
		}
		if !verifier.Verified() {
			return fmt.Errorf("blob %s: has another digest: %w", desc.Digest, errCorrupt)
		}
		return failed
	}
}
