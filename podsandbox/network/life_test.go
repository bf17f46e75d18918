package network

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"cri-mini/podsandbox/network/internal/netns"
	"cri-mini/podsandbox/network/internal/rtnl"
)

// remains is what an instance has in kernel and files for its pods.
func (w *world) remains() []string {
	w.t.Helper()
	var all []string
	c, err := nftables.New(nftables.WithNetNSFd(int(w.host.Fd())))
	must(w.t, err)
	var sets []*nftables.Set
	if present, err := w.net.builtin.firewall.Present(); err != nil {
		w.t.Fatal(err)
	} else if present {
		sets, err = c.GetSets(&nftables.Table{Name: w.net.builtin.firewall.Name(), Family: nftables.TableFamilyINet})
		must(w.t, err)
	}
	for _, set := range sets {
		if set.Name == "pods" || set.Name == "pods6" {
			continue
		}
		elements, err := c.GetSetElements(set)
		must(w.t, err)
		for _, e := range elements {
			all = append(all, fmt.Sprintf("element %s %x", set.Name, e.Key))
		}
	}
	ports, err := w.net.builtin.bridge.Ports()
	must(w.t, err)
	for _, p := range ports {
		all = append(all, "port "+p)
	}
	must(w.t, filepath.WalkDir(w.opt.StateDir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && d.Name() != "subnets.json" {
			all = append(all, "file "+path)
		}
		return err
	}))
	if pool := w.net.builtin.current(); pool != nil && pool.Taken() > 0 {
		all = append(all, fmt.Sprintf("%d addresses", pool.Taken()))
	}
	if n := len(w.net.ports); n > 0 {
		all = append(all, fmt.Sprintf("%d host ports", n))
	}
	slices.Sort(all)
	return all
}

// wantNothingLeft waits a little: the kernel ends namespaces in its own time.
func (w *world) wantNothingLeft() {
	w.t.Helper()
	var left []string
	for range 50 {
		if left = w.remains(); len(left) == 0 {
			return
		}
		time.Sleep(40 * time.Millisecond)
	}
	w.t.Errorf("left behind:\n  %s", strings.Join(left, "\n  "))
}

func (w *world) do(fn func(route *rtnl.Socket) error) {
	w.t.Helper()
	must(w.t, netns.Do(w.host, func() error {
		route, err := rtnl.Open(unix.NETLINK_ROUTE)
		if err != nil {
			return err
		}
		defer route.Close()
		return fn(route)
	}))
}

func TestTwoHundredPodsLeaveNothing(t *testing.T) {
	w := newWorld(t)
	n := w.open()
	var wg sync.WaitGroup
	var mu sync.Mutex
	seen := map[netip.Addr]string{}
	for worker := range 8 {
		wg.Go(func() {
			for i := range 25 {
				ns, err := netns.New()
				if err != nil {
					t.Error(err)
					return
				}
				id := fmt.Sprintf("pod-%d-%d", worker, i)
				p := Pod{ID: id, Name: id, Namespace: "default", NetNSFile: ns}
				if i%2 == 0 {
					p.Ports = []PortMapping{{"tcp", 80, uint16(10000 + 100*worker + i), netip.Addr{}},
						{"udp", 80, uint16(10000 + 100*worker + i), hostIP}}
				}
				res, err := n.Setup(t.Context(), p)
				if err != nil {
					t.Error(err)
				}
				mu.Lock()
				for _, ip := range res.IPs {
					if other, taken := seen[ip]; taken {
						t.Errorf("%s and %s both got %s", other, id, ip)
					}
					seen[ip] = id
				}
				mu.Unlock()
				if err := n.Teardown(t.Context(), p); err != nil {
					t.Error(err)
				}
				if err := n.Teardown(t.Context(), p); err != nil {
					t.Errorf("second Teardown: %v", err)
				}
				ns.Close()
			}
		})
	}
	wg.Wait()
	w.wantNothingLeft()
}

