// Package bridge is the built-in pod network: a bridge on the host, and for
// each pod a veth pair whose one end is a port of the bridge and whose other
// end is born in the pod's namespace as eth0.
//
// A Bridge belongs to one instance and one host namespace. A port's name is
// made from the pod's address, so the kernel itself refuses to give an address
// twice, and a hardware address follows from the address too, so a reused
// address does not find wrong neighbours. A pair goes away with the pod's
// namespace: removing it by request would hold the kernel's lock for all pods
// for 12 to 50 ms. The package knows nothing of host ports and of who chooses
// addresses.
package bridge

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"cri-mini/podsandbox/network/internal/ipam"
	"cri-mini/podsandbox/network/internal/netns"
	"cri-mini/podsandbox/network/internal/rtnl"
)

const standardMTU = 1500

// Bridge is the bridge of an instance. It is safe for concurrent use.
type Bridge struct {
	Name string

	instance string
	tag      string // begins the names of its ports
	host     *os.File
	route    *rtnl.Socket
	ipv6     bool

	mu      sync.Mutex
	index   int // 0 until Ensure has seen the bridge
	mtu     int
	subnets []netip.Prefix
}

// Open prepares the bridge of an instance, without touching the host yet. An
// empty name is replaced by one made from instance.
func Open(name, instance string, host *os.File, ipv6 bool) (*Bridge, error) {
	if name == "" {
		name = DefaultName(instance)
	}
	if len(name) >= unix.IFNAMSIZ || strings.ContainsAny(name, "/ :\t\n") || name == "." || name == ".." {
		return nil, fmt.Errorf("bridge name %q is not a valid interface name", name)
	}
	b := &Bridge{Name: name, instance: instance, tag: "cm" + digest(instance)[:5], host: host, ipv6: ipv6}
	err := netns.Do(host, func() (err error) {
		b.route, err = rtnl.Open(unix.NETLINK_ROUTE)
		return err
	})
	return b, err
}

// DefaultName is the name of an instance's bridge unless another is given.
func DefaultName(instance string) string { return "cm-" + digest(instance)[:8] }

func digest(instance string) string {
	return fmt.Sprintf("%x", sha256.Sum256([]byte(instance)))
}

// Close leaves the bridge as it is.
func (b *Bridge) Close() error { return b.route.Close() }

// Ensure makes the bridge exist, be up and hold the gateway address of each
// subnet and of no other, and the host forward packets. It tells whether it
// made the bridge.
func (b *Bridge) Ensure(subnets []netip.Prefix) (made bool, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.mtu, err = b.uplinkMTU(); err != nil {
		return false, err
	}
	index, err := b.route.Index(b.Name)
	if errors.Is(err, unix.ENODEV) {
		made = true
		index, err = b.create()
	}
	if err != nil {
		return made, err
	}
	if err := b.sysctls(); err != nil {
		return made, err
	}
	var batch rtnl.Batch
	wanted := map[netip.Prefix]bool{}
	if b.ipv6 {
		// The kernel's own link-local address would be unusable for two seconds,
		// and the host could not ask for the neighbours of packets it forwards.
		batch.ManualAddresses(index)
		wanted[linkLocal(b.mac())] = true
		batch.AddAddr(index, linkLocal(b.mac()))
	}
	batch.LinkUp(index)
	for _, s := range subnets {
		wanted[ipam.Gateway(s)] = true
		batch.AddAddr(index, ipam.Gateway(s))
	}
	if b.ipv6 {
		batch.AddLoopback6(index)
	}
	addrs, err := b.route.Addrs()
	if err != nil {
		return made, err
	}
	for _, a := range addrs {
		if a.Index == index && !wanted[a.Prefix] {
			batch.DelAddr(index, a.Prefix)
		}
	}
	if err := b.route.Do(&batch); err != nil {
		return made, fmt.Errorf("bridge %s: %w", b.Name, err)
	}
	b.index, b.subnets = index, subnets
	return made, nil
}

func (b *Bridge) create() (index int, err error) {
	var batch rtnl.Batch
	batch.NewBridge(b.Name, b.alias(), b.mac(), b.mtu)
	if err := b.route.Do(&batch); err != nil {
		return 0, err
	}
	return b.route.Index(b.Name)
}

func (b *Bridge) alias() string { return "cri-mini " + b.instance }

func (b *Bridge) mac() net.HardwareAddr {
	hash := sha256.Sum256([]byte(b.instance + b.Name))
	return net.HardwareAddr{0x06, 'b', hash[0], hash[1], hash[2], hash[3]}
}

// uplinkMTU is the packet size of the way out of the host, when it is not the
// usual one: larger packets of pods would be dropped there.
func (b *Bridge) uplinkMTU() (int, error) {
	routes, err := b.route.Routes()
	if err != nil {
		return 0, err
	}
	links, err := b.route.Links(0)
	if err != nil {
		return 0, err
	}
	for _, r := range routes {
		for _, l := range links {
			if r.Dst.Bits() == 0 && l.Index == r.Index && l.MTU != standardMTU && l.MTU >= 1280 {
				return l.MTU, nil
			}
		}
	}
	return 0, nil
}

// Routes lists what the host reaches otherwise than by this bridge.
func (b *Bridge) Routes() ([]netip.Prefix, error) {
	own, err := b.route.Index(b.Name)
	if err != nil && !errors.Is(err, unix.ENODEV) {
		return nil, err
	}
	routes, err := b.route.Routes()
	if err != nil {
		return nil, err
	}
	var others []netip.Prefix
	for _, r := range routes {
		if own == 0 || r.Index != own {
			others = append(others, r.Dst)
		}
	}
	return others, nil
}

// HostAddrs lists the host's own addresses.
func (b *Bridge) HostAddrs() ([]rtnl.Addr, error) { return b.route.Addrs() }

// Remove removes the bridge and the ports it still has, if this instance made
// them.
func (b *Bridge) Remove() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	ports, err := b.ports()
	if err != nil {
		return err
	}
	for _, p := range ports {
		err = errors.Join(err, b.delete(p.Name))
	}
	links, failed := b.route.Links(0)
	if failed != nil {
		return errors.Join(err, failed)
	}
	for _, l := range links {
		if l.Name == b.Name && l.Alias == b.alias() {
			err = errors.Join(err, b.delete(l.Name))
		}
	}
	b.index = 0
	return err
}

func (b *Bridge) delete(name string) error {
	var batch rtnl.Batch
	batch.DelLink(name)
	if err := b.route.Do(&batch); err != nil && !errors.Is(err, unix.ENODEV) {
		return err
	}
	return nil
}

// Exists tells whether a bridge of this name is there, whoever made it.
func (b *Bridge) Exists() bool {
	_, err := b.route.Index(b.Name)
	return err == nil
}

// Present tells whether the bridge that Ensure saw is still there.
func (b *Bridge) Present() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	index, err := b.route.Index(b.Name)
	return err == nil && index == b.index
}
