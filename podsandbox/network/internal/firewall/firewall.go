// Package firewall keeps one nftables table for all pods of an instance.
//
// A Table has a fixed set of chains and, for host ports, maps: a pod that comes
// or goes changes elements, never rules, so its cost does not grow with the
// number of pods. Rules is the whole state; Install replaces what the kernel
// has by it in one transaction, whatever happened to the table meanwhile. The
// package touches no table but its own.
//
// Host ports work from everywhere, but for one gap: with br_netfilter and
// bridge-nf-call-ip6tables the kernel translates an answer back to ::1 before
// it drops packets for ::1 that came over a wire. Without that setting, and for
// 127.0.0.1 always, they work from the loopback address too.
//
//	                 ┌ prerouting/output ─▶ is it an address of this host?
//	packet for host ─┤                        └▶ ports: address . protocol . port ─▶ pod
//	                 └ postrouting ─▶ to a pod, from 127.0.0.1 or from a pod by a host port: masquerade
//	packet of a pod ── postrouting ─▶ leaves the pod subnets and the cluster: masquerade
package firewall

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"
)

// Port is one host port: what is sent to it goes to Pod.
type Port struct {
	Protocol uint8      // unix.IPPROTO_TCP, _UDP or _SCTP
	HostIP   netip.Addr // not valid or unspecified: every address of the host
	HostPort uint16
	Pod      netip.AddrPort
}

// Rules is everything that a table holds.
type Rules struct {
	Bridge string         // the bridge of the pods
	Pods   []netip.Prefix // the subnets of the pods

	// Cluster is where pods of other nodes are: no two of these overlap.
	Cluster []netip.Prefix
	Ports   []Port
}

// Table is the nftables table of an instance. It is safe for concurrent use.
type Table struct {
	name  string
	netns *os.File

	mu   sync.Mutex     // orders transactions
	open *nftables.Conn // nil: not yet, or its answers were out of step
	held map[Port]bool  // what the table holds
	uses map[opened]int // how many of these share a number
}

// New names a table in a network namespace. It does not look at the kernel.
func New(name string, netns *os.File) *Table {
	return &Table{name: name, netns: netns, held: map[Port]bool{}, uses: map[opened]int{}}
}

// Name is the name of the table, in the inet family.
func (t *Table) Name() string { return t.name }

// Install makes the table hold exactly what rules returns, which is asked once
// no other change is under way.
func (t *Table) Install(rules func() Rules) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.transaction("install", func(c *nftables.Conn) error {
		r := rules()
		t.held, t.uses = map[Port]bool{}, map[opened]int{}
		t.note(r.Ports)
		// Deleting what may not exist is an error, adding what may exist is not.
		c.DelTable(c.AddTable(t.table()))
		return t.build(c.AddTable(t.table()), c, r)
	})
}

// Add adds host ports. After an error only Install brings table and memory
// together again; the same holds for Remove.
func (t *Table) Add(ports []Port) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.note(ports)
	return t.transaction("add host ports", func(c *nftables.Conn) error {
		for m, elements := range t.elements(ports) {
			if err := c.SetAddElements(m, elements); err != nil {
				return err
			}
		}
		return c.SetAddElements(openedSet(t.table()), openedElements(ports))
	})
}

// Remove removes host ports. It fails when one of them is not there.
func (t *Table) Remove(ports []Port) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	closed := t.drop(ports)
	return t.transaction("remove host ports", func(c *nftables.Conn) error {
		for m, elements := range t.elements(ports) {
			if err := c.SetDeleteElements(m, elements); err != nil {
				return err
			}
		}
		if len(closed) == 0 {
			return nil
		}
		return c.SetDeleteElements(openedSet(t.table()), openedElements(closed))
	})
}

// Present tells whether the table exists: other programs flush the whole
// ruleset now and then.
func (t *Table) Present() (bool, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.present()
}

func (t *Table) present() (bool, error) {
	c, err := t.conn()
	if err != nil {
		return false, err
	}
	_, err = c.ListTableOfFamily(t.name, nftables.TableFamilyINet)
	if errors.Is(err, unix.ENOENT) {
		return false, t.reset()
	}
	if err != nil {
		return false, errors.Join(fmt.Errorf("nftables table %s: %w", t.name, err), t.reset())
	}
	return true, nil
}

// Close leaves the table as it is.
func (t *Table) Close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.reset()
}

// Delete removes the table and all that is in it.
func (t *Table) Delete() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.transaction("delete", func(c *nftables.Conn) error {
		c.DelTable(c.AddTable(t.table()))
		return nil
	})
}

func (t *Table) table() *nftables.Table {
	return &nftables.Table{Name: t.name, Family: nftables.TableFamilyINet}
}

// conn returns a connection that stays open: closing it makes the kernel wait
// until all that the last transaction removed is gone, some 10 ms.
func (t *Table) conn() (*nftables.Conn, error) {
	if t.open != nil {
		return t.open, nil
	}
	c, err := nftables.New(nftables.WithNetNSFd(int(t.netns.Fd())), nftables.AsLasting())
	if err != nil {
		return nil, fmt.Errorf("open nftables: %w", err)
	}
	t.open = c
	return c, nil
}

func (t *Table) reset() error {
	c := t.open
	t.open = nil
	if c == nil {
		return nil
	}
	return c.CloseLasting()
}

// transaction makes all changes of fill, or none.
func (t *Table) transaction(what string, fill func(*nftables.Conn) error) error {
	c, err := t.conn()
	if err != nil {
		return err
	}
	if err = fill(c); err == nil {
		err = c.Flush()
	}
	if err != nil {
		return errors.Join(fmt.Errorf("nftables table %s: %s: %w", t.name, what, err), t.reset())
	}
	return nil
}
