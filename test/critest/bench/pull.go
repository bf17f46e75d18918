package main

import (
	"context"
	"fmt"
	"math/rand/v2"

	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"cri-mini/test/critest/internal/testimage"
)

// bigImage has 200 MB in ten layers of 200 files each.
const bigImage = "registry.test/big:200mb"

func addBig(images *testimage.Set) error {
	var layers []*testimage.Layer
	for number := range 10 {
		random := rand.New(rand.NewPCG(1, uint64(number)))
		files := []testimage.File{{Name: fmt.Sprintf("d%d/", number), Mode: 0o755}}
		for f := range 200 {
			files = append(files, testimage.File{Name: fmt.Sprintf("d%d/f%d", number, f), Mode: 0o644, Body: words(random, 100<<10)})
		}
		layer, err := testimage.NewLayer(files)
		if err != nil {
			return err
		}
		layers = append(layers, layer)
	}
	return images.Add("big:200mb", testimage.Config{Cmd: []string{"none"}}, layers...)
}

// words are text that gzip makes about a third of.
func words(random *rand.Rand, size int) []byte {
	body := make([]byte, 0, size+16)
	for len(body) < size {
		body = fmt.Appendf(body, "%x line%d ", random.Uint32()>>(random.Uint32()%24), random.Uint32()%1000)
	}
	return body[:size]
}

// pulls takes the image from a registry on the same machine and unpacks it, as
// each does by default, and removes it.
func pulls(t *table, all []*subject) error {
	const rounds = 3
	sums := map[string]float64{}
	for range rounds {
		for _, s := range all {
			before, err := s.place.CPU()
			if err != nil {
				return err
			}
			if _, err := t.time("pull and unpack 200 MB, 10 layers, gzip", s.name, func() error { return s.pull(bigImage) }); err != nil {
				return err
			}
			after, err := s.place.CPU()
			if err != nil {
				return err
			}
			sums[s.name] += (after - before).Seconds()
			if err := s.removeImage(bigImage); err != nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
		}
	}
	for _, s := range all {
		t.note("processor time of such a pull", s.name, sums[s.name]/rounds, "s")
	}
	return nil
}

func (c *client) removeImage(name string) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	_, err := c.images.RemoveImage(ctx, &criapi.RemoveImageRequest{Image: &criapi.ImageSpec{Image: name}})
	return err
}
