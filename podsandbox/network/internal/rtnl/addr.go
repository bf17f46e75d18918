package rtnl

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Addr is an address on a device.
type Addr struct {
	Index  int
	Prefix netip.Prefix
}

// Route is an entry of the main routing table.
type Route struct {
	Index int // of the device, or 0
	Dst   netip.Prefix
}

// AddAddr adds a message that puts an address on a device at once, without
// duplicate detection; one that is there already stays.
func (b *Batch) AddAddr(index int, p netip.Prefix) { b.addAddr(index, p, 0) }

// AddLoneAddr is AddAddr without a route to the others of the subnet.
func (b *Batch) AddLoneAddr(index int, p netip.Prefix) { b.addAddr(index, p, unix.IFA_F_NOPREFIXROUTE) }

func (b *Batch) addAddr(index int, p netip.Prefix, flags uint32) {
	b.Begin(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, ifaddr(index, p), "add address "+p.String())
	ip := p.Addr().AsSlice()
	b.Attr(unix.IFA_LOCAL, ip)
	b.Attr(unix.IFA_ADDRESS, ip)
	if p.Addr().Is6() {
		flags |= unix.IFA_F_NODAD | unix.IFA_F_PERMANENT
	}
	if flags != 0 {
		b.Uint32(unix.IFA_FLAGS, flags)
	}
}

// DelAddr adds a message that takes an address off a device.
func (b *Batch) DelAddr(index int, p netip.Prefix) {
	b.Begin(unix.RTM_DELADDR, 0, ifaddr(index, p), "remove address "+p.String())
	b.Attr(unix.IFA_LOCAL, p.Addr().AsSlice())
	b.Attr(unix.IFA_ADDRESS, p.Addr().AsSlice())
}

// AddDefaultRoute adds a message that sends all other traffic of the gateway's
// address family to it, also where no other route leads to the gateway.
func (b *Batch) AddDefaultRoute(index int, gateway netip.Addr) {
	header := rtmsg(family(gateway), 0, unix.RT_TABLE_MAIN, unix.RTN_UNICAST)
	binary.NativeEndian.PutUint32(header[8:], unix.RTNH_F_ONLINK)
	b.Begin(unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_EXCL, header, "add route via "+gateway.String())
	b.Attr(unix.RTA_GATEWAY, gateway.AsSlice())
	b.Uint32(unix.RTA_OIF, uint32(index))
}

// AddLoopback6 adds a message that accepts packets for ::1 from a device too,
// once address translation has made them so; the kernel still drops what comes
// for ::1 over the wire. The metric leaves the host's own traffic where it was.
func (b *Batch) AddLoopback6(index int) {
	b.Begin(unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_REPLACE,
		rtmsg(unix.AF_INET6, 128, unix.RT_TABLE_LOCAL, unix.RTN_LOCAL), "add route for ::1")
	b.Attr(unix.RTA_DST, netip.IPv6Loopback().AsSlice())
	b.Uint32(unix.RTA_OIF, uint32(index))
	b.Uint32(unix.RTA_PRIORITY, 4096)
}

// Addrs lists the addresses of the socket's namespace.
func (s *Socket) Addrs() ([]Addr, error) {
	var b Batch
	b.Begin(unix.RTM_GETADDR, 0, make([]byte, unix.SizeofIfAddrmsg), "list addresses")
	var addrs []Addr
	err := s.Dump(&b, func(payload []byte) error {
		if len(payload) < unix.SizeofIfAddrmsg {
			return nil
		}
		bits, index := int(payload[1]), int(binary.NativeEndian.Uint32(payload[4:]))
		var local, peer netip.Addr
		Attributes(payload[unix.SizeofIfAddrmsg:], func(kind uint16, v []byte) {
			switch kind {
			case unix.IFA_LOCAL:
				local, _ = netip.AddrFromSlice(v)
			case unix.IFA_ADDRESS: // of the other side, where the link has one
				peer, _ = netip.AddrFromSlice(v)
			}
		})
		if !local.IsValid() {
			local = peer
		}
		if local.IsValid() {
			addrs = append(addrs, Addr{Index: index, Prefix: netip.PrefixFrom(local, bits)})
		}
		return nil
	})
	return addrs, err
}

// Routes lists the routes of every table that lead to other machines: not
// those of local and broadcast addresses.
func (s *Socket) Routes() ([]Route, error) {
	var b Batch
	b.Begin(unix.RTM_GETROUTE, 0, make([]byte, unix.SizeofRtMsg), "list routes")
	var routes []Route
	err := s.Dump(&b, func(payload []byte) error {
		if len(payload) < unix.SizeofRtMsg || payload[7] != unix.RTN_UNICAST {
			return nil
		}
		dst := netip.IPv4Unspecified()
		if payload[0] == unix.AF_INET6 {
			dst = netip.IPv6Unspecified()
		}
		r := Route{}
		Attributes(payload[unix.SizeofRtMsg:], func(kind uint16, v []byte) {
			switch kind {
			case unix.RTA_DST:
				dst, _ = netip.AddrFromSlice(v)
			case unix.RTA_OIF:
				r.Index = int(number(v))
			}
		})
		r.Dst = netip.PrefixFrom(dst, int(payload[1]))
		routes = append(routes, r)
		return nil
	})
	return routes, err
}

func family(ip netip.Addr) byte {
	if ip.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

func ifaddr(index int, p netip.Prefix) []byte {
	h := make([]byte, unix.SizeofIfAddrmsg)
	h[0], h[1] = family(p.Addr()), byte(p.Bits())
	if p.Addr().IsLinkLocalUnicast() {
		h[3] = unix.RT_SCOPE_LINK
	}
	binary.NativeEndian.PutUint32(h[4:], uint32(index))
	return h
}

func rtmsg(family, bits, table, kind byte) []byte {
	h := make([]byte, unix.SizeofRtMsg)
	h[0], h[1] = family, bits
	h[4], h[5], h[6], h[7] = table, unix.RTPROT_BOOT, unix.RT_SCOPE_UNIVERSE, kind
	return h
}
