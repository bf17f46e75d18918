package podsandbox

import (
	"errors"
	"fmt"
	"io/fs"
	"path"

	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"cri-mini/internal/hostpath"
	"cri-mini/podsandbox/network"
	"cri-mini/podsandbox/plan"
	"cri-mini/runtime/spec"
)

// asInput names the field of the request that an executor found wrong, and
// tells the kubelet of image volumes. The names of limits begin with resources.
// Any other error stays as it is.
func asInput(err error, config *criapi.ContainerConfig, resources string) error {
	if volume := (*spec.VolumeError)(nil); errors.As(err, &volume) {
		return &plan.ImageVolumeError{Cause: asInput(volume.Err, config, resources)}
	}
	var wrong *spec.InputError
	if !errors.As(err, &wrong) {
		return err
	}
	bad := &InvalidError{Field: wrong.Name, Value: wrong.Value, Reason: wrong.Err.Error()}
	switch wrong.Part {
	case spec.InputMount:
		bad.Field = mountField(config, wrong, "host_path")
	case spec.InputSubPath:
		bad.Field = mountField(config, wrong, "image_sub_path")
	case spec.InputPropagation:
		bad.Field, bad.Reason = mountField(config, wrong, "propagation"), "host_path "+wrong.Value+" "+bad.Reason
		if i := mountOf(config, wrong); i >= 0 {
			bad.Value = config.Mounts[i].Propagation.String()
		}
	case spec.InputDevice:
		bad.Field = plan.DeviceField(config, wrong.Name, "host_path")
	case spec.InputResource:
		bad.Field = resources + wrong.Name
	}
	if silent(wrong.Err) {
		return fmt.Errorf("%s: %w", bad.Field, wrong.Err)
	}
	return bad
}

// silent says that nothing is known to be wrong with a path but that its file
// system does not answer: the same call may work later.
func silent(err error) bool {
	found := (*hostpath.SilentError)(nil)
	return errors.As(err, &found)
}

// mountField names a field of a mount, unless it is one of a device's or of
// ours.
func mountField(config *criapi.ContainerConfig, wrong *spec.InputError, name string) string {
	if i := mountOf(config, wrong); i >= 0 {
		return fmt.Sprintf("config.mounts[%d].%s", i, name)
	}
	for i, d := range config.GetDevices() {
		if path.Clean(d.ContainerPath) == path.Clean(wrong.Name) {
			return fmt.Sprintf("config.devices[%d].host_path", i)
		}
	}
	return "mount " + wrong.Name
}

// mountOf is the place of a mount in the request, or -1. Of two at one target
// it is the one with the source.
func mountOf(config *criapi.ContainerConfig, wrong *spec.InputError) int {
	found := -1
	for i, m := range config.GetMounts() {
		if path.Clean(m.ContainerPath) != path.Clean(wrong.Name) {
			continue
		}
		if found = i; m.HostPath == wrong.Value || m.ImageSubPath == wrong.Value {
			return i
		}
	}
	return found
}

// sysctlInput is asInput for a pod. The executor knows a sysctl by its path.
func sysctlInput(err error, config *criapi.PodSandboxConfig) error {
	wrong := (*spec.InputError)(nil)
	if !errors.As(err, &wrong) || wrong.Part != spec.InputSysctl {
		return err
	}
	for name := range config.GetLinux().GetSysctls() {
		if plan.SysctlPath(name) == wrong.Name {
			return &InvalidError{Field: "config.linux.sysctls[" + name + "]", Value: wrong.Value, Reason: wrong.Err.Error()}
		}
	}
	return err
}

// InRequest names the field of a request that the network found wrong, which is
// in the message that prefix names.
func InRequest(err error, prefix string) error {
	wrong := (*network.FieldError)(nil)
	if !errors.As(err, &wrong) {
		return err
	}
	if wrong.Always {
		return &InvalidError{Field: prefix + wrong.Field, Value: wrong.Value, Reason: wrong.Reason}
	}
	return fmt.Errorf("%s%w", prefix, wrong)
}

// reason is what is wrong with a file, without its name.
func reason(err error) string {
	for at := (*fs.PathError)(nil); errors.As(err, &at); {
		err = at.Err
	}
	return err.Error()
}
