package plan

import (
	"path"
	"strings"

	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"cri-mini/internal/passwd"
	"cri-mini/runtime/spec"
)

// devices lists the device nodes of a container besides the default ones. At
// one place the last word is that of a CDI device, then of a device asked for
// by name; those that come with being privileged have the first.
func devices(r Request, user passwd.User) ([]spec.Device, error) {
	list := make([]spec.Device, 0, len(r.Devices)+len(r.CDI.Devices))
	if r.Config.GetLinux().GetSecurityContext().GetPrivileged() {
		list = append(list, r.HostDevices...)
	}
	for _, d := range r.Devices {
		if !absolute(d.ContainerPath) {
			return nil, invalid(DeviceField(r.Config, d.ContainerPath, "container_path"), d.ContainerPath, "must be an absolute path")
		}
		if d.Permissions == "" || strings.Trim(d.Permissions, "rwm") != "" {
			return nil, invalid(DeviceField(r.Config, d.ContainerPath, "permissions"), d.Permissions, "must be of the letters r, w and m")
		}
		d.ContainerPath = path.Clean(d.ContainerPath)
		if reason := taken(d, list); reason != "" {
			return nil, invalid(DeviceField(r.Config, d.ContainerPath, "container_path"), d.ContainerPath, "%s", reason)
		}
		list = replaceDevice(list, d)
	}
	for _, d := range r.CDI.Devices {
		if reason := taken(d, list); reason != "" {
			return nil, invalid(cdiField, d.ContainerPath, "%s", reason)
		}
		var err error
		if d, err = cdiDevice(d, user); err != nil {
			return nil, err
		}
		list = replaceDevice(list, d)
	}
	if len(list) == 0 {
		return nil, nil
	}
	return list, nil
}

const cdiField = "config.CDI_devices: device node"

// DeviceField names a field of the device that a node of a container comes from,
// by itself or in a folder. What nobody asked for is of a CDI device.
func DeviceField(cfg *criapi.ContainerConfig, node, field string) string {
	best, name := 0, cdiField
	node = path.Clean(node) + "/"
	for i, d := range cfg.GetDevices() {
		folder := strings.TrimSuffix(path.Clean(d.ContainerPath), "/") + "/"
		if strings.HasPrefix(node, folder) && len(folder) > best {
			best, name = len(folder), at("config.devices", i, field)
		}
	}
	return name
}

// cdiDevice gives a node that has no owner to the user of the container: whoever
// asks for a device wants to use it. Outside /dev it is the host's own node
// that is shown, which cannot be made to look different.
func cdiDevice(d spec.Device, user passwd.User) (spec.Device, error) {
	if !strings.HasPrefix(d.ContainerPath, "/dev/") {
		if d.Kind != "" || d.Mode != nil || d.UID != nil || d.GID != nil {
			return d, invalid(cdiField, d.ContainerPath, "is not below /dev, so it cannot have a type, mode or owner of its own")
		}
		return d, nil
	}
	if d.UID == nil {
		d.UID = &user.UID
	}
	if d.GID == nil {
		d.GID = &user.GID
	}
	return d, nil
}

// ownPlaces are the entries of /dev that each container has of its own, with
// all that is below them.
var ownPlaces = []string{"/dev/pts", "/dev/shm", "/dev/mqueue", "/dev/fd", "/dev/stdin", "/dev/stdout", "/dev/stderr", "/dev/ptmx", "/dev/console"}

// standardNodes are devices that each container has. What is hidden from a
// container is hidden behind its /dev/null, which must be that.
var standardNodes = []string{"/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty"}

// taken says why a device cannot be where it shall be, or nothing.
func taken(d spec.Device, others []spec.Device) string {
	if d.ContainerPath == "/" || d.ContainerPath == "/dev" {
		return "is no place for a device"
	}
	for _, own := range ownPlaces {
		if d.ContainerPath == own || strings.HasPrefix(d.ContainerPath, own+"/") {
			return "is where each container has its own " + strings.TrimPrefix(own, "/dev/")
		}
	}
	for _, own := range standardNodes {
		if strings.HasPrefix(d.ContainerPath, own+"/") || d.ContainerPath == own && (path.Clean(d.HostPath) != own || d.Kind != "") {
			return "is a device that each container has, and cannot be another one"
		}
	}
	for _, o := range others {
		if strings.HasPrefix(d.ContainerPath, o.ContainerPath+"/") || strings.HasPrefix(o.ContainerPath, d.ContainerPath+"/") {
			return "cannot be there together with the device " + o.ContainerPath
		}
	}
	return ""
}

// replaceDevice keeps one device for each place.
func replaceDevice(list []spec.Device, d spec.Device) []spec.Device {
	for i := range list {
		if list[i].ContainerPath == d.ContainerPath {
			list[i] = d
			return list
		}
	}
	return append(list, d)
}

func absolute(p string) bool { return path.IsAbs(p) && !strings.Contains(p, "\x00") }
