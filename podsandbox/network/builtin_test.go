package network

import (
	"net/netip"
	"testing"

	"cri-mini/podsandbox/network/internal/ipam"
)

func TestPodsReachEachOtherTheHostAndOutside(t *testing.T) {
	w := newWorld(t)
	w.open()
	a, b := w.pod(), w.pod()
	resA, resB := w.setup(a), w.setup(b)
	if len(resA.IPs) != 2 || !resA.IPs[0].Is4() || !resA.IPs[1].Is6() {
		t.Fatalf("addresses %v, want one IPv4 and then one IPv6", resA.IPs)
	}
	serve(t, a.NetNSFile, "a", 80)
	serve(t, b.NetNSFile, "b", 80)
	serve(t, w.host, "host", 8000)
	serve(t, w.outside, "outside", 9000)
	for i := range 2 {
		gateway := ipam.Gateway(w.net.builtin.pool.Subnets()[i]).Addr()
		for _, protocol := range []string{"tcp", "udp"} {
			wantAnswer(t, a.NetNSFile, protocol, resB.IPs[i], 80, "b "+resA.IPs[i].String())
			wantAnswer(t, b.NetNSFile, protocol, resA.IPs[i], 80, "a "+resB.IPs[i].String())
			wantAnswer(t, w.host, protocol, resA.IPs[i], 80, "a "+gateway.String())
			host, out := []netip.Addr{hostIP, hostIP6}[i], []netip.Addr{outsideIP, outsideIP6}[i]
			if protocol == "tcp" { // a UDP server would answer from the bridge's address
				wantAnswer(t, a.NetNSFile, protocol, host, 8000, "host "+resA.IPs[i].String())
			}
			wantAnswer(t, a.NetNSFile, protocol, out, 9000, "outside "+host.String())
			own := []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.IPv6Loopback()}[i]
			wantAnswer(t, a.NetNSFile, protocol, own, 80, "a "+own.String())
		}
	}
	w.teardown(a)
	w.teardown(b)
}
