package firewall

import (
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Registers of the nftables machine: the same memory as four of 16 bytes and
// as sixteen of 4.
const (
	reg  = 1  // the first 16 bytes
	word = 8  // the first 4 bytes; the next word is word+1
	reg6 = 12 // the word behind an IPv6 address
)

// natDone is IPS_DST_NAT: the destination of the conversation was translated.
const natDone = 1 << 5

type ruleset struct {
	table  *nftables.Table
	conn   *nftables.Conn
	bridge string
	pods   map[bool]*nftables.Set // by "is IPv6"
	others map[bool]*nftables.Set // likewise; of the cluster
}

func (t *Table) build(table *nftables.Table, c *nftables.Conn, r Rules) error {
	b := ruleset{table: table, conn: c, bridge: r.Bridge, pods: map[bool]*nftables.Set{}, others: map[bool]*nftables.Set{}}
	for i, h := range maps {
		if err := c.AddSet(h.set(table, uint32(i+1)), nil); err != nil {
			return err
		}
	}
	if err := c.AddSet(openedSet(table), nil); err != nil {
		return err
	}
	for i, ipv6 := range []bool{false, true} {
		set := subnets(table, uint32(len(maps)+2+i), ipv6)
		if err := c.AddSet(set, intervals(r.Pods, ipv6)); err != nil {
			return err
		}
		b.pods[ipv6] = set
		set = cluster(table, uint32(len(maps)+4+i), ipv6)
		if err := c.AddSet(set, intervals(r.Cluster, ipv6)); err != nil {
			return err
		}
		b.others[ipv6] = set
	}
	ports := b.hostPorts()
	b.redirect("prerouting", nftables.ChainHookPrerouting, ports)
	b.redirect("output", nftables.ChainHookOutput, ports)
	b.postrouting()
	b.loopback()
	all := t.elements(r.Ports)
	all[openedSet(table)] = openedElements(r.Ports)
	for m, elements := range all {
		for len(elements) > 0 { // an attribute holds at most 64 KiB
			n := min(len(elements), 500)
			if err := c.SetAddElements(m, elements[:n]); err != nil {
				return err
			}
			elements = elements[n:]
		}
	}
	return nil
}

func (b *ruleset) chain(name string, kind nftables.ChainType, hook *nftables.ChainHook, at *nftables.ChainPriority) *nftables.Chain {
	return b.conn.AddChain(&nftables.Chain{Table: b.table, Name: name, Type: kind, Hooknum: hook, Priority: at})
}

func (b *ruleset) rule(chain *nftables.Chain, parts ...[]expr.Any) {
	r := &nftables.Rule{Table: b.table, Chain: chain}
	for _, p := range parts {
		r.Exprs = append(r.Exprs, p...)
	}
	b.conn.AddRule(r)
}

// hostPorts is the chain that translates. A host port bound to one address is
// looked up before one that is open on all.
func (b *ruleset) hostPorts() *nftables.Chain {
	chain := b.conn.AddChain(&nftables.Chain{Table: b.table, Name: "host-ports"})
	for i, h := range maps {
		at, size, port := uint32(word), uint32(4), uint32(word+1)
		if h.ipv6 {
			size, port = 16, reg6
		}
		var load []expr.Any
		if h.hostIP {
			load = append(load, addressField(h.ipv6, false))
			at += size / 4
		}
		load = append(load,
			&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: at},
			&expr.Payload{DestRegister: at + 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
			&expr.Lookup{SourceRegister: reg, DestRegister: reg, IsDestRegSet: true, SetName: h.name, SetID: uint32(i + 1)},
			&expr.NAT{Type: expr.NATTypeDestNAT, Family: uint32(familyOf(h.ipv6)), RegAddrMin: reg, RegProtoMin: port},
		)
		b.rule(chain, isFamily(h.ipv6), load)
	}
	return chain
}

// redirect sends what is addressed to this host itself through the host ports.
func (b *ruleset) redirect(name string, hook *nftables.ChainHook, ports *nftables.Chain) {
	b.rule(b.chain(name, nftables.ChainTypeNAT, hook, nftables.ChainPriorityNATDest), []expr.Any{
		&expr.Fib{Register: reg, FlagDADDR: true, ResultADDRTYPE: true},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: binaryutil.NativeEndian.PutUint32(unix.RTN_LOCAL)},
		&expr.Verdict{Kind: expr.VerdictJump, Chain: ports.Name},
	})
}

