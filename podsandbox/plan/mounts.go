package plan

import (
	"path"
	"slices"
	"strings"

	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"cri-mini/runtime/spec"
)

// mounts plans the mounts asked for and, before them in order, the pod's own
// files below /etc where nobody asked for others.
func mounts(r Request) ([]spec.Mount, error) {
	var list []spec.Mount
	for i := range r.Config.Mounts {
		m, err := mount(r, i)
		if err != nil {
			return nil, err
		}
		list = append(list, m)
	}
	list = cdiMounts(r, list)
	list = append(etcMounts(r, list), list...)
	// A mount point may lie in another mount: the outer one comes first. Of
	// two at the same place the later one of the request stays on top.
	slices.SortStableFunc(list, func(a, b spec.Mount) int {
		return strings.Count(a.Target, "/") - strings.Count(b.Target, "/")
	})
	return list, nil
}

// cdiMounts adds the mounts of CDI devices, which replace what the request has at
// the same place. In a pod with users of its own a bind shows the files with
// the owners that they have on the node.
func cdiMounts(r Request, list []spec.Mount) []spec.Mount {
	for _, m := range r.CDI.Mounts {
		if m.Kind == spec.BindMount {
			m.IDs = r.Sandbox.IDs
		}
		list = slices.DeleteFunc(list, func(other spec.Mount) bool { return other.Target == m.Target })
		list = append(list, m)
	}
	return list
}

func etcMounts(r Request, asked []spec.Mount) []spec.Mount {
	var list []spec.Mount
	for _, name := range []string{"hostname", "hosts", "resolv.conf"} {
		target := "/etc/" + name
		taken := slices.ContainsFunc(asked, func(m spec.Mount) bool { return m.Target == target })
		if taken {
			continue
		}
		list = append(list, spec.Mount{
			Kind:        spec.BindMount,
			Target:      target,
			Source:      path.Join(r.Etc, name),
			Propagation: spec.Private,
			ReadOnly:    r.Config.GetLinux().GetSecurityContext().GetReadonlyRootfs(),
			Relabel:     r.Rootfs.Label != "",
		})
	}
	return list
}

func mount(r Request, i int) (spec.Mount, error) {
	asked := r.Config.Mounts[i]
	field := func(name string) string { return at("config.mounts", i, name) }
	m := spec.Mount{
		Target:            path.Clean(asked.ContainerPath),
		ReadOnly:          asked.Readonly,
		RecursiveReadOnly: asked.RecursiveReadOnly,
	}
	if !absolute(asked.ContainerPath) || m.Target == "/" {
		return m, invalid(field("container_path"), asked.ContainerPath, "must be an absolute path below /")
	}
	if err := mountOptions(&m, field("mount_options"), asked.MountOptions); err != nil {
		return m, err
	}
	if len(asked.UidMappings)+len(asked.GidMappings) > 0 {
		ids, err := idMapping(field(""), "uidMappings", "gidMappings", asked.UidMappings, asked.GidMappings)
		if err != nil {
			return m, err
		}
		// Another mapping would show the pod owners that nobody meant.
		if r.Sandbox.IDs == nil || *ids != *r.Sandbox.IDs {
			return m, invalid(field("uidMappings"), mappingText(asked.UidMappings[0]), "is not the mapping of the pod")
		}
		m.IDs = ids
	}
	if asked.GetImage() != nil {
		err := imageMount(&m, asked, field)
		m.Layers = r.ImageVolumes[i]
		if m.IDs == nil {
			m.IDs = r.Sandbox.IDs // the files of an image belong to the pod, whoever forgets to say so
		}
		return m, err
	}
	return m, bindMount(&m, asked, r.Rootfs.Label != "", field)
}

func mountOptions(m *spec.Mount, field string, options []string) error {
	for i, o := range options {
		switch o {
		case "noexec":
			m.NoExec = true
		case "nodev":
			m.NoDev = true
		case "nosuid":
			m.NoSuid = true
		default:
			return invalid(item(field, i), o, "must be noexec, nodev or nosuid")
		}
	}
	return nil
}

// bindMount plans a path of the host. With label there is one to give to files.
func bindMount(m *spec.Mount, asked *criapi.Mount, label bool, field func(string) string) error {
	m.Kind, m.Source = spec.BindMount, asked.HostPath
	m.Relabel = asked.SelinuxRelabel && label
	if !absolute(asked.HostPath) {
		return invalid(field("host_path"), asked.HostPath, "must be an absolute path")
	}
	// ImageSubPath says nothing about a folder of the host. The kubelet sends it
	// with every volume of which it mounts a part, and has then put the part
	// into HostPath already.
	switch asked.Propagation {
	case criapi.MountPropagation_PROPAGATION_PRIVATE:
		m.Propagation = spec.Private
	case criapi.MountPropagation_PROPAGATION_HOST_TO_CONTAINER:
		m.Propagation = spec.HostToContainer
	case criapi.MountPropagation_PROPAGATION_BIDIRECTIONAL:
		m.Propagation = spec.Bidirectional
	default:
		return invalid(field("propagation"), asked.Propagation, "is unknown")
	}
	if !asked.RecursiveReadOnly {
		return nil
	}
	if !asked.Readonly {
		return invalid(field("recursive_read_only"), true, "needs readonly")
	}
	// A submount that appears later would be writable.
	if m.Propagation != spec.Private {
		return invalid(field("recursive_read_only"), true, "needs private propagation, not %s", asked.Propagation)
	}
	return nil
}

func imageMount(m *spec.Mount, asked *criapi.Mount, field func(string) string) error {
	m.Kind, m.SubPath, m.Propagation = spec.ImageMount, asked.ImageSubPath, spec.Private
	var err error
	switch {
	case asked.HostPath != "":
		err = invalid(field("host_path"), asked.HostPath, "must be empty with an image")
	case !asked.Readonly:
		err = invalid(field("readonly"), false, "an image can only be mounted read-only")
	case asked.Propagation != criapi.MountPropagation_PROPAGATION_PRIVATE:
		err = invalid(field("propagation"), asked.Propagation, "must be private with an image")
	case path.IsAbs(asked.ImageSubPath), asked.ImageSubPath != "" && !confined(asked.ImageSubPath):
		err = invalid(field("image_sub_path"), asked.ImageSubPath, "must be a path below the root of the image")
	}
	if err != nil {
		return &ImageVolumeError{err}
	}
	return nil
}
