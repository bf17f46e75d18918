package network

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"time"
)

const (
	// youth protects a pod that was set up after the caller made its list.
	youth = time.Minute
	// afterlife is how long the kernel may take to end a dropped namespace.
	afterlife = 200 * time.Millisecond
)

// Collect takes down all pods that are not live and removes what no record
// stands for: ports of the bridge, entries of the firewall, attachments that
// plugins still hold. What could not be taken down before is tried again, live
// or not. A pod set up within the last minute by this process is
// left alone, for the caller's list may be older.
func (n *Network) Collect(live []string) error {
	keep := map[string]bool{}
	for _, id := range live {
		keep[id] = true
	}
	var failed error
	for _, e := range n.entries() {
		if n.collectable(e, keep[e.ID]) {
			failed = errors.Join(failed, n.Teardown(context.Background(), Pod{ID: e.ID}))
		}
	}
	return errors.Join(failed, n.builtin.collect(), n.external.collect())
}

func (n *Network) collectable(e *entry, live bool) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return e.Failures > 0 || !live && (e.loaded || time.Since(e.since) > youth)
}

// collect removes ports without a pod, frees the addresses that they held, and
// sets bridge and firewall right.
func (f *builtin) collect() error {
	if f.current() == nil {
		return nil // this form is not in use
	}
	orphans, err := f.orphans()
	if err != nil {
		return err
	}
	if len(orphans) > 0 {
		// Most are about to go with their namespace, which is cheaper.
		time.Sleep(afterlife)
		if orphans, err = f.orphans(); err != nil {
			return err
		}
	}
	for _, name := range orphans {
		f.n.log.Info("remove a pod's port that is left over", "port", name)
		err = errors.Join(err, f.bridge.Detach(name))
	}
	return errors.Join(err, f.unretire(), f.ensure())
}

// orphans are the ports without a record. The ports are listed first: one that
// is seen has had its record before.
func (f *builtin) orphans() ([]string, error) {
	ports, err := f.bridge.Ports()
	if err != nil {
		return nil, err
	}
	known := map[string]bool{}
	for _, addresses := range f.leases() {
		known[f.bridge.PortName(addresses)] = true
	}
	return slices.DeleteFunc(ports, func(name string) bool { return known[name] }), nil
}

// unretire frees retired addresses whose port is gone.
func (f *builtin) unretire() error {
	ports, err := f.bridge.Ports()
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.retired = slices.DeleteFunc(f.retired, func(addresses []netip.Prefix) bool {
		gone := !slices.Contains(ports, f.bridge.PortName(addresses))
		if gone {
			f.pool.Release(addresses)
		}
		return gone
	})
	return nil
}

// wanted tells whether pods of this form exist or may come.
func (f *builtin) wanted() bool {
	if via, err := f.n.form(); err == nil && via == form(f) {
		return true
	}
	return len(f.leases()) > 0
}

// check repairs what others have removed: the whole ruleset is flushed now and
// then by other firewalls, and a bridge can be deleted by hand.
func (f *builtin) check() error {
	if f.current() == nil || !f.wanted() {
		return nil
	}
	table, err := f.firewall.Present()
	if err != nil {
		return err
	}
	if table && f.bridge.Present() {
		return nil
	}
	f.n.log.Warn("bridge or firewall table was removed by others; make it again",
		"bridge", f.bridge.Name, "table", f.firewall.Name())
	return f.ensure()
}
