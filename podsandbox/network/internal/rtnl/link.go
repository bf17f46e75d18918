package rtnl

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"

	"golang.org/x/sys/unix"
)

// Numbers of linux/if_link.h that x/sys does not have.
const (
	brMcastSnooping   = 23 // IFLA_BR_MCAST_SNOOPING
	brPortMode        = 4  // IFLA_BRPORT_MODE, "hairpin"
	brPortMcastFlood  = 27 // IFLA_BRPORT_MCAST_FLOOD
	brPortBcastFlood  = 30 // IFLA_BRPORT_BCAST_FLOOD
	vethPeer          = 1  // VETH_INFO_PEER
	inet6AddrGenMode  = 8  // IFLA_INET6_ADDR_GEN_MODE
	addrGenModeManual = 1  // IN6_ADDR_GEN_MODE_NONE
)

// Link is a network device as the kernel lists it.
type Link struct {
	Index  int
	Name   string
	Alias  string
	Kind   string // "bridge", "veth", ...
	Master int    // index of its bridge, or 0
	MTU    int
	Up     bool
}

// Veth is a pair of devices: one end here, the other in another namespace.
type Veth struct {
	Name     string
	Master   int // index of the bridge
	MTU      int // 0: the kernel's default
	PeerName string
	PeerMAC  net.HardwareAddr
	PeerNS   int // descriptor of the namespace where the other end is born
}

// NewBridge adds a message that makes a bridge. Its hardware address is fixed,
// or it would change with each port that comes and goes.
func (b *Batch) NewBridge(name, alias string, mac net.HardwareAddr, mtu int) {
	b.Begin(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, ifinfo(unix.AF_UNSPEC, 0, 0, 0), "make bridge "+name)
	b.Text(unix.IFLA_IFNAME, name)
	b.Attr(unix.IFLA_ADDRESS, mac)
	if mtu != 0 {
		b.Uint32(unix.IFLA_MTU, uint32(mtu))
	}
	b.Nest(unix.IFLA_LINKINFO, nil, func() {
		b.Text(unix.IFLA_INFO_KIND, "bridge")
		b.Nest(unix.IFLA_INFO_DATA, nil, func() {
			// Without a querier, snooping would stop neighbour discovery.
			b.Attr(brMcastSnooping, []byte{0})
		})
	})
	b.Begin(unix.RTM_SETLINK, 0, ifinfo(unix.AF_UNSPEC, 0, 0, 0), "name bridge "+name)
	b.Text(unix.IFLA_IFNAME, name)
	b.Text(unix.IFLA_IFALIAS, alias)
}

// NewVeth adds a message that makes the pair, this end up and in the bridge.
// The other end must be born down: the kernel refuses one that is up first.
func (b *Batch) NewVeth(v Veth) {
	b.Begin(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL,
		ifinfo(unix.AF_UNSPEC, 0, unix.IFF_UP, unix.IFF_UP), "make veth "+v.Name)
	b.Text(unix.IFLA_IFNAME, v.Name)
	b.Uint32(unix.IFLA_MASTER, uint32(v.Master))
	if v.MTU != 0 {
		b.Uint32(unix.IFLA_MTU, uint32(v.MTU))
	}
	b.Nest(unix.IFLA_LINKINFO, nil, func() {
		b.Text(unix.IFLA_INFO_KIND, "veth")
		b.Nest(unix.IFLA_INFO_DATA, nil, func() {
			b.Nest(vethPeer, ifinfo(unix.AF_UNSPEC, 0, 0, 0), func() {
				b.Text(unix.IFLA_IFNAME, v.PeerName)
				b.Attr(unix.IFLA_ADDRESS, v.PeerMAC)
				b.Uint32(unix.IFLA_NET_NS_FD, uint32(v.PeerNS))
				if v.MTU != 0 {
					b.Uint32(unix.IFLA_MTU, uint32(v.MTU))
				}
			})
		})
	})
}

// BridgePort adds a message for a device in a bridge: traffic may return
// through the port it came from, and the device makes no addresses of its own.
// What other ports send to many does not come out of it, only what the bridge
// itself sends: each new pod would be greeted by all others.
func (b *Batch) BridgePort(name, alias string, ipv6 bool) {
	b.Begin(unix.RTM_NEWLINK, 0, ifinfo(unix.AF_UNSPEC, 0, 0, 0), "set bridge port "+name)
	b.Text(unix.IFLA_IFNAME, name)
	b.Text(unix.IFLA_IFALIAS, alias)
	b.Nest(unix.IFLA_LINKINFO, nil, func() {
		b.Text(unix.IFLA_INFO_SLAVE_KIND, "bridge")
		b.Nest(unix.IFLA_INFO_SLAVE_DATA, nil, func() {
			b.Attr(brPortMode, []byte{1})
			b.Attr(brPortMcastFlood, []byte{0})
			b.Attr(brPortBcastFlood, []byte{0})
		})
	})
	if ipv6 {
		b.manualAddresses()
	}
}

