package podsandbox

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"cri-mini/internal/hostpath"
	"cri-mini/podsandbox/cdi"
	"cri-mini/runtime/spec"
)

// devicesBelow is a path without links, and what it is or holds.
type devicesBelow struct {
	real  string
	nodes []string
}

// findDevices looks at the devices asked for and replaces a folder by the
// nodes that lie in it.
func findDevices(ctx context.Context, asked []*criapi.Device) ([]spec.Device, error) {
	var list []spec.Device
	for i, d := range asked {
		field := fmt.Sprintf("config.devices[%d].host_path", i)
		bad := func(reason string) error {
			return &InvalidError{Field: field, Value: d.HostPath, Reason: reason}
		}
		if !filepath.IsAbs(d.HostPath) {
			return nil, bad("must be an absolute path")
		}
		found, err := hostpath.Ask(ctx, field, d.HostPath, func() (f devicesBelow, err error) {
			if f.real, err = filepath.EvalSymlinks(d.HostPath); err != nil {
				return f, err
			}
			f.nodes, err = deviceNodes(f.real)
			return f, err
		}, nil)
		if silent(err) {
			return nil, fmt.Errorf("%s: %w", field, err)
		}
		if err != nil {
			return nil, bad(reason(err))
		}
		if len(found.nodes) == 0 {
			return nil, bad("is no device and no folder with devices")
		}
		for _, node := range found.nodes {
			list = append(list, spec.Device{
				HostPath:      node,
				ContainerPath: d.ContainerPath + strings.TrimPrefix(node, found.real),
				Permissions:   d.Permissions,
			})
		}
	}
	return list, nil
}

// findCDI resolves the names of CDI devices.
func (p *Pods) findCDI(ctx context.Context, asked []*criapi.CDIDevice) (cdi.Edits, error) {
	if len(asked) == 0 {
		return cdi.Edits{}, nil
	}
	var names []string
	for _, d := range asked {
		names = append(names, d.GetName())
	}
	// A folder of the catalog may not answer, or the node of a device.
	where := strings.Join(p.opt.CDIFolders, ", ") + " for " + strings.Join(names, ", ")
	edits, err := hostpath.Ask(ctx, "config.CDI_devices:", where, func() (cdi.Edits, error) { return p.cdi.Find(names) }, nil)
	if silent(err) {
		return edits, fmt.Errorf("config.CDI_devices: %w", err)
	}
	if bad := (*cdi.Error)(nil); errors.As(err, &bad) {
		return edits, &InvalidError{Field: fmt.Sprintf("config.CDI_devices[%d].name", bad.Index), Value: bad.Name, Reason: bad.Reason}
	}
	return edits, err
}

// ownDevices are the entries of /dev that a container has its own of.
var ownDevices = map[string]bool{
	"/dev/pts": true, "/dev/shm": true, "/dev/mqueue": true, "/dev/fd": true, "/dev/console": true, "/dev/ptmx": true,
}

// hostDevices are all device nodes of the node.
func hostDevices() ([]spec.Device, error) {
	nodes, err := deviceNodes("/dev")
	if err != nil {
		return nil, fmt.Errorf("devices of the node: %w", err)
	}
	list := make([]spec.Device, 0, len(nodes))
	for _, node := range nodes {
		list = append(list, spec.Device{HostPath: node, ContainerPath: node, Permissions: "rwm"})
	}
	return list, nil
}

// deviceNodes are the character and block devices at or below path.
func deviceNodes(path string) ([]string, error) {
	var nodes []string
	err := filepath.WalkDir(path, func(name string, e fs.DirEntry, err error) error {
		switch {
		case os.IsNotExist(err) && name != path:
			return nil // devices come and go
		case err != nil:
			return err
		case ownDevices[name] && name != path:
			if e.IsDir() {
				return filepath.SkipDir
			}
		case e.Type()&fs.ModeDevice != 0:
			nodes = append(nodes, name)
		}
		return nil
	})
	return nodes, err
}
