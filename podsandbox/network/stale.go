package network

import (
	"context"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"cri-mini/podsandbox/network/internal/conntrack"
	"cri-mini/podsandbox/network/internal/firewall"
	"cri-mini/podsandbox/network/internal/rtnl"
)

// forgetPause is between two walks through the kernel's conversations, which
// take time: many pods that come and go share one.
const forgetPause = 100 * time.Millisecond

// stale collects the UDP host ports that changed hands. Conversations with
// their former owners are forgotten in the background: no container runs yet
// when a pod is set up, and nobody waits for one that ends.
type stale struct {
	wake chan struct{}

	mu      sync.Mutex
	ports   map[uint16]bool
	resting [][]netip.Prefix // addresses to be freed afterwards
}

func newStale() stale { return stale{wake: make(chan struct{}, 1), ports: map[uint16]bool{}} }

// touch notes the UDP ports among ports. If there are any, addresses will be
// freed after the next walk, and touch returns true.
func (s *stale) touch(ports []firewall.Port, addresses []netip.Prefix) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	any := false
	for _, p := range ports {
		if p.Protocol == unix.IPPROTO_UDP {
			s.ports[p.HostPort] = true
			any = true
		}
	}
	if !any {
		return false
	}
	if len(addresses) > 0 {
		s.resting = append(s.resting, addresses)
	}
	select {
	case s.wake <- struct{}{}:
	default: // a walk is due anyway
	}
	return true
}

func (s *stale) take() (ports map[uint16]bool, resting [][]netip.Prefix) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ports, resting = s.ports, s.resting
	s.ports, s.resting = map[uint16]bool{}, nil
	return ports, resting
}

// forget does the walks until ctx ends.
func (f *builtin) forget(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-f.stale.wake:
		}
		ports, resting := f.stale.take()
		if err := f.forgetNow(ports); err != nil {
			f.n.log.Warn("cannot forget UDP conversations with former pods", "err", err)
		}
		pool := f.current()
		for _, addresses := range resting {
			if pool != nil {
				pool.Release(addresses)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(forgetPause):
		}
	}
}

// forgetNow removes conversations that began at one of these ports of the host
// and lead elsewhere than such a conversation would now.
func (f *builtin) forgetNow(ports map[uint16]bool) error {
	own, err := f.bridge.HostAddrs()
	if err != nil {
		return err
	}
	now := f.rulesOf(f.current()).Ports
	var filter uint16
	if len(ports) == 1 {
		for filter = range ports {
		}
	}
	return conntrack.ForgetUDP(f.nf, filter, func(flow conntrack.Flow) bool {
		local := flow.Addressed.IsLoopback() ||
			slices.ContainsFunc(own, func(a rtnl.Addr) bool { return a.Prefix.Addr() == flow.Addressed })
		return local && ports[flow.Port] && !leads(flow, now)
	})
}

// leads tells whether a conversation goes where the firewall sends it.
func leads(flow conntrack.Flow, ports []firewall.Port) bool {
	for _, p := range ports {
		if p.Protocol != unix.IPPROTO_UDP || p.HostPort != flow.Port || p.Pod.Addr().Is4() != flow.Addressed.Is4() {
			continue
		}
		if !p.HostIP.IsValid() || p.HostIP.IsUnspecified() || p.HostIP == flow.Addressed {
			return p.Pod.Addr() == flow.Answering
		}
	}
	return false
}
