package network

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"path/filepath"
	"slices"

	"cri-mini/internal/atomicfile"
	"cri-mini/podsandbox/network/internal/firewall"
	"cri-mini/podsandbox/network/internal/ipam"
)

// subnetChoice is the file that keeps the pods' subnets over restarts.
type subnetChoice struct {
	Given   bool // by the operator or the cluster, not chosen by us
	Subnets []netip.Prefix
}

func (f *builtin) subnetFile() string { return filepath.Join(f.n.opt.StateDir, "subnets.json") }

// errNoRange is the state of a node of a cluster that has no range yet. One of
// our choice would give its pods addresses to which no route leads.
var errNoRange = errors.New("no range for pods: cluster-cidr is set, and the kubelet has not told which part is this node's")

// learnSubnets finds out at start which subnets were given, in an earlier life
// by setPodCIDR or by the options.
func (f *builtin) learnSubnets() (err error) {
	if f.n.opt.PodCIDR != "" {
		if f.given, err = f.parse(f.n.opt.PodCIDR); err != nil {
			return err
		}
	}
	if kept, err := f.kept(); err == nil && kept.Given {
		f.given = kept.Subnets // the kubelet tells it only once
	}
	return nil
}

func (f *builtin) kept() (kept subnetChoice, err error) {
	err = atomicfile.ReadJSON(f.subnetFile(), &kept)
	if err == nil {
		_, err = ipam.NewPool(kept.Subnets)
	}
	return kept, err
}

// subnets are those from which new pods get addresses.
func (f *builtin) subnets() ([]netip.Prefix, error) {
	if len(f.given) > 0 {
		return f.given, nil
	}
	if len(f.n.opt.Cluster) > 0 {
		return nil, errNoRange
	}
	kept, err := f.kept()
	if err == nil && len(kept.Subnets) == f.families() {
		return kept.Subnets, nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		f.n.log.Warn("choose the pods' subnets again", "file", f.subnetFile(), "err", err)
	}
	routes, err := f.bridge.Routes()
	if err != nil {
		return nil, err
	}
	chosen, err := ipam.Choose(f.n.opt.Instance, f.ipv6, routes)
	if err != nil {
		return nil, err
	}
	return chosen, atomicfile.DurableJSON(f.subnetFile(), subnetChoice{Subnets: chosen})
}

// givenSubnets are the subnets that were not chosen by us.
func (f *builtin) givenSubnets() []netip.Prefix {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.given
}

func (f *builtin) families() int {
	if f.ipv6 {
		return 2
	}
	return 1
}

func (f *builtin) parse(cidr string) ([]netip.Prefix, error) {
	subnets, err := ipam.Parse(cidr)
	if err != nil {
		return nil, invalidCIDR(cidr, err.Error())
	}
	if i := slices.IndexFunc(subnets, func(s netip.Prefix) bool { return s.Addr().Is6() }); i >= 0 && !f.ipv6 {
		return nil, invalidCIDR(cidr, fmt.Sprintf("%s: IPv6 is switched off", subnets[i]))
	}
	return subnets, nil
}

func invalidCIDR(cidr, reason string) error {
	return &FieldError{Field: "pod_cidr", Value: cidr, Reason: reason, Always: true}
}

func (f *builtin) setPodCIDR(cidr string) error {
	subnets, err := f.parse(cidr)
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.pool != nil && slices.Equal(f.pool.Subnets(), subnets) {
		return nil
	}
	if err := atomicfile.DurableJSON(f.subnetFile(), subnetChoice{Given: true, Subnets: subnets}); err != nil {
		return fmt.Errorf("pod CIDR %q: %w", cidr, err)
	}
	f.given = subnets
	if f.pool == nil && !errors.Is(f.failed, errNoRange) {
		return nil // not in use; ensure will read it
	}
	f.pool = nil
	return f.ensureLocked()
}

func (f *builtin) current() *ipam.Pool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.pool
}

// ready makes the form ready if it is not.
func (f *builtin) ready() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.failed == nil {
		return nil
	}
	return f.ensureLocked()
}

// ensure makes bridge, addresses and table what they should be.
func (f *builtin) ensure() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.ensureLocked()
}

func (f *builtin) ensureLocked() (err error) {
	defer func() { f.failed = err }()
	if f.pool == nil {
		if f.pool, err = f.newPool(); err != nil {
			return err
		}
	}
	made, err := f.bridge.Ensure(f.allSubnets(f.pool))
	if err != nil {
		return err
	}
	if made {
		if err := f.bridge.Adopt(); err != nil {
			return err
		}
	}
	return f.firewall.Install(func() firewall.Rules { return f.rulesOf(f.pool) })
}

// newPool makes the pool and marks what living pods have. Addresses recorded
// for two pods cannot be: a record is written before its address is used, by
// one process at a time.
func (f *builtin) newPool() (*ipam.Pool, error) {
	subnets, err := f.subnets()
	if err != nil {
		return nil, err
	}
	pool, err := ipam.NewPool(subnets)
	if err != nil {
		return nil, err
	}
	for _, addresses := range f.leases() {
		if err := pool.Claim(addresses); err != nil {
			f.n.log.Warn("two pods on record with one address", "err", err)
		}
	}
	for _, addresses := range f.retired {
		_ = pool.Claim(addresses) // a retired one may be on record too
	}
	return pool, nil
}

// leases are the addresses of all pods of this form.
func (f *builtin) leases() [][]netip.Prefix {
	f.n.mu.Lock()
	defer f.n.mu.Unlock()
	var all [][]netip.Prefix
	for _, e := range f.n.pods {
		if e.Form == formBuiltin && len(e.Addresses) > 0 {
			all = append(all, e.Addresses)
		}
	}
	return all
}

// allSubnets are those of new pods and those of pods that came before a change.
func (f *builtin) allSubnets(pool *ipam.Pool) []netip.Prefix {
	all := slices.Clone(pool.Subnets())
	for _, addresses := range f.leases() {
		for _, a := range addresses {
			if s := a.Masked(); !slices.ContainsFunc(all, s.Overlaps) {
				all = append(all, s)
			}
		}
	}
	return all
}

// rulesOf is all that the firewall should hold.
func (f *builtin) rulesOf(pool *ipam.Pool) firewall.Rules {
	r := firewall.Rules{Bridge: f.bridge.Name, Pods: f.allSubnets(pool), Cluster: f.n.opt.Cluster}
	f.n.mu.Lock()
	defer f.n.mu.Unlock()
	for _, e := range f.n.pods {
		if e.Form == formBuiltin && !e.leaving {
			r.Ports = append(r.Ports, translations(e.Ports, e.Addresses)...)
		}
	}
	return r
}

// destroy removes bridge and table.
func (f *builtin) destroy() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.pool, f.failed = nil, errors.New("pod network was removed")
	return errors.Join(f.firewall.Delete(), f.bridge.Remove())
}