func (b *ruleset) postrouting() {
	chain := b.chain("postrouting", nftables.ChainTypeNAT, nftables.ChainHookPostrouting, nftables.ChainPriorityNATSource)
	masquerade := []expr.Any{&expr.Masq{}}
	for _, ipv6 := range []bool{false, true} {
		// A pod cannot answer 127.0.0.1 or ::1.
		b.rule(chain, isFamily(ipv6), device(expr.MetaKeyOIFNAME, b.bridge), fromLoopback(ipv6), masquerade)
		// A pod that reached a pod by a host port must get the answer from the
		// host, not straight from its neighbour, or from itself. Others who
		// translate, as service proxies do, know what their pods need.
		b.rule(chain, isFamily(ipv6), b.isPod(ipv6, true, false), b.isPod(ipv6, false, false), byHostPort(b.table), masquerade)
		b.rule(chain, isFamily(ipv6), multicast(ipv6))
		b.rule(chain, isFamily(ipv6), b.isPod(ipv6, true, false), b.isPod(ipv6, false, true), b.isElsewhere(ipv6), masquerade)
	}
}

// loopback undoes what route_localnet on the bridge would allow: without it a
// pod could reach what listens on 127.0.0.1 of the host (CVE-2020-8558). It
// looks at packets as they are on the wire, before translation.
func (b *ruleset) loopback() {
	chain := b.chain("loopback", nftables.ChainTypeFilter, nftables.ChainHookPrerouting, nftables.ChainPriorityRaw)
	for _, source := range []bool{true, false} {
		b.rule(chain, isFamily(false), device(expr.MetaKeyIIFNAME, b.bridge), []expr.Any{
			addressField(false, source),
			&expr.Bitwise{SourceRegister: reg, DestRegister: reg, Len: 4, Mask: []byte{255, 0, 0, 0}, Xor: make([]byte, 4)},
			&expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: []byte{127, 0, 0, 0}},
			&expr.Verdict{Kind: expr.VerdictDrop},
		})
	}
}

func isFamily(ipv6 bool) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: reg},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: []byte{familyOf(ipv6)}},
	}
}

func device(key expr.MetaKey, name string) []expr.Any {
	padded := make([]byte, unix.IFNAMSIZ)
	copy(padded, name)
	return []expr.Any{
		&expr.Meta{Key: key, Register: reg},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: padded},
	}
}

func addressField(ipv6, source bool) *expr.Payload {
	p := &expr.Payload{DestRegister: reg, Base: expr.PayloadBaseNetworkHeader, Offset: 16, Len: 4}
	if ipv6 {
		p.Offset, p.Len = 24, 16
	}
	if source {
		p.Offset -= p.Len
	}
	return p
}

func (b *ruleset) isPod(ipv6, source, not bool) []expr.Any {
	set := b.pods[ipv6]
	return []expr.Any{
		addressField(ipv6, source),
		&expr.Lookup{SourceRegister: reg, SetName: set.Name, SetID: set.ID, Invert: not},
	}
}

// isElsewhere matches what does not go to a pod of another node.
func (b *ruleset) isElsewhere(ipv6 bool) []expr.Any {
	set := b.others[ipv6]
	return []expr.Any{
		addressField(ipv6, false),
		&expr.Lookup{SourceRegister: reg, SetName: set.Name, SetID: set.ID, Invert: true},
	}
}

func fromLoopback(ipv6 bool) []expr.Any {
	if ipv6 {
		return []expr.Any{
			addressField(true, true),
			&expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: netip.IPv6Loopback().AsSlice()},
		}
	}
	return []expr.Any{
		addressField(false, true),
		&expr.Bitwise{SourceRegister: reg, DestRegister: reg, Len: 4, Mask: []byte{255, 0, 0, 0}, Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: []byte{127, 0, 0, 0}},
	}
}

// multicast leaves what has many receivers alone.
func multicast(ipv6 bool) []expr.Any {
	mask, want := []byte{0xf0, 0, 0, 0}, []byte{0xe0, 0, 0, 0}
	if ipv6 {
		mask, want = make([]byte, 16), make([]byte, 16)
		mask[0], want[0] = 0xff, 0xff
	}
	return []expr.Any{
		addressField(ipv6, false),
		&expr.Bitwise{SourceRegister: reg, DestRegister: reg, Len: uint32(len(mask)), Mask: mask, Xor: make([]byte, len(mask))},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: want},
		&expr.Verdict{Kind: expr.VerdictReturn},
	}
}

func byHostPort(table *nftables.Table) []expr.Any {
	set := openedSet(table)
	return []expr.Any{
		&expr.Ct{Key: expr.CtKeySTATUS, Register: reg},
		&expr.Bitwise{SourceRegister: reg, DestRegister: reg, Len: 4,
			Mask: binaryutil.NativeEndian.PutUint32(natDone), Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: reg, Data: make([]byte, 4)},
		&expr.Ct{Key: expr.CtKeyPROTOCOL, Register: word},
		&expr.Ct{Key: expr.CtKeyPROTODST, Register: word + 1}, // direction 0: as it was sent
		&expr.Lookup{SourceRegister: reg, SetName: set.Name, SetID: set.ID},
	}
}
