package network

import (
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"cri-mini/podsandbox/network/internal/bridge"
	"cri-mini/podsandbox/network/internal/netns"
	"cri-mini/podsandbox/network/internal/rtnl"
)

// BenchmarkPod compares Setup and Teardown of a pod in a fresh namespace with
// the kernel operations alone, in the fewest messages.
func BenchmarkPod(b *testing.B) {
	b.Run("namespace", func(b *testing.B) {
		for b.Loop() {
			dropNS(b, freshNS(b))
		}
	})
	b.Run("floor", benchFloor)
	b.Run("setup", func(b *testing.B) { benchSetup(b) })
	b.Run("setup-host-port", func(b *testing.B) {
		benchSetup(b, PortMapping{"tcp", 80, 8080, netip.Addr{}}, PortMapping{"udp", 80, 8080, netip.Addr{}})
	})
}

func benchSetup(b *testing.B, ports ...PortMapping) {
	w := newWorld(b)
	w.opt.Logger = slog.New(slog.DiscardHandler)
	n := w.open()
	pod := Pod{ID: "bench", Name: "bench", Namespace: "default", Ports: ports}
	var took []time.Duration
	for b.Loop() {
		pod.NetNSFile = freshNS(b)
		start := time.Now()
		if _, err := n.Setup(b.Context(), pod); err != nil {
			b.Fatal(err)
		}
		took = append(took, time.Since(start))
		if err := n.Teardown(b.Context(), pod); err != nil {
			b.Fatal(err)
		}
		dropNS(b, pod.NetNSFile)
	}
	report(b, took)
}

// report adds the median of the connecting alone, without the namespace.
func report(b *testing.B, took []time.Duration) {
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-us")
	b.ReportMetric(float64(took[0].Microseconds()), "min-us")
}

// benchFloor is a veth pair into a bridge, IPv4 only: the least that connects.
func benchFloor(b *testing.B) {
	w := newWorld(b)
	w.open()
	bridged := w.net.builtin.bridge
	var index int
	var route *rtnl.Socket
	must(b, netns.Do(w.host, func() (err error) {
		i, err := net.InterfaceByName(bridged.Name)
		if err != nil {
			return err
		}
		index = i.Index
		route, err = rtnl.Open(unix.NETLINK_ROUTE)
		return err
	}))
	defer route.Close()
	gateway := w.net.builtin.pool.Subnets()[0].Addr().Next()
	var took []time.Duration
	for b.Loop() {
		given, err := w.net.builtin.pool.Take()
		must(b, err)
		ns := freshNS(b)
		start := time.Now()
		var inside *rtnl.Socket
		must(b, netns.Do(ns, func() (err error) {
			inside, err = rtnl.Open(unix.NETLINK_ROUTE)
			return err
		}))
		var batch rtnl.Batch
		batch.NewVeth(rtnl.Veth{Name: bridged.PortName(given), Master: index, PeerName: "eth0",
			PeerMAC: bridge.MAC(given), PeerNS: int(ns.Fd())})
		must(b, route.Do(&batch))
		var config rtnl.Batch
		config.LinkUp(1)
		config.LinkUp(2)
		config.AddAddr(2, given[0])
		config.AddDefaultRoute(2, gateway)
		must(b, inside.Do(&config))
		inside.Close()
		took = append(took, time.Since(start))
		dropNS(b, ns)
		w.net.builtin.pool.Release(given)
	}
	report(b, took)
}

func freshNS(b *testing.B) *os.File {
	ns, err := netns.New()
	if err != nil {
		b.Fatal(err)
	}
	return ns
}

func dropNS(b *testing.B, ns *os.File) { must(b, ns.Close()) }