func TestFailedSetupLeavesNothing(t *testing.T) {
	w := newWorld(t)
	n := w.open()
	closed := newNS(t)
	closed.Close()
	occupied := newNS(t)
	must(t, netns.Do(occupied, func() error {
		route, err := rtnl.Open(unix.NETLINK_ROUTE)
		if err != nil {
			return err
		}
		defer route.Close()
		var b rtnl.Batch
		b.NewBridge("eth0", "", net.HardwareAddr{2, 0, 0, 0, 0, 1}, 0)
		return route.Do(&b)
	}))
	file, err := os.Open("/dev/null")
	must(t, err)
	defer file.Close()
	port := []PortMapping{{"tcp", 80, 8080, netip.Addr{}}}
	for _, c := range []struct {
		pod  Pod
		want string
	}{
		{Pod{ID: "a", NetNSFile: closed, Ports: port}, "use of closed file"},
		{Pod{ID: "b", NetNSFile: occupied, Ports: port}, "has an interface eth0 already"},
		{Pod{ID: "c", NetNSFile: file, Ports: port}, "enter network namespace /dev/null"},
		{Pod{ID: "d", NetNS: "/dev/null", Ports: port}, "/dev/null: not a network namespace"},
		{Pod{ID: "e", NetNS: "/proc/self/fd/99999"}, "no such file"},
		{Pod{ID: "f"}, "no network namespace given"},
		{Pod{ID: "../g", NetNSFile: newNS(t)}, `pod id "../g"`},
	} {
		if _, err := n.Setup(t.Context(), c.pod); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("pod %s: error %v; want one with %q", c.pod.ID, err, c.want)
		}
		if err := n.Teardown(t.Context(), c.pod); err != nil {
			t.Errorf("pod %s: Teardown: %v", c.pod.ID, err)
		}
	}
	w.wantNothingLeft()
}

func TestPodsSurviveARestart(t *testing.T) {
	w := newWorld(t)
	w.open()
	a := w.pod(PortMapping{"tcp", 80, 8080, netip.Addr{}})
	before := w.setup(a)
	serve(t, a.NetNSFile, "a", 80)
	n := w.open()
	after, ok := n.Result(a.ID)
	if !ok || !slices.Equal(before.IPs, after.IPs) || !slices.Equal(before.Interfaces, after.Interfaces) {
		t.Fatalf("result after a restart: %v, %v; want %v", after, ok, before)
	}
	wantAnswer(t, w.outside, "tcp", hostIP, 8080, "a "+outsideIP.String())
	if _, err := n.Setup(t.Context(), w.pod(PortMapping{"tcp", 80, 8080, netip.Addr{}})); err == nil ||
		!strings.Contains(err.Error(), "tcp port 8080 is taken by pod default/pod-1 (pod-1)") {
		t.Errorf("host port of before the restart was given again: %v", err)
	}
	b := w.pod()
	if res := w.setup(b); slices.Contains(before.IPs, res.IPs[0]) {
		t.Errorf("address %s was given twice", res.IPs[0])
	}
	// The namespace may be gone, or its path may lead elsewhere.
	a.NetNSFile, a.NetNS = nil, "/dev/null"
	w.teardown(a)
	w.teardown(Pod{ID: b.ID})
	if _, ok := n.Result(a.ID); ok {
		t.Error("there is a result after Teardown")
	}
	wantNoAnswer(t, w.outside, "tcp", hostIP, 8080)
}

// A port that outlives its record, as when something holds a namespace, keeps
// its address from being given again until Collect removes it.
func TestAddressInUseIsNotGivenAgain(t *testing.T) {
	w := newWorld(t)
	w.opt.PodCIDR = "10.1.2.0/29" // five pods
	n := w.open()
	held := w.pod()
	first := w.setup(held)
	w.teardown(held) // but the namespace stays
	for range 4 {
		if res := w.setup(w.pod()); res.IPs[0] == first.IPs[0] {
			t.Fatalf("address %s is still in use and was given again", first.IPs[0])
		}
	}
	if _, err := n.Setup(t.Context(), w.pod()); err == nil || !strings.Contains(err.Error(), "no free address") {
		t.Fatalf("sixth pod of five: error %v; want one that says there is no free address", err)
	}
	must(t, n.Collect([]string{"pod-2", "pod-3", "pod-4", "pod-5"}))
	if res := w.setup(w.pod()); res.IPs[0] != first.IPs[0] {
		t.Errorf("after Collect: address %s; want %s", res.IPs[0], first.IPs[0])
	}
}

