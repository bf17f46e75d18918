package cdi

import (
	"fmt"
	"io/fs"
	"math"
	"path"
	"strings"

	"golang.org/x/sys/unix"
	specs "tags.cncf.io/container-device-interface/specs-go"

	"cri-mini/runtime/spec"
)

// kinds are the types of nodes. An unbuffered character device is one like
// the others by now.
var kinds = map[string]spec.DeviceKind{
	"": "", "c": spec.CharacterDevice, "u": spec.CharacterDevice, "b": spec.BlockDevice, "p": spec.Pipe,
}

// modes are the kinds as stat(2) gives them.
var modes = map[uint32]spec.DeviceKind{
	unix.S_IFCHR: spec.CharacterDevice, unix.S_IFBLK: spec.BlockDevice, unix.S_IFIFO: spec.Pipe,
}

// typeBits may be in a file mode: those of stat(2), and of Go programs that
// write down their own.
const typeBits = unix.S_IFMT | uint32(fs.ModeType)

// checkNode begins its errors with the name of the field.
func checkNode(n *specs.DeviceNode) error {
	if n == nil {
		return fmt.Errorf("path: is missing")
	}
	if p := path.Clean(n.Path); !absolute(n.Path) || p == "/" || p == "/dev" {
		return fmt.Errorf("path %q: is not an absolute path of a device", n.Path)
	}
	if n.HostPath != "" && !absolute(n.HostPath) {
		return fmt.Errorf("hostPath %q: is not an absolute path", n.HostPath)
	}
	if _, known := kinds[n.Type]; !known {
		return fmt.Errorf("type %q: want one of b, c, u and p", n.Type)
	}
	// What the kernel's device numbers have room for.
	if n.Major < 0 || n.Major >= 1<<12 {
		return fmt.Errorf("major %d: is not the number of a device", n.Major)
	}
	if n.Minor < 0 || n.Minor >= 1<<20 {
		return fmt.Errorf("minor %d: is not the number of a device", n.Minor)
	}
	if n.Permissions != "none" && strings.Trim(n.Permissions, "rwm") != "" {
		return fmt.Errorf("permissions %q: may hold r, w and m, or be none", n.Permissions)
	}
	if n.FileMode != nil && uint32(*n.FileMode)&^typeBits&^0o777 != 0 {
		return fmt.Errorf("fileMode %d (octal %o): is more than permissions", *n.FileMode, *n.FileMode)
	}
	for name, id := range map[string]*uint32{"uid": n.UID, "gid": n.GID} {
		if id != nil && *id == math.MaxUint32 {
			return fmt.Errorf("%s %d: is no id", name, *id)
		}
	}
	return nil
}

// edits looks at the node's devices and gives what the part means today.
func (p part) edits() (Edits, error) {
	if p.refused != nil {
		return Edits{}, p.refused
	}
	e := Edits{Env: p.env, Mounts: p.mounts}
	for i, n := range p.nodes {
		d, err := device(n)
		if err != nil {
			return Edits{}, fmt.Errorf("%s.deviceNodes[%d].%w", p.where, i, err)
		}
		e.Devices = append(e.Devices, d)
	}
	for _, g := range p.groups {
		if g != 0 { // the specification has it ignored
			e.Groups = append(e.Groups, g)
		}
	}
	return e, nil
}

// device is the node to make. With a type and a major number, or for a pipe,
// the host needs no node of its own.
func device(n *specs.DeviceNode) (spec.Device, error) {
	d := spec.Device{HostPath: n.HostPath, ContainerPath: path.Clean(n.Path), Permissions: n.Permissions, UID: n.UID, GID: n.GID}
	if d.HostPath == "" {
		d.HostPath = n.Path
	}
	switch d.Permissions {
	case "":
		d.Permissions = "rwm"
	case "none":
		d.Permissions = ""
	}
	if n.FileMode != nil {
		mode := uint32(*n.FileMode) & 0o777
		d.Mode = &mode
	}
	kind := kinds[n.Type]
	described := kind == spec.Pipe || kind != "" && n.Major != 0
	var st unix.Stat_t
	err := unix.Stat(d.HostPath, &st)
	if err != nil && !described {
		return d, fmt.Errorf("hostPath %q: %w", d.HostPath, err)
	}
	found := modes[st.Mode&unix.S_IFMT]
	if described {
		d.Kind, d.Major, d.Minor = kind, uint32(n.Major), uint32(n.Minor)
		if d.Mode == nil && err == nil && found != "" {
			mode := st.Mode & 0o777
			d.Mode = &mode
		}
		return d, nil
	}
	switch {
	case found == "":
		return d, fmt.Errorf("hostPath %q: is not a device", d.HostPath)
	case kind != "" && kind != found:
		return d, fmt.Errorf("type %q: host path %s is of type %s", n.Type, d.HostPath, found)
	case found == spec.Pipe:
		d.Kind = spec.Pipe
	}
	return d, nil
}
