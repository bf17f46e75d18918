package podsandbox

import (
	"errors"
	"fmt"

	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

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

// checkImage checks what a request says of an image besides its name. Images are
// the same for all handlers.
func (b *birth) checkImage(field string, i *criapi.ImageSpec) error {
	if h := i.GetRuntimeHandler(); h != "" && h != b.s.handler {
		return &InvalidError{Field: field + ".runtime_handler", Value: h, Reason: "is not that of the pod"}
	}
	if i.GetImage() == "" {
		return &InvalidError{Field: field + ".image", Reason: "is missing"}
	}
	return nil
}

// findImage finds an image by id or name and keeps it from being removed.
func (b *birth) findImage(field, name string, found *image.Image) ([]spec.Layer, error) {
	images := b.s.pods.opt.Images
	var err error
	if *found, err = images.Get(name); err != nil {
		return nil, imageError(field, name, err)
	}
	if err := images.Hold(found.ID, b.id); err != nil {
		return nil, imageError(field, name, err)
	}
	layers, err := images.Layers(found.ID)
	if err != nil {
		return nil, imageError(field, name, err)
	}
	list := make([]spec.Layer, len(layers))
	for i, l := range layers {
		list[i] = spec.Layer{Path: l.Path, Form: spec.LayerForm(l.Form)}
	}
	return list, nil
}

func imageError(field, name string, err error) error {
	if errors.Is(err, image.ErrNotFound) {
		return fmt.Errorf("%s %q: %w", field, name, ErrNotFound)
	}
	if wrong := (*image.NameError)(nil); errors.As(err, &wrong) {
		return &InvalidError{Field: field, Value: wrong.Name, Reason: wrong.Reason}
	}
	return fmt.Errorf("%s: %w", field, err)
}

func (b *birth) findVolumes() error {
	b.request.ImageVolumes, b.volumes = map[int][]spec.Layer{}, map[int]string{}
	for i, m := range b.config.Mounts {
		if m.GetImage() == nil {
			continue
		}
		var found image.Image
		layers, err := b.findImage(fmt.Sprintf("config.mounts[%d].image.image", i), m.Image.Image, &found)
		if errors.Is(err, ErrNotFound) {
			err = fmt.Errorf("%w (it must be pulled first)", err)
		}
		if err != nil {
			return &plan.ImageVolumeError{Cause: err}
		}
		b.request.ImageVolumes[i], b.volumes[i] = layers, found.ID
	}
	return nil
}