func TestOthersMayRemoveBridgeAndRules(t *testing.T) {
	w := newWorld(t)
	n := w.open()
	a := w.pod(PortMapping{"tcp", 80, 8080, netip.Addr{}})
	resA := w.setup(a)
	b := w.pod(PortMapping{"tcp", 80, 8081, netip.Addr{}})
	serve(t, a.NetNSFile, "a", 80)
	serve(t, b.NetNSFile, "b", 80)
	t.Run("before Setup", func(t *testing.T) {
		must(t, n.builtin.firewall.Delete())
		w.do(func(route *rtnl.Socket) error {
			var b rtnl.Batch
			b.DelLink(n.builtin.bridge.Name)
			return route.Do(&b)
		})
		w.setup(b)
		wantAnswer(t, b.NetNSFile, "tcp", resA.IPs[0], 80, "a "+w.net.pods[b.ID].Addresses[0].Addr().String())
		wantAnswer(t, w.outside, "tcp", hostIP, 8080, "a "+outsideIP.String())
		wantAnswer(t, w.outside, "tcp", hostIP, 8081, "b "+outsideIP.String())
	})
	t.Run("while nothing happens", func(t *testing.T) {
		must(t, n.builtin.firewall.Delete())
		n.builtin.tend()
		wantAnswer(t, w.outside, "tcp", hostIP, 8080, "a "+outsideIP.String())
	})
	t.Run("before Teardown", func(t *testing.T) {
		must(t, n.builtin.firewall.Delete())
		w.teardown(a)
		wantNoAnswer(t, w.outside, "tcp", hostIP, 8080)
		wantAnswer(t, w.outside, "tcp", hostIP, 8081, "b "+outsideIP.String())
	})
}

func TestPodCIDRCanChangeUnderLivingPods(t *testing.T) {
	w := newWorld(t)
	n := w.open()
	a := w.pod()
	resA := w.setup(a)
	must(t, n.SetPodCIDR("10.5.0.0/24"))
	b := w.pod()
	resB := w.setup(b)
	if len(resB.IPs) != 1 || !netip.MustParsePrefix("10.5.0.0/24").Contains(resB.IPs[0]) {
		t.Fatalf("addresses %v; want one of 10.5.0.0/24", resB.IPs)
	}
	if taken := n.Describe()["builtin"].(map[string]any)["taken"]; taken != 2 {
		t.Errorf("%v addresses are said to be taken, want those of both ranges: 2", taken)
	}
	serve(t, a.NetNSFile, "a", 80)
	serve(t, w.outside, "outside", 9000)
	wantAnswer(t, b.NetNSFile, "tcp", resA.IPs[0], 80, "a "+resB.IPs[0].String())
	wantAnswer(t, a.NetNSFile, "tcp", outsideIP, 9000, "outside "+hostIP.String())
	wantAnswer(t, b.NetNSFile, "tcp", outsideIP, 9000, "outside "+hostIP.String())
	n = w.open()
	if res := w.setup(w.pod()); !netip.MustParsePrefix("10.5.0.0/24").Contains(res.IPs[0]) {
		t.Errorf("after a restart: address %s; want one of 10.5.0.0/24", res.IPs[0])
	}
	w.teardown(a)
	must(t, n.Collect([]string{b.ID, "pod-3"}))
	addrs, err := n.builtin.bridge.HostAddrs()
	must(t, err)
	for _, addr := range addrs {
		if addr.Prefix.Contains(resA.IPs[0]) {
			t.Errorf("bridge still has %s, which no pod needs", addr.Prefix)
		}
	}
	for _, bad := range []string{"", "10.0.0.0", "10.0.0.0/31", "10.0.0.0/24,10.1.0.0/24", "10.0.0.0/24;fd00::/64"} {
		if err := n.SetPodCIDR(bad); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), fmt.Sprintf("pod_cidr %q: ", bad)) {
			t.Errorf("SetPodCIDR(%q): %v; want an error that quotes it", bad, err)
		}
	}
}

