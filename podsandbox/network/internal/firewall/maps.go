package firewall

import (
	"encoding/binary"
	"net/netip"
	"strings"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"
)

// hostPorts is one of the four maps that lead from a host port to a pod.
type hostPorts struct {
	name   string
	ipv6   bool
	hostIP bool // the key begins with the host's address
}

var maps = []hostPorts{
	{name: "ports-ip", hostIP: true},
	{name: "ports"},
	{name: "ports6-ip", hostIP: true, ipv6: true},
	{name: "ports6", ipv6: true},
}

func (h hostPorts) set(table *nftables.Table, id uint32) *nftables.Set {
	address := nftables.TypeIPAddr
	if h.ipv6 {
		address = nftables.TypeIP6Addr
	}
	key := []nftables.SetDatatype{nftables.TypeInetProto, nftables.TypeInetService}
	if h.hostIP {
		key = append([]nftables.SetDatatype{address}, key...)
	}
	return &nftables.Set{
		Table: table, Name: h.name, ID: id, IsMap: true, Concatenation: true,
		KeyType:  nftables.MustConcatSetType(key...),
		DataType: nftables.MustConcatSetType(address, nftables.TypeInetService),
	}
}

// elements sorts ports into the maps they belong to.
func (t *Table) elements(ports []Port) map[*nftables.Set][]nftables.SetElement {
	all := map[*nftables.Set][]nftables.SetElement{}
	for i, h := range maps {
		var elements []nftables.SetElement
		for _, p := range ports {
			if p.Pod.Addr().Is6() == h.ipv6 && anyAddress(p.HostIP) != h.hostIP {
				elements = append(elements, nftables.SetElement{Key: h.key(p), Val: target(p)})
			}
		}
		if len(elements) > 0 {
			all[h.set(t.table(), uint32(i+1))] = elements
		}
	}
	return all
}

func anyAddress(ip netip.Addr) bool { return !ip.IsValid() || ip.IsUnspecified() }

// Every part of a concatenation fills whole words of 32 bits.
func (h hostPorts) key(p Port) []byte {
	var key []byte
	if h.hostIP {
		key = p.HostIP.AsSlice()
	}
	key = append(key, p.Protocol, 0, 0, 0)
	return append(binary.BigEndian.AppendUint16(key, p.HostPort), 0, 0)
}

func target(p Port) []byte {
	return append(binary.BigEndian.AppendUint16(p.Pod.Addr().AsSlice(), p.Pod.Port()), 0, 0)
}

// opened is a port number that some pod has opened on some address. Where a
// conversation began by a host port is told by it: nftables can ask conntrack
// for the original port, not for the original address of either family.
type opened struct {
	protocol uint8
	port     uint16
}

func openedSet(table *nftables.Table) *nftables.Set {
	return &nftables.Set{
		Table: table, Name: "opened", ID: uint32(len(maps) + 1), Concatenation: true,
		KeyType: nftables.MustConcatSetType(nftables.TypeInetProto, nftables.TypeInetService),
	}
}

func openedElements(ports []Port) []nftables.SetElement {
	var elements []nftables.SetElement
	seen := map[opened]bool{}
	for _, p := range ports {
		if o := (opened{p.Protocol, p.HostPort}); !seen[o] {
			seen[o] = true
			elements = append(elements, nftables.SetElement{Key: hostPorts{}.key(p)})
		}
	}
	return elements
}

// note remembers what goes into the table.
func (t *Table) note(ports []Port) {
	for _, p := range ports {
		if !t.held[p] {
			t.held[p] = true
			t.uses[opened{p.Protocol, p.HostPort}]++
		}
	}
}

// drop forgets ports and returns those whose number is not used any more.
func (t *Table) drop(ports []Port) (closed []Port) {
	for _, p := range ports {
		if !t.held[p] {
			continue
		}
		delete(t.held, p)
		o := opened{p.Protocol, p.HostPort}
		if t.uses[o]--; t.uses[o] == 0 {
			delete(t.uses, o)
			closed = append(closed, p)
		}
	}
	return closed
}

// subnets is the set of the pods' subnets of one address family.
func subnets(table *nftables.Table, id uint32, ipv6 bool) *nftables.Set {
	s := &nftables.Set{Table: table, Name: "pods", ID: id, Interval: true, KeyType: nftables.TypeIPAddr}
	if ipv6 {
		s.Name, s.KeyType = "pods6", nftables.TypeIP6Addr
	}
	return s
}

// cluster is the set of where pods of other nodes are.
func cluster(table *nftables.Table, id uint32, ipv6 bool) *nftables.Set {
	s := subnets(table, id, ipv6)
	s.Name = strings.Replace(s.Name, "pods", "cluster", 1)
	return s
}

// intervals writes subnets as the pairs of bounds that the kernel wants; the
// upper one is the first address outside.
func intervals(pods []netip.Prefix, ipv6 bool) []nftables.SetElement {
	var elements []nftables.SetElement
	for _, p := range pods {
		if p.Addr().Is6() != ipv6 {
			continue
		}
		elements = append(elements, nftables.SetElement{Key: p.Masked().Addr().AsSlice()})
		if after := afterLast(p); after.IsValid() {
			elements = append(elements, nftables.SetElement{Key: after.AsSlice(), IntervalEnd: true})
		}
	}
	return elements
}

func afterLast(p netip.Prefix) netip.Addr {
	last := p.Masked().Addr().AsSlice()
	for bit := p.Bits(); bit < len(last)*8; bit++ {
		last[bit/8] |= 1 << (7 - bit%8)
	}
	ip, _ := netip.AddrFromSlice(last)
	return ip.Next()
}

func familyOf(ipv6 bool) byte {
	if ipv6 {
		return unix.NFPROTO_IPV6
	}
	return unix.NFPROTO_IPV4
}