// ManualAddresses adds a message that keeps the kernel from giving the device
// IPv6 addresses by itself, which would cost duplicate detection.
func (b *Batch) ManualAddresses(index int) {
	b.Begin(unix.RTM_SETLINK, 0, ifinfo(unix.AF_UNSPEC, index, 0, 0), "set address mode")
	b.manualAddresses()
}

func (b *Batch) manualAddresses() {
	b.Nest(unix.IFLA_AF_SPEC, nil, func() {
		b.Nest(unix.AF_INET6, nil, func() { b.Attr(inet6AddrGenMode, []byte{addrGenModeManual}) })
	})
}

// LinkUp adds a message that switches a device on.
func (b *Batch) LinkUp(index int) {
	b.Begin(unix.RTM_SETLINK, 0, ifinfo(unix.AF_UNSPEC, index, unix.IFF_UP, unix.IFF_UP), "switch link on")
}

// Settle adds a message that makes the kernel act on a link's carrier now. It
// does so by a worker otherwise, up to a second later; a bridge port drops what
// comes before, and the first packet, a question for a neighbour, is repeated
// only after another second. Asking for the link settles it since kernel 6.8.
func (b *Batch) Settle(name string) {
	b.Begin(unix.RTM_GETLINK, 0, ifinfo(unix.AF_UNSPEC, 0, 0, 0), "settle link "+name)
	b.Text(unix.IFLA_IFNAME, name)
}

// SetMaster adds a message that puts a device into a bridge.
func (b *Batch) SetMaster(name string, master int) {
	b.Begin(unix.RTM_SETLINK, 0, ifinfo(unix.AF_UNSPEC, 0, 0, 0), "put "+name+" into the bridge")
	b.Text(unix.IFLA_IFNAME, name)
	b.Uint32(unix.IFLA_MASTER, uint32(master))
}

// DelLink adds a message that removes a device.
func (b *Batch) DelLink(name string) {
	b.Begin(unix.RTM_DELLINK, 0, ifinfo(unix.AF_UNSPEC, 0, 0, 0), "remove link "+name)
	b.Text(unix.IFLA_IFNAME, name)
}

// DelLinkIndex adds a message that removes the device of a number.
func (b *Batch) DelLinkIndex(index int) {
	b.Begin(unix.RTM_DELLINK, 0, ifinfo(unix.AF_UNSPEC, index, 0, 0), fmt.Sprint("remove link ", index))
}

// Links lists the devices of the socket's namespace; master, when not 0, asks
// the kernel for the ports of one bridge only.
func (s *Socket) Links(master int) ([]Link, error) {
	var b Batch
	b.Begin(unix.RTM_GETLINK, 0, ifinfo(unix.AF_UNSPEC, 0, 0, 0), "list links")
	if master != 0 {
		b.Uint32(unix.IFLA_MASTER, uint32(master))
	}
	var links []Link
	err := s.Dump(&b, func(payload []byte) error {
		if l := parseLink(payload); master == 0 || l.Master == master {
			links = append(links, l)
		}
		return nil
	})
	return links, err
}

func parseLink(payload []byte) Link {
	var l Link
	if len(payload) < unix.SizeofIfInfomsg {
		return l
	}
	l.Index = int(int32(binary.NativeEndian.Uint32(payload[4:])))
	l.Up = binary.NativeEndian.Uint32(payload[8:])&unix.IFF_UP != 0
	Attributes(payload[unix.SizeofIfInfomsg:], func(kind uint16, v []byte) {
		switch kind {
		case unix.IFLA_IFNAME:
			l.Name = text(v)
		case unix.IFLA_IFALIAS:
			l.Alias = text(v)
		case unix.IFLA_MASTER:
			l.Master = int(number(v))
		case unix.IFLA_MTU:
			l.MTU = int(number(v))
		case unix.IFLA_LINKINFO:
			Attributes(v, func(kind uint16, v []byte) {
				if kind == unix.IFLA_INFO_KIND {
					l.Kind = text(v)
				}
			})
		}
	})
	return l
}

func ifinfo(family byte, index int, flags, change uint32) []byte {
	h := make([]byte, unix.SizeofIfInfomsg)
	h[0] = family
	binary.NativeEndian.PutUint32(h[4:], uint32(index))
	binary.NativeEndian.PutUint32(h[8:], flags)
	binary.NativeEndian.PutUint32(h[12:], change)
	return h
}

func text(v []byte) string { return string(bytes.TrimRight(v, "\x00")) }

func number(v []byte) uint32 {
	if len(v) < 4 {
		return 0
	}
	return binary.NativeEndian.Uint32(v)
}