func TestChosenSubnetAvoidsRoutesAndStays(t *testing.T) {
	w := newWorld(t)
	first := w.open().builtin.current().Subnets()
	must(t, w.net.Destroy())
	w.do(func(route *rtnl.Socket) error { // the host has a network there by now
		index, err := route.Index("uplink")
		if err != nil {
			return err
		}
		var b rtnl.Batch
		b.AddAddr(index, netip.PrefixFrom(first[0].Addr().Next(), 24))
		return route.Do(&b)
	})
	second := w.open().builtin.current().Subnets()
	if second[0].Overlaps(first[0]) {
		t.Errorf("chose %s although the host has a route there", second[0])
	}
	if third := w.open().builtin.current().Subnets(); !slices.Equal(second, third) {
		t.Errorf("after a restart: %v; want %v", third, second)
	}
}

func TestTwoInstancesLiveSideBySide(t *testing.T) {
	w := newWorld(t)
	w.open()
	other := &world{t: t, host: w.host, outside: w.outside, opt: w.opt}
	other.opt.Instance, other.opt.StateDir = "the other", filepath.Join(t.TempDir(), "other")
	other.open()
	a, b := w.pod(PortMapping{"tcp", 80, 8080, netip.Addr{}}), other.pod(PortMapping{"tcp", 80, 8081, netip.Addr{}})
	b.ID = "other-pod"
	w.setup(a)
	resB := other.setup(b)
	serve(t, a.NetNSFile, "a", 80)
	serve(t, b.NetNSFile, "b", 80)
	for _, n := range []*Network{w.net, other.net} {
		must(t, n.Collect([]string{a.ID, b.ID}))
	}
	wantAnswer(t, w.outside, "tcp", hostIP, 8080, "a "+outsideIP.String())
	wantAnswer(t, w.outside, "tcp", hostIP, 8081, "b "+outsideIP.String())
	thief := other.pod(PortMapping{"tcp", 80, 8080, netip.Addr{}})
	thief.ID = "thief"
	if _, err := other.net.Setup(t.Context(), thief); err == nil || !strings.Contains(err.Error(), "8080") || !strings.Contains(err.Error(), "another instance") {
		t.Errorf("host port of the other instance: %v", err)
	}
	must(t, w.net.Destroy())
	wantNoAnswer(t, w.outside, "tcp", hostIP, 8080)
	wantAnswer(t, w.outside, "tcp", hostIP, 8081, "b "+outsideIP.String())
	wantAnswer(t, w.host, "tcp", resB.IPs[0], 80, "b "+other.net.builtin.current().Subnets()[0].Addr().Next().String())
}

func TestDestroyRemovesEverything(t *testing.T) {
	w := newWorld(t)
	links := w.links()
	w.open()
	a := w.pod(PortMapping{"tcp", 80, 8080, netip.Addr{}})
	w.setup(a)
	must(t, w.net.Destroy())
	if after := w.links(); !slices.Equal(links, after) {
		t.Errorf("links %v; want %v", after, links)
	}
	if present, err := w.net.builtin.firewall.Present(); present || err != nil {
		t.Errorf("firewall table present: %v, %v", present, err)
	}
	if _, err := os.Stat(w.opt.StateDir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("state directory: %v; want it gone", err)
	}
	must(t, w.net.Destroy()) // may be repeated
}

func (w *world) links() (names []string) {
	w.do(func(route *rtnl.Socket) error {
		links, err := route.Links(0)
		for _, l := range links {
			names = append(names, l.Name)
		}
		return err
	})
	return names
}
