package network

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"testing"

	"cri-mini/podsandbox/network/internal/netns"
)

// TestNodeOfAClusterWaitsForItsRangeAndHidesNoPodFromOtherNodes has a node of the
// cluster outside, on which the address of a pod is seen as it is.
func TestNodeOfAClusterWaitsForItsRangeAndHidesNoPodFromOtherNodes(t *testing.T) {
	w := newWorld(t)
	w.opt.Cluster = []netip.Prefix{netip.MustParsePrefix("10.5.0.0/16"), netip.MustParsePrefix("fd05::/48")}
	n := w.open()
	if err := n.Status(); !errors.Is(err, errNoRange) {
		t.Fatalf("status %v; want to wait for a range", err)
	}
	early := w.pod()
	if res, err := n.Setup(t.Context(), early); !errors.Is(err, errNoRange) {
		t.Fatalf("a pod got %v, %v", res.IPs, err)
	}
	must(t, n.SetPodCIDR("10.5.1.0/24,fd05:0:0:1::/64"))
	must(t, n.Status())
	a := w.pod()
	res := w.setup(a)

	// The other node: its pods are at the addresses that it has itself.
	others := []netip.Addr{netip.MustParseAddr("10.5.2.2"), netip.MustParseAddr("fd05:0:0:2::2")}
	for i, other := range others {
		to := []netip.Addr{outsideIP, outsideIP6}[i]
		from := []netip.Addr{hostIP, hostIP6}[i]
		ip(t, w.outside, "addr", "add", other.String(), "dev", "lo")
		ip(t, w.host, "route", "add", other.String(), "via", to.String())
		ip(t, w.outside, "route", "add", res.IPs[i].String(), "via", from.String())
	}
	serve(t, a.NetNSFile, "a", 80)
	serve(t, w.outside, "other", 9000)
	// Each has to know the other's hardware address: to ask for it on behalf of
	// a pod takes a link-local address, which is not usable for two seconds.
	wantAnswer(t, w.host, "tcp", outsideIP6, 9000, "other "+hostIP6.String())
	for i, other := range others {
		wantAnswer(t, a.NetNSFile, "tcp", other, 9000, "other "+res.IPs[i].String())
		wantAnswer(t, a.NetNSFile, "tcp", []netip.Addr{outsideIP, outsideIP6}[i], 9000,
			"other "+[]netip.Addr{hostIP, hostIP6}[i].String())
	}
	n = w.open() // nobody tells the range again
	must(t, n.Status())
	must(t, n.builtin.firewall.Delete())
	n.builtin.tend()
	wantAnswer(t, a.NetNSFile, "tcp", others[0], 9000, "other "+res.IPs[0].String())
	w.teardown(a)
}

// ip runs the program of that name in a network namespace.
func ip(t *testing.T, ns *os.File, args ...string) {
	t.Helper()
	must(t, netns.Do(ns, func() error {
		out, err := exec.Command("ip", args...).CombinedOutput()
		if err != nil {
			return fmt.Errorf("ip %q: %w: %s", args, err, out)
		}
		return nil
	}))
}

// TestRangeOfTheKubeletBeatsTheConfiguredOneAfterARestart: the kubelet tells a
// range only when it has changed.
func TestRangeOfTheKubeletBeatsTheConfiguredOneAfterARestart(t *testing.T) {
	w := newWorld(t)
	w.opt.PodCIDR = "10.6.0.0/24"
	n := w.open()
	if res := w.setup(w.pod()); !netip.MustParsePrefix("10.6.0.0/24").Contains(res.IPs[0]) {
		t.Errorf("address %s; want one of 10.6.0.0/24", res.IPs[0])
	}
	must(t, n.SetPodCIDR("10.5.0.0/24"))
	w.open()
	if res := w.setup(w.pod()); !netip.MustParsePrefix("10.5.0.0/24").Contains(res.IPs[0]) {
		t.Errorf("after a restart: address %s; want one of 10.5.0.0/24", res.IPs[0])
	}
}

// TestServiceProxyLeadsToANeighbourWithoutBridgeNetfilter plays the part of a
// service proxy: it translates an address of its own to that of a pod, also for
// pods of the same node. The answer must come back through the node, which a
// bridge only lets happen where packets that it forwards pass the firewall.
func TestServiceProxyLeadsToANeighbourWithoutBridgeNetfilter(t *testing.T) {
	w := newWorld(t)
	w.open()
	must(t, netns.Do(w.host, func() error {
		for _, name := range []string{"iptables", "ip6tables"} {
			err := os.WriteFile("/proc/sys/net/bridge/bridge-nf-call-"+name, []byte("0"), 0)
			if err != nil && !errors.Is(err, os.ErrNotExist) {
				return err
			}
		}
		return nil
	}))
	a, b := w.pod(), w.pod()
	resA, resB := w.setup(a), w.setup(b)
	serve(t, b.NetNSFile, "b", 80)
	for i, family := range []string{"ip", "ip6"} {
		vip := []string{"10.96.0.7", "fd96::7"}[i]
		to := netip.AddrPortFrom(resB.IPs[i], 80)
		must(t, netns.Do(w.host, func() error {
			for _, line := range []string{
				"add table " + family + " proxy",
				"add chain " + family + " proxy in { type nat hook prerouting priority dstnat; }",
				"add rule " + family + " proxy in " + family + " daddr " + vip + " tcp dport 80 dnat to " + to.String(),
			} {
				if out, err := exec.Command("nft", line).CombinedOutput(); err != nil {
					return fmt.Errorf("nft %s: %w: %s", line, err, out)
				}
			}
			return nil
		}))
		wantAnswer(t, a.NetNSFile, "tcp", netip.MustParseAddr(vip), 80, "b "+resA.IPs[i].String())
	}
	for _, device := range []string{"all", "eth0"} {
		if got := sysctl(t, b.NetNSFile, "ipv4/conf/"+device+"/accept_redirects"); got != "0" {
			t.Errorf("%s accepts redirects: %s", device, got)
		}
	}
	// The host tells pods that talk to each other that there is a shorter way.
	for i, vip := range []string{"10.96.0.7", "fd96::7"} {
		for range 20 {
			wantAnswer(t, a.NetNSFile, "tcp", resB.IPs[i], 80, "b "+resA.IPs[i].String())
		}
		wantAnswer(t, a.NetNSFile, "tcp", netip.MustParseAddr(vip), 80, "b "+resA.IPs[i].String())
	}
	w.teardown(a)
	w.teardown(b)
}
