package bridge

import (
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"cri-mini/internal/crashpoint"
	"cri-mini/podsandbox/network/internal/ipam"
	"cri-mini/podsandbox/network/internal/netns"
	"cri-mini/podsandbox/network/internal/rtnl"
)

// PodInterface is the name of a pod's interface.
const PodInterface = "eth0"

// ErrInUse says that the port of these addresses exists: a pod that was taken
// down is not gone yet, or something keeps its namespace.
var ErrInUse = errors.New("address is still in use")

// ErrLost says that the bridge is not there any more.
var ErrLost = errors.New("the bridge is gone")

// Attach connects a pod: eth0 with these addresses, a default route for each
// family, and the loopback device. There is no route to the pod's neighbours but
// by the host: where a service proxy has translated an address, the answer must
// come back to the host, and would go straight from one port to the other.
func (b *Bridge) Attach(pod string, ns *os.File, addresses []netip.Prefix) error {
	inside, err := b.enter(ns)
	if err != nil {
		return err
	}
	defer inside.Close()
	if err := b.pair(pod, ns, addresses); err != nil {
		return err
	}
	crashpoint.Here("network.pair-made")
	err = b.configure(inside, addresses)
	if err == nil {
		err = b.settle(b.PortName(addresses))
	}
	if err != nil {
		return errors.Join(err, b.delete(b.PortName(addresses)))
	}
	return nil
}

// settle makes the port pass packets from now on. The bridge itself is without
// carrier while it has no ports.
func (b *Bridge) settle(name string) error {
	var batch rtnl.Batch
	batch.Settle(name)
	batch.Settle(b.Name)
	return b.route.Do(&batch)
}

// enter opens a netlink socket in the pod's namespace, and makes interfaces
// that are born there ignore router advertisements: another pod could send
// false ones (CVE-2020-10749). The same goes for redirects, of which the host
// sends true ones, to neighbours on the bridge; those of IPv6 come from a
// link-local address, which is not that of the pod's gateway, and are ignored.
func (b *Bridge) enter(ns *os.File) (inside *rtnl.Socket, err error) {
	err = netns.Do(ns, func() error {
		ignored := []string{"net/ipv4/conf/all/accept_redirects", "net/ipv4/conf/default/accept_redirects"}
		if b.ipv6 {
			ignored = append(ignored, "net/ipv6/conf/default/accept_ra")
		}
		for _, name := range ignored {
			if err := os.WriteFile(sysctlRoot+name, []byte("0"), 0o644); err != nil {
				return fmt.Errorf("set sysctl: %w", err)
			}
		}
		inside, err = rtnl.Open(unix.NETLINK_ROUTE)
		return err
	})
	return inside, err
}

// pair makes the veth pair.
func (b *Bridge) pair(pod string, ns *os.File, addresses []netip.Prefix) error {
	b.mu.Lock()
	index, mtu := b.index, b.mtu
	b.mu.Unlock()
	raw, err := ns.SyscallConn()
	if err != nil {
		return err
	}
	name := b.PortName(addresses)
	var failed error
	err = raw.Control(func(fd uintptr) {
		var batch rtnl.Batch
		batch.NewVeth(rtnl.Veth{
			Name: name, Master: index, MTU: mtu,
			PeerName: PodInterface, PeerMAC: MAC(addresses), PeerNS: int(fd),
		})
		batch.BridgePort(name, pod, b.ipv6)
		failed = b.route.Do(&batch)
	})
	if err != nil {
		return err
	}
	return b.explain(name, index, failed)
}

// explain finds out what an error of pair means, and leaves no half pair.
func (b *Bridge) explain(name string, index int, err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, unix.EEXIST) {
		if _, missing := b.route.Index(name); missing != nil {
			return fmt.Errorf("the pod's namespace has an interface %s already: %w", PodInterface, err)
		}
		return fmt.Errorf("%s: %w", name, ErrInUse)
	}
	err = errors.Join(err, b.delete(name))
	if now, missing := b.route.Index(b.Name); missing != nil || now != index {
		return fmt.Errorf("%s: %w: %w", b.Name, ErrLost, err)
	}
	return err
}

func (b *Bridge) configure(inside *rtnl.Socket, addresses []netip.Prefix) error {
	index, err := inside.Index(PodInterface)
	if err != nil {
		return err
	}
	var batch rtnl.Batch
	batch.LinkUp(1)
	if b.ipv6 {
		batch.ManualAddresses(index)
	}
	batch.LinkUp(index)
	if b.ipv6 {
		batch.AddAddr(index, linkLocal(MAC(addresses)))
	}
	for _, a := range addresses {
		batch.AddLoneAddr(index, a)
	}
	for _, a := range addresses {
		batch.AddDefaultRoute(index, ipam.Gateway(a.Masked()).Addr())
	}
	batch.Settle(PodInterface)
	return inside.Do(&batch)
}

// PortName is the name of the port of a pod with these addresses.
func (b *Bridge) PortName(addresses []netip.Prefix) string {
	return b.tag + hex.EncodeToString(tail(addresses))
}

// Ports lists the pods' ports on the bridge, by name.
func (b *Bridge) Ports() ([]string, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	links, err := b.ports()
	var names []string
	for _, l := range links {
		names = append(names, l.Name)
	}
	return names, err
}

func (b *Bridge) ports() ([]rtnl.Link, error) {
	links, err := b.route.Links(0) // not only of the bridge: it may have been made anew
	var ports []rtnl.Link
	for _, l := range links {
		if l.Kind == "veth" && strings.HasPrefix(l.Name, b.tag) {
			ports = append(ports, l)
		}
	}
	return ports, err
}

// Detach removes a port although the pod's namespace still exists. It is slow;
// see the package comment.
func (b *Bridge) Detach(name string) error { return b.delete(name) }

// Port is a pod's device on the bridge.
type Port struct {
	Name  string
	Index int
	Pod   string // its id
}

// List is Ports with more of each.
func (b *Bridge) List() ([]Port, error) {
	links, err := b.ports()
	var list []Port
	for _, l := range links {
		list = append(list, Port{l.Name, l.Index, l.Alias})
	}
	return list, err
}

// DetachIndex is Detach for the device of this number, whatever has its name by
// now.
func (b *Bridge) DetachIndex(index int) error {
	var batch rtnl.Batch
	batch.DelLinkIndex(index)
	if err := b.route.Do(&batch); err != nil && !errors.Is(err, unix.ENODEV) {
		return err
	}
	return nil
}

// Adopt puts all ports back into the bridge after it was made anew.
func (b *Bridge) Adopt() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	ports, err := b.ports()
	for _, p := range ports {
		var batch rtnl.Batch
		batch.SetMaster(p.Name, b.index)
		batch.BridgePort(p.Name, p.Alias, b.ipv6)
		err = errors.Join(err, b.route.Do(&batch))
	}
	return err
}

func tail(addresses []netip.Prefix) []byte {
	ip := addresses[0].Addr().AsSlice()
	return ip[len(ip)-4:]
}

// MAC is the hardware address of a pod with these addresses.
func MAC(addresses []netip.Prefix) net.HardwareAddr {
	return append(net.HardwareAddr{0x06, 'p'}, tail(addresses)...)
}

// linkLocal is the address that the kernel would make itself.
func linkLocal(m net.HardwareAddr) netip.Prefix {
	ip := [16]byte{0: 0xfe, 1: 0x80, 8: m[0] ^ 2, 9: m[1], 10: m[2], 11: 0xff, 12: 0xfe, 13: m[3], 14: m[4], 15: m[5]}
	return netip.PrefixFrom(netip.AddrFrom16(ip), 64)
}
