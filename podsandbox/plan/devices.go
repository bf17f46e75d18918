package plan

import (
	"path"
	"strings"

	"cri-mini/runtime/spec"
)

// devices lists the device nodes of a container besides the default ones.
func devices(r Request) ([]spec.Device, error) {
	list := make([]spec.Device, 0, len(r.Devices))
	if r.Config.GetLinux().GetSecurityContext().GetPrivileged() {
		list = append(list, r.HostDevices...)
	}
	for _, d := range r.Devices {
		if !path.IsAbs(d.ContainerPath) {
			return nil, invalid("config.devices.container_path", d.ContainerPath, "must be an absolute path")
		}
		if d.Permissions == "" {
			d.Permissions = "rwm"
		}
		if strings.Trim(d.Permissions, "rwm") != "" {
			return nil, invalid("config.devices.permissions", d.Permissions, "may hold r, w and m only")
		}
		d.ContainerPath = path.Clean(d.ContainerPath)
		list = replaceDevice(list, d)
	}
	if len(list) == 0 {
		return nil, nil
	}
	return list, nil
}

// replaceDevice lets a device asked for by name win over one that came with
// being privileged.
func replaceDevice(list []spec.Device, d spec.Device) []spec.Device {
	for i := range list {
		if list[i].ContainerPath == d.ContainerPath {
			list[i] = d
			return list
		}
	}
	return append(list, d)
}
