package podsandbox

import (
	"errors"
	"fmt"

	"cri-mini/image"
	"cri-mini/podsandbox/plan"
	"cri-mini/runtime/spec"
)

// wishes are what an image may say about how it is run.
func wishes(c image.Config) plan.Image {
	return plan.Image{
		User:       c.User,
		Env:        c.Env,
		Entrypoint: c.Entrypoint,
		Cmd:        c.Cmd,
		WorkingDir: c.WorkingDir,
		StopSignal: c.StopSignal,
	}
}

// findImage finds an image by id or name and keeps it from being removed.
func (b *birth) findImage(name string, found *image.Image) ([]spec.Layer, error) {
	if name == "" {
		return nil, &InvalidError{Field: "config.image.image", Reason: "is missing"}
	}
	images := b.s.pods.opt.Images
	var err error
	if *found, err = images.Get(name); err != nil {
		return nil, imageError(err)
	}
	if err := images.Hold(found.ID, b.id); err != nil {
		return nil, imageError(err)
	}
	layers, err := images.Layers(found.ID)
	if err != nil {
		return nil, imageError(err)
	}
	list := make([]spec.Layer, len(layers))
	for i, l := range layers {
		list[i] = spec.Layer{Path: l.Path, Form: spec.LayerForm(l.Form)}
	}
	return list, nil
}

func imageError(err error) error {
	if errors.Is(err, image.ErrNotFound) {
		return kindError{err, ErrNotFound}
	}
	return err
}

func (b *birth) findVolumes() error {
	b.request.ImageVolumes, b.volumes = map[int][]spec.Layer{}, map[int]string{}
	for i, m := range b.config.Mounts {
		if m.GetImage() == nil {
			continue
		}
		var found image.Image
		layers, err := b.findImage(m.Image.Image, &found)
		if err != nil {
			return &plan.ImageVolumeError{Cause: fmt.Errorf("config.mounts[%d]: %w", i, err)}
		}
		b.request.ImageVolumes[i], b.volumes[i] = layers, found.ID
	}
	return nil
}
