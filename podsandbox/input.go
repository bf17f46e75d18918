package podsandbox

import (
	"errors"
	"fmt"
	"path"
	"strings"

	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"cri-mini/podsandbox/plan"
	"cri-mini/runtime/spec"
)

// asInput names the field of the request that an executor found wrong, and
// tells the kubelet of image volumes. Any other error stays as it is.
func asInput(err error, config *criapi.ContainerConfig) error {
	if volume := (*spec.VolumeError)(nil); errors.As(err, &volume) {
		return &plan.ImageVolumeError{Cause: asInput(volume.Err, config)}
	}
	var wrong *spec.InputError
	if !errors.As(err, &wrong) {
		return err
	}
	field := wrong.Name
	switch wrong.Part {
	case spec.InputMount:
		field = mountField(config, wrong.Name, "host_path")
	case spec.InputSubPath:
		field = mountField(config, wrong.Name, "image_sub_path")
	case spec.InputDevice:
		field = "device " + wrong.Name
	case spec.InputResource:
		field = "linux.resources." + wrong.Name
	case spec.InputSysctl:
		field = "linux.sysctls[" + strings.ReplaceAll(wrong.Name, "/", ".") + "]"
	}
	return &InvalidError{Field: field, Value: wrong.Value, Reason: wrong.Err.Error()}
}

// mountField names a field of the mount at a target, unless it is one of ours.
func mountField(config *criapi.ContainerConfig, target, name string) string {
	for i, m := range config.GetMounts() {
		if path.Clean(m.ContainerPath) == path.Clean(target) {
			return fmt.Sprintf("config.mounts[%d].%s", i, name)
		}
	}
	return "mount " + target
}
