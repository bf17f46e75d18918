package cdi

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	specs "tags.cncf.io/container-device-interface/specs-go"

	"cri-mini/runtime/spec"
)

// newMount begins its errors with the name of the field. A mount that makes
// sense but is not done here is refused.
func newMount(m *specs.Mount) (mount spec.Mount, refused, err error) {
	if m == nil {
		return mount, nil, errors.New("containerPath: is missing")
	}
	mount = spec.Mount{Target: path.Clean(m.ContainerPath), Propagation: spec.Private}
	if !absolute(m.ContainerPath) || mount.Target == "/" {
		return mount, nil, fmt.Errorf("containerPath %q: is not an absolute path below /", m.ContainerPath)
	}
	switch {
	case m.Type == "tmpfs":
		mount.Kind, mount.Propagation = spec.TmpfsMount, ""
	case m.Type == "" || m.Type == "bind" || m.Type == "none" || slices.Contains(m.Options, "bind") || slices.Contains(m.Options, "rbind"):
		mount.Kind, mount.Source = spec.BindMount, m.HostPath
		if !absolute(m.HostPath) {
			return mount, nil, fmt.Errorf("hostPath %q: is not an absolute path", m.HostPath)
		}
	default:
		return mount, fmt.Errorf("type %q: only bind and tmpfs are mounted", m.Type), nil
	}
	for i, o := range m.Options {
		if strings.Contains(o, "\x00") {
			return mount, nil, fmt.Errorf("options[%d] %q: holds a zero byte", i, o)
		}
		if err := option(&mount, o); err != nil && refused == nil {
			refused = fmt.Errorf("options[%d] %q: %w", i, o, err)
		}
	}
	return mount, refused, nil
}

// options are those without a value.
var options = map[string]func(*spec.Mount){
	"ro": func(m *spec.Mount) { m.ReadOnly = true }, "rw": func(m *spec.Mount) { m.ReadOnly = false },
	"rro":    func(m *spec.Mount) { m.ReadOnly, m.RecursiveReadOnly = true, true },
	"nosuid": func(m *spec.Mount) { m.NoSuid = true }, "suid": func(m *spec.Mount) { m.NoSuid = false },
	"nodev": func(m *spec.Mount) { m.NoDev = true }, "dev": func(m *spec.Mount) { m.NoDev = false },
	"noexec": func(m *spec.Mount) { m.NoExec = true }, "exec": func(m *spec.Mount) { m.NoExec = false },
}

var bindOptions = map[string]func(*spec.Mount){
	"rbind": func(m *spec.Mount) { m.Alone = false }, "bind": func(m *spec.Mount) { m.Alone = true },
	"private": private, "rprivate": private,
	"slave": slave, "rslave": slave,
	"shared": shared, "rshared": shared,
}

func private(m *spec.Mount) { m.Propagation = spec.Private }
func slave(m *spec.Mount)   { m.Propagation = spec.HostToContainer }
func shared(m *spec.Mount)  { m.Propagation = spec.Bidirectional }

// harmless options say what is so anyway, or how eagerly times of access are
// written: that is for the host's own mount to say.
var harmless = []string{"defaults", "relatime", "norelatime", "atime", "noatime", "diratime", "nodiratime", "strictatime", "nostrictatime"}

func option(m *spec.Mount, o string) error {
	if set := options[o]; set != nil {
		set(m)
		return nil
	}
	if slices.Contains(harmless, o) {
		return nil
	}
	if m.Kind == spec.BindMount {
		if set := bindOptions[o]; set != nil {
			set(m)
			return nil
		}
		return errors.New("is no option of a bind mount that is known here")
	}
	name, value, _ := strings.Cut(o, "=")
	switch name {
	case "size":
		return tmpfsSize(m, value)
	case "mode":
		mode, err := strconv.ParseUint(value, 8, 12)
		if err != nil {
			return errors.New("want permissions in octal")
		}
		m.Mode = uint32(mode)
		return nil
	}
	return errors.New("is no option of a tmpfs that is known here")
}

// tmpfsSize takes the units of the kernel; a share of the memory (50%) has no
// meaning that would be the same tomorrow.
func tmpfsSize(m *spec.Mount, value string) error {
	shift := 0
	if value != "" {
		shift = map[byte]int{'k': 10, 'm': 20, 'g': 30}[value[len(value)-1]|0x20]
	}
	if shift != 0 {
		value = value[:len(value)-1]
	}
	n, err := strconv.ParseInt(value, 10, 64)
	if err != nil || n <= 0 || n > 1<<62>>shift {
		return errors.New("want a number of bytes, or one with k, m or g")
	}
	m.Size = n << shift
	return nil
}
