// Package conntrack forgets UDP conversations that follow an outdated
// translation.
//
// The kernel decides where a conversation goes at its first packet and
// remembers it while packets flow. A client that keeps sending to a host port
// would reach the port's former owner, or nobody, for ever.
package conntrack

import (
	"encoding/binary"
	"errors"
	"net/netip"

	"golang.org/x/sys/unix"

	"cri-mini/podsandbox/network/internal/rtnl"
)

// Numbers of linux/netfilter/nfnetlink_conntrack.h.
const (
	subsystem = unix.NFNL_SUBSYS_CTNETLINK << 8
	get       = subsystem | 1
	del       = subsystem | 2

	tupleOrig       = 1
	tupleReply      = 2
	filter          = 25
	filterOrig      = 1
	filterReply     = 2
	filterProtoNum  = 1 << 3
	filterDestPort  = 1 << 5
	tupleIP         = 1
	tupleProto      = 2
	ipv4Source      = 1
	ipv4Destination = 2
	ipv6Source      = 3
	ipv6Destination = 4
	protoNumber     = 1
	protoDestPort   = 3
)

// Flow is a conversation: who was addressed, at which port, and who answers.
type Flow struct {
	Addressed netip.Addr
	Port      uint16
	Answering netip.Addr

	original []byte // the kernel's name for it
}

// ForgetUDP removes the conversations that stale selects, of those addressed to
// a port; port 0 stands for all. nf is a NETLINK_NETFILTER socket of the host's
// namespace. The kernel walks its whole table, which may take 50 ms.
func ForgetUDP(nf *rtnl.Socket, port uint16, stale func(Flow) bool) error {
	var failed error
	for _, family := range []byte{unix.AF_INET, unix.AF_INET6} {
		flows, err := list(nf, family, port)
		if err != nil {
			failed = errors.Join(failed, err)
			continue
		}
		for _, f := range flows {
			if !stale(f) {
				continue
			}
			var b rtnl.Batch
			b.Begin(del, 0, header(family), "forget conversation")
			b.Attr(tupleOrig|unix.NLA_F_NESTED, f.original)
			if err := nf.Do(&b); err != nil && !errors.Is(err, unix.ENOENT) {
				failed = errors.Join(failed, err)
			}
		}
	}
	return failed
}

func list(nf *rtnl.Socket, family byte, port uint16) ([]Flow, error) {
	var b rtnl.Batch
	b.Begin(get, 0, header(family), "list conversations")
	b.Nest(tupleOrig|unix.NLA_F_NESTED, nil, func() {
		b.Nest(tupleProto|unix.NLA_F_NESTED, nil, func() {
			b.Attr(protoNumber, []byte{unix.IPPROTO_UDP})
			if port != 0 {
				b.Attr(protoDestPort, binary.BigEndian.AppendUint16(nil, port))
			}
		})
	})
	compared := uint32(filterProtoNum)
	if port != 0 {
		compared |= filterDestPort
	}
	b.Nest(filter|unix.NLA_F_NESTED, nil, func() {
		b.Uint32(filterOrig, compared)
		b.Uint32(filterReply, 0)
	})
	var flows []Flow
	err := nf.Dump(&b, func(payload []byte) error {
		if len(payload) < 4 {
			return nil
		}
		var f Flow
		rtnl.Attributes(payload[4:], func(kind uint16, v []byte) {
			switch kind {
			case tupleOrig:
				f.original = append([]byte(nil), v...)
				f.Addressed, f.Port = address(v, ipv4Destination, ipv6Destination), destination(v)
			case tupleReply:
				f.Answering = address(v, ipv4Source, ipv6Source)
			}
		})
		flows = append(flows, f)
		return nil
	})
	return flows, err
}

func address(tuple []byte, v4, v6 uint16) netip.Addr {
	var ip netip.Addr
	rtnl.Attributes(tuple, func(kind uint16, v []byte) {
		if kind != tupleIP {
			return
		}
		rtnl.Attributes(v, func(kind uint16, v []byte) {
			if kind == v4 || kind == v6 {
				ip, _ = netip.AddrFromSlice(v)
			}
		})
	})
	return ip
}

func destination(tuple []byte) (port uint16) {
	rtnl.Attributes(tuple, func(kind uint16, v []byte) {
		if kind != tupleProto {
			return
		}
		rtnl.Attributes(v, func(kind uint16, v []byte) {
			if kind == protoDestPort && len(v) == 2 {
				port = binary.BigEndian.Uint16(v)
			}
		})
	})
	return port
}

func header(family byte) []byte { return []byte{family, unix.NFNETLINK_V0, 0, 0} }
