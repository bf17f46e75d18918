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

// findImage finds the image that a field names, by id or name, and keeps it
// from being removed.
func (b *birth) findImage(field, name string, found *image.Image) ([]spec.Layer, error) {
	if name == "" {
		return nil, &InvalidError{Field: field, Reason: "is missing"}
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
		field := fmt.Sprintf("config.mounts[%d].image.image", i)
		layers, err := b.findImage(field, m.Image.Image, &found)
		if errors.Is(err, ErrNotFound) {
			err = fmt.Errorf("%s: %w (it must be pulled first)", field, err)
		}
		if err != nil {
			return &plan.ImageVolumeError{Cause: err}
		}
		b.request.ImageVolumes[i], b.volumes[i] = layers, found.ID
	}
	return nil
}
