package network

import (
	"encoding/binary"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"cri-mini/podsandbox/network/internal/ipam"
	"cri-mini/podsandbox/network/internal/netns"
	"cri-mini/podsandbox/network/internal/rtnl"
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

func sysctl(t *testing.T, ns *os.File, name string) (value string) {
	t.Helper()
	must(t, netns.Do(ns, func() error {
		data, err := os.ReadFile("/proc/sys/net/" + name)
		value = strings.TrimSpace(string(data))
		return err
	}))
	return value
}

// A host that learned its IPv6 route from advertisements keeps listening to
// them when it becomes a router; pods and the bridge never listen.
func TestRouterAdvertisements(t *testing.T) {
	w := newWorld(t)
	if got := sysctl(t, w.host, "ipv6/conf/uplink/accept_ra"); got != "1" {
		t.Fatalf("accept_ra of a new interface is %s: the test needs 1", got)
	}
	w.open()
	a := w.pod()
	w.setup(a)
	for _, c := range []struct {
		ns         *os.File
		name, want string
	}{
		{w.host, "ipv6/conf/all/forwarding", "1"},
		{w.host, "ipv4/ip_forward", "1"},
		{w.host, "ipv6/conf/uplink/accept_ra", "2"},
		{w.host, "ipv6/conf/" + w.net.builtin.bridge.Name + "/accept_ra", "0"},
		{w.host, "ipv4/conf/uplink/route_localnet", "0"},
		{a.NetNSFile, "ipv6/conf/eth0/accept_ra", "0"},
	} {
		if got := sysctl(t, c.ns, c.name); got != c.want {
			t.Errorf("%s is %s; want %s", c.name, got, c.want)
		}
	}
}

func TestHostWithoutIPv6(t *testing.T) {
	w := newWorld(t)
	must(t, netns.Do(w.host, func() error {
		return os.WriteFile("/proc/sys/net/ipv6/conf/all/disable_ipv6", []byte("1"), 0)
	}))
	w.open()
	a, b := w.pod(PortMapping{"tcp", 80, 8080, netip.Addr{}}), w.pod()
	res := w.setup(a)
	w.setup(b)
	if len(res.IPs) != 1 || !res.IPs[0].Is4() {
		t.Fatalf("addresses %v; want one IPv4", res.IPs)
	}
	serve(t, a.NetNSFile, "a", 80)
	wantAnswer(t, w.outside, "tcp", hostIP, 8080, "a "+outsideIP.String())
	if got := sysctl(t, w.host, "ipv6/conf/all/forwarding"); got != "0" {
		t.Errorf("IPv6 forwarding was switched on")
	}
	if err := w.net.SetPodCIDR("10.0.0.0/24,fd00::/64"); err == nil || !strings.Contains(err.Error(), "fd00::/64: IPv6 is switched off") {
		t.Errorf("SetPodCIDR with IPv6: %v", err)
	}
}

func TestPodsTakeThePacketSizeOfTheUplink(t *testing.T) {
	w := newWorld(t)
	w.do(func(route *rtnl.Socket) error {
		index, err := route.Index("uplink")
		if err != nil {
			return err
		}
		var b rtnl.Batch
		b.Begin(unix.RTM_SETLINK, 0, append([]byte{0, 0, 0, 0}, append(binary.NativeEndian.AppendUint32(nil, uint32(index)), make([]byte, 8)...)...), "set MTU")
		b.Uint32(unix.IFLA_MTU, 1400)
		b.AddDefaultRoute(index, outsideIP)
		return route.Do(&b)
	})
	for _, life := range []string{"first", "second"} { // the bridge is there already
		w.open()
		a := w.pod()
		w.setup(a)
		must(t, netns.Do(a.NetNSFile, func() error {
			i, err := net.InterfaceByName("eth0")
			if err == nil && i.MTU != 1400 {
				t.Errorf("%s life: eth0 has MTU %d; want 1400", life, i.MTU)
			}
			return err
		}))
	}
}

func TestCollectLeavesAFreshPodAlone(t *testing.T) {
	w := newWorld(t)
	w.open()
	a := w.pod()
	res := w.setup(a) // after the caller made its list of live pods
	must(t, w.net.Collect(nil))
	if _, ok := w.net.Result(a.ID); !ok {
		t.Error("a pod that was set up a moment ago was collected")
	}
	serve(t, a.NetNSFile, "a", 80)
	wantAnswer(t, w.host, "tcp", res.IPs[0], 80, "a "+w.net.builtin.pool.Subnets()[0].Addr().Next().String())
}
