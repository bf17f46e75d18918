package cdi

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"path"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
	specs "tags.cncf.io/container-device-interface/specs-go"

	"cri-mini/runtime/spec"
)

// file is a spec file that makes sense.
type file struct {
	path    string
	kind    string // vendor/class
	common  part   // of all its devices
	devices map[string]part
}

// part is one set of edits before anyone looked at the node.
type part struct {
	where  string // in the file: devices[2].containerEdits
	env    []string
	nodes  []*specs.DeviceNode
	mounts []spec.Mount
	groups []uint32
	// refused is what the part asks for that we do not do. It concerns those
	// only who ask for the device.
	refused error
}

var (
	vendorName = regexp.MustCompile(`^[A-Za-z]([A-Za-z0-9_.-]*[A-Za-z0-9])?$`)
	deviceName = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9_.:-]*[A-Za-z0-9])?$`)
)

func splitName(name string) (kind, device string, err error) {
	kind, device, found := strings.Cut(name, "=")
	if !found {
		return "", "", errors.New("is not a name like vendor.com/class=device")
	}
	if err := checkKind(kind); err != nil {
		return "", "", err
	}
	if !deviceName.MatchString(device) {
		return "", "", fmt.Errorf("%q is not the name of a device", device)
	}
	return kind, device, nil
}

func checkKind(kind string) error {
	vendor, class, _ := strings.Cut(kind, "/")
	if len(vendor) > 253 || !vendorName.MatchString(vendor) || len(class) > 63 || !vendorName.MatchString(class) {
		return fmt.Errorf("kind %q: is not vendor/class", kind)
	}
	return nil
}

// parse reads one file. JSON is YAML as well: one decoder, which knows of keys
// given twice and in the wrong case, reads both.
func parse(name string, text []byte) (*file, error) {
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	decoder.KnownFields(true)
	raw := new(specs.Spec)
	err := decoder.Decode(raw)
	if errors.Is(err, io.EOF) {
		err = errors.New("is empty")
	}
	if err == nil && !errors.Is(decoder.Decode(new(yaml.Node)), io.EOF) {
		err = errors.New("holds more than one document")
	}
	var f *file
	if err == nil {
		f, err = check(name, raw)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return f, nil
}

func check(name string, raw *specs.Spec) (*file, error) {
	f := &file{path: name, kind: raw.Kind, devices: map[string]part{}}
	if err := checkKind(raw.Kind); err != nil {
		return nil, err
	}
	var err error
	if f.common, err = newPart("containerEdits", &raw.ContainerEdits); err != nil {
		return nil, err
	}
	for i := range raw.Devices {
		d := &raw.Devices[i]
		where := "devices[" + strconv.Itoa(i) + "]"
		if !deviceName.MatchString(d.Name) {
			return nil, fmt.Errorf("%s.name %q: is not the name of a device", where, d.Name)
		}
		if _, twice := f.devices[d.Name]; twice {
			return nil, fmt.Errorf("%s.name %q: is given twice", where, d.Name)
		}
		if f.devices[d.Name], err = newPart(where+".containerEdits", &d.ContainerEdits); err != nil {
			return nil, err
		}
	}
	if len(f.devices) == 0 {
		return nil, errors.New("devices: there is none")
	}
	// Last, for it relies on what was checked above.
	if err := specs.ValidateVersion(raw); err != nil {
		return nil, fmt.Errorf("cdiVersion %q: %w (up to %s is known)", raw.Version, err, specs.CurrentVersion)
	}
	return f, nil
}

func newPart(where string, e *specs.ContainerEdits) (part, error) {
	p := part{where: where, env: e.Env, nodes: e.DeviceNodes, groups: e.AdditionalGIDs, refused: refused(where, e)}
	for i, v := range e.Env {
		if strings.IndexByte(v, '=') <= 0 || strings.Contains(v, "\x00") {
			return part{}, fmt.Errorf("%s.env[%d] %q: is not NAME=value", where, i, v)
		}
	}
	for i, n := range e.DeviceNodes {
		if err := checkNode(n); err != nil {
			return part{}, fmt.Errorf("%s.deviceNodes[%d].%w", where, i, err)
		}
	}
	for i, m := range e.Mounts {
		mount, refused, err := newMount(m)
		if err != nil {
			return part{}, fmt.Errorf("%s.mounts[%d].%w", where, i, err)
		}
		if refused != nil && p.refused == nil {
			p.refused = fmt.Errorf("%s.mounts[%d].%w", where, i, refused)
		}
		p.mounts = append(p.mounts, mount)
	}
	return p, nil
}

// refused says what a part asks for that is not done here. Leaving it out
// would give a device that half works.
func refused(where string, e *specs.ContainerEdits) error {
	switch {
	case len(e.Hooks) > 0:
		program := ""
		if h := e.Hooks[0]; h != nil {
			program = h.Path
		}
		return fmt.Errorf("%s.hooks[0] %q: hooks are not run: write the file without them "+
			"(nvidia-ctk cdi generate --disable-hooks=all) and give the image, or mounts, what they would have set up", where, program)
	case e.IntelRdt != nil:
		return fmt.Errorf("%s.intelRdt: classes of cache and memory bandwidth are not set: write the file without them", where)
	case len(e.NetDevices) > 0:
		name := ""
		if d := e.NetDevices[0]; d != nil {
			name = d.HostInterfaceName
		}
		return fmt.Errorf("%s.netDevices[0] %q: network interfaces are not moved: write the file without them "+
			"and let a CNI plugin do it", where, name)
	}
	return nil
}

func absolute(p string) bool { return path.IsAbs(p) && !strings.Contains(p, "\x00") }
