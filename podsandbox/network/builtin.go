package network

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"cri-mini/internal/crashpoint"
	"cri-mini/internal/undo"
	"cri-mini/podsandbox/network/internal/bridge"
	"cri-mini/podsandbox/network/internal/firewall"
	"cri-mini/podsandbox/network/internal/ipam"
	"cri-mini/podsandbox/network/internal/netns"
	"cri-mini/podsandbox/network/internal/rtnl"
)

// builtin is the form that needs no plugins.
type builtin struct {
	n        *Network
	ipv6     bool
	bridge   *bridge.Bridge
	firewall *firewall.Table
	nf       *rtnl.Socket // talks to conntrack
	stale    stale

	mu      sync.Mutex // one repair or change of subnets at a time
	failed  error      // why it is not ready
	logged  string     // of these reasons, so that each is told once
	given   []netip.Prefix
	pool    *ipam.Pool // nil before the first ensure
	retired [][]netip.Prefix
}

// tablePrefix begins the names of the nftables tables of all instances.
const tablePrefix = "cri-mini-"

func newBuiltin(n *Network) (*builtin, error) {
	ipv6, err := bridge.HasIPv6(n.host)
	if err != nil {
		return nil, err
	}
	f := &builtin{n: n, stale: newStale(), ipv6: ipv6 && n.opt.IPv6, failed: errors.New("pod network was not started")}
	if err := f.learnSubnets(); err != nil {
		return nil, err
	}
	if f.bridge, err = bridge.Open(n.opt.Bridge, n.opt.Instance, n.host, f.ipv6); err != nil {
		return nil, err
	}
	err = netns.Do(n.host, func() (err error) {
		f.nf, err = rtnl.Open(unix.NETLINK_NETFILTER)
		return err
	})
	if err != nil {
		return nil, errors.Join(err, f.bridge.Close())
	}
	f.firewall = firewall.New(tableName(n.opt.Instance), n.host)
	return f, nil
}

func tableName(instance string) string {
	return tablePrefix + strings.TrimPrefix(bridge.DefaultName(instance), "cm-")
}

func (f *builtin) name() string { return formBuiltin }

func (f *builtin) close() error {
	return errors.Join(f.bridge.Close(), f.nf.Close(), f.firewall.Close())
}

// connect gives the pod addresses, a veth pair and its host ports.
func (f *builtin) connect(ctx context.Context, e *entry, pod Pod, ns *os.File) error {
	if err := f.ready(); err != nil {
		return err
	}
	var back undo.Stack
	defer back.Run()
	if err := f.attach(e, ns, &back); err != nil {
		return err
	}
	if err := f.openPorts(e, &back); err != nil {
		return err
	}
	back.Keep()
	return nil
}

// attach tries address after address: one whose veth pair still exists is in
// use by a pod that is on its way out, or whose namespace something holds.
func (f *builtin) attach(e *entry, ns *os.File, back *undo.Stack) error {
	for repaired := false; ; {
		addresses, err := f.current().Take()
		if err != nil {
			return err
		}
		f.n.mu.Lock()
		e.Addresses = addresses
		e.Interfaces = []Interface{{
			Name: bridge.PodInterface,
			MAC:  bridge.MAC(addresses).String(),
			Host: f.bridge.PortName(addresses),
		}}
		rec := e.record
		f.n.mu.Unlock()
		if err := f.n.records.save(rec); err != nil {
			f.giveBack(e)
			return err
		}
		crashpoint.Here("network.recorded")
		err = f.bridge.Attach(e.ID, ns, addresses)
		crashpoint.Here("network.attached")
		switch {
		case err == nil:
			back.Add(func() error { f.giveBack(e); return nil })
			back.Add(func() error { return f.n.records.remove(e.ID) })
			back.Add(func() error { return f.bridge.Detach(f.bridge.PortName(addresses)) })
			return nil
		case errors.Is(err, bridge.ErrInUse):
			f.retire(addresses)
			continue
		case errors.Is(err, bridge.ErrLost) && !repaired:
			repaired = true
			f.giveBack(e)
			if err = f.ensure(); err == nil {
				continue
			}
		default:
			f.giveBack(e)
		}
		return errors.Join(err, f.n.records.remove(e.ID))
	}
}

// giveBack frees the addresses of a pod; those that UDP conversations may still
// lead to rest until these are forgotten.
func (f *builtin) giveBack(e *entry) {
	f.n.mu.Lock()
	addresses := e.Addresses
	e.Addresses = nil // or a new pool would take them for a lease
	f.n.mu.Unlock()
	if f.stale.touch(translations(e.Ports, addresses), addresses) {
		return
	}
	if pool := f.current(); pool != nil {
		pool.Release(addresses)
	}
}

// retire keeps addresses from being tried again until Collect has looked.
func (f *builtin) retire(addresses []netip.Prefix) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.retired = append(f.retired, addresses)
}

func (f *builtin) openPorts(e *entry, back *undo.Stack) error {
	ports := translations(e.Ports, e.Addresses)
	if len(ports) == 0 {
		return nil
	}
	other, port, err := f.firewall.Taken(tablePrefix, ports)
	if err != nil {
		return err
	}
	if other != "" {
		i := slices.IndexFunc(e.Ports, func(p PortMapping) bool {
			return p.number() == port.Protocol && p.HostPort == port.HostPort && p.HostIP == port.HostIP
		})
		return &takenError{e.Ports[i], "a pod of another instance, whose nftables table is " + other}
	}
	back.Add(func() error { return f.closePorts(e) })
	if err := f.firewall.Add(ports); err != nil {
		// Somebody flushed the ruleset, or a crash left an entry: start afresh.
		if again := f.ensure(); again != nil {
			return errors.Join(err, again)
		}
	}
	crashpoint.Here("network.ports-open")
	f.stale.touch(ports, nil)
	return nil
}

func (f *builtin) closePorts(e *entry) error {
	ports := translations(e.Ports, e.Addresses)
	if len(ports) == 0 {
		return nil
	}
	f.n.mu.Lock()
	e.leaving = true // so that rulesOf leaves it out
	f.n.mu.Unlock()
	if err := f.firewall.Remove(ports); err != nil {
		if again := f.ensure(); again != nil {
			return errors.Join(err, again)
		}
	}
	return nil
}

// disconnect needs no namespace: the veth pair ends with it.
func (f *builtin) disconnect(ctx context.Context, e *entry, ns *os.File) error {
	if err := f.closePorts(e); err != nil {
		return err
	}
	crashpoint.Here("network.ports-closed")
	if err := f.n.records.remove(e.ID); err != nil {
		return err
	}
	crashpoint.Here("network.record-gone")
	f.giveBack(e)
	return nil
}
