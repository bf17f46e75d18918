package network

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"cri-mini/internal/audit"
	"cri-mini/podsandbox/network/internal/bridge"
	"cri-mini/podsandbox/network/internal/firewall"
	"cri-mini/podsandbox/network/internal/netns"
)

// The kinds of things that are ours.
const (
	kindLease = "lease"
	kindPort  = "network device"
	kindRule  = "firewall entry"
)

// Connections lists what was made for pods: records with their addresses and host
// ports, devices on the bridge, entries of the firewall.
func (n *Network) Connections() ([]audit.Thing, error) {
	list, err := n.builtin.things()
	if err != nil {
		return nil, err
	}
	files, _, err := leaseThings(n.records.dir) // before the entries: each has been one of them
	if err != nil {
		return nil, err
	}
	for _, t := range files {
		if !n.has(t.Owner) {
			t.Remove = func(context.Context) error { return n.records.remove(t.Owner) }
			list = append(list, t)
		}
	}
	for _, e := range n.entries() {
		list = append(list, audit.Thing{
			Kind: kindLease, Name: n.records.path(e.ID), Owner: e.ID, Since: e.since,
			Remove: func(ctx context.Context) error { return n.Teardown(ctx, Pod{ID: e.ID}) },
		})
	}
	return list, nil
}

func (f *builtin) things() ([]audit.Thing, error) {
	ports, err := f.bridge.List()
	if err != nil {
		return nil, err
	}
	list := portThings(ports)
	for i, p := range ports {
		// By its number: its name may be that of a new pod's by then.
		list[i].Remove = func(context.Context) error {
			return errors.Join(f.bridge.DetachIndex(p.Index), f.unretire())
		}
	}
	if f.current() == nil {
		return list, nil
	}
	entries, err := f.firewall.Ports()
	if err != nil {
		return nil, err
	}
	owners := f.owners()
	for _, p := range entries {
		t := audit.Thing{Kind: kindRule, Name: fmt.Sprintf("table inet %s: %s", f.firewall.Name(), p), Owner: owners[p.String()]}
		t.Remove = func(context.Context) error { return f.ensure() } // it writes the whole table anew
		list = append(list, t)
	}
	return list, nil
}

// owners are the pods of the host ports.
func (f *builtin) owners() map[string]string {
	f.n.mu.Lock()
	defer f.n.mu.Unlock()
	found := map[string]string{}
	for _, e := range f.n.pods {
		if e.Form == formBuiltin {
			for _, p := range translations(e.Ports, e.Addresses) {
				found[p.String()] = e.ID
			}
		}
	}
	return found
}

func portThings(ports []bridge.Port) []audit.Thing {
	var list []audit.Thing
	for _, p := range ports {
		list = append(list, audit.Thing{Kind: kindPort, Name: p.Name, Owner: p.Pod})
	}
	return list
}

// LostConnections tells which connected pods have lost their device.
func (n *Network) LostConnections() ([]audit.Finding, error) {
	var wanted []audit.Thing
	n.mu.Lock()
	for _, e := range n.pods {
		if e.Form == formBuiltin && e.ready && !e.leaving && len(e.Addresses) > 0 {
			wanted = append(wanted, audit.Thing{Kind: kindPort, Name: n.builtin.bridge.PortName(e.Addresses), Owner: e.ID})
		}
	}
	n.mu.Unlock()
	ports, err := n.builtin.bridge.Ports()
	if err != nil {
		return nil, err
	}
	var missing []audit.Finding
	for _, t := range wanted {
		if !slices.Contains(ports, t.Name) && n.connected(t.Owner) {
			missing = append(missing, t.Finding(audit.Missing, "the pod has no network any more", "stop the pod; the kubelet makes it anew"))
		}
	}
	return missing, nil
}

func (n *Network) has(pod string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.pods[pod] != nil
}

// connected says that a pod has all it was given.
func (n *Network) connected(pod string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	e := n.pods[pod]
	return e != nil && e.ready && !e.leaving
}

// Things is the part of Network.Connections that is found while no daemon runs. It
// changes nothing.
func Things(opt Options) ([]audit.Thing, error) {
	if err := opt.complete(); err != nil {
		return nil, err
	}
	host, err := netns.Current()
	if err != nil {
		return nil, err
	}
	defer host.Close()
	b, err := bridge.Open(opt.Bridge, opt.Instance, host, false)
	if err != nil {
		return nil, err
	}
	defer b.Close()
	devices, err := b.List()
	if err != nil {
		return nil, err
	}
	list := portThings(devices)
	leases, owners, err := leaseThings(filepath.Join(opt.StateDir, "pods"))
	if err != nil {
		return nil, err
	}
	table := firewall.New(tableName(opt.Instance), host)
	defer table.Close()
	ports, err := table.Ports()
	for _, p := range ports {
		list = append(list, audit.Thing{Kind: kindRule, Name: fmt.Sprintf("table inet %s: %s", table.Name(), p), Owner: owners[p.String()]})
	}
	return append(list, leases...), err
}

// leaseThings reads the records of pods, and whose the host ports are.
func leaseThings(dir string) (list []audit.Thing, owners map[string]string, err error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	owners = map[string]string{}
	for _, e := range entries {
		id, ok := strings.CutSuffix(e.Name(), recordSuffix)
		if !ok {
			continue
		}
		t := audit.Thing{Kind: kindLease, Name: filepath.Join(dir, e.Name()), Owner: id}
		if info, err := e.Info(); err == nil {
			t.Since = info.ModTime()
		}
		if !audit.IsID(id) {
			t.Owner, t.Foreign = "", "its name is no id of a pod"
		}
		list = append(list, t)
		if t.Foreign != "" {
			continue
		}
		var r record
		if data, err := os.ReadFile(t.Name); err == nil && json.Unmarshal(data, &r) == nil {
			for _, p := range translations(r.Ports, r.Addresses) {
				owners[p.String()] = id
			}
		}
	}
	return list, owners, nil
}
