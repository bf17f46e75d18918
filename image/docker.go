package image

import (
	"context"
	"fmt"
	"io"
	"slices"

	"cri-mini/image/manifest"
	"cri-mini/image/reference"

	"github.com/opencontainers/go-digest"
)

// dockerImages finds the images in an archive of "docker save". Its layers
// have no digests of their own; what they unpack to must be what the config
// promises.
func dockerImages(a archive) ([]archived, error) {
	var list []struct {
		Config   string
		RepoTags []string
		Layers   []string
	}
	if err := readJSON(a, "manifest.json", manifest.MaxSize, &list); err != nil {
		return nil, err
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("manifest.json: no image in it")
	}
	var found []archived
	for i, m := range list {
		config, err := readSmall(a, m.Config, manifest.MaxConfigSize)
		if err != nil {
			return nil, fmt.Errorf("manifest.json: image %d: config: %v", i, err)
		}
		if len(m.Layers) > manifest.MaxLayers {
			return nil, fmt.Errorf("manifest.json: image %d: %d layers, at most %d are allowed", i, len(m.Layers), manifest.MaxLayers)
		}
		p, err := parseConfig(config)
		if err != nil {
			return nil, fmt.Errorf("manifest.json: image %d: %w", i, err)
		}
		f := archived{incoming: incoming{config: config}}
		for _, tag := range m.RepoTags {
			n, err := reference.Parse(tag)
			if err != nil {
				return nil, fmt.Errorf("manifest.json: image %d: %w", i, err)
			}
			f.tags = append(f.tags, n.String())
		}
		slices.Sort(f.tags)
		for j, name := range m.Layers {
			l, err := dockerLayer(a, name)
			if err != nil {
				return nil, fmt.Errorf("manifest.json: image %d: layer %d: %v", i, j, err)
			}
			if j < len(p.diffIDs) {
				l.digest = p.diffIDs[j]
			}
			f.layers = append(f.layers, l)
		}
		found = append(found, f)
	}
	return found, nil
}

func dockerLayer(a archive, name string) (incomingLayer, error) {
	f, size, err := a.open(name)
	if err != nil {
		return incomingLayer{}, err
	}
	f.Close()
	return incomingLayer{
		digest: digest.Digest(""),
		size:   size,
		fetch: func(ctx context.Context, consume func(io.Reader) error) error {
			f, _, err := a.open(name)
			if err != nil {
				return err
			}
			defer f.Close()
			return consume(readerWithContext{ctx, f})
		},
	}, nil
}
