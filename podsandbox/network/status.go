package network

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"time"

	"cri-mini/podsandbox/network/internal/ipam"
)

// pace is how often things that nobody announces are looked at.
const pace = 5 * time.Second

// Status tells why pods cannot be connected, or returns nil. It does not ask
// kernel or plugins, which are looked at in the background.
func (n *Network) Status() error {
	via, err := n.form()
	if err != nil {
		return err
	}
	if via == form(n.builtin) {
		return n.builtin.status()
	}
	return n.external.status()
}

func (f *builtin) status() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.failed
}

// Describe shows what the network consists of, for people.
func (n *Network) Describe() map[string]any {
	d := map[string]any{"mode": n.opt.Mode}
	if err := n.Status(); err != nil {
		d["error"] = err.Error()
	}
	via, err := n.form()
	if err == nil {
		d["form"] = via.name()
	}
	n.mu.Lock()
	pods := map[string]int{}
	for _, e := range n.pods {
		pods[e.Form]++
	}
	d["pods"], d["hostPorts"] = pods, len(n.ports)
	n.mu.Unlock()
	if pool := n.builtin.current(); pool != nil {
		d["builtin"] = map[string]any{
			"bridge":  n.builtin.bridge.Name,
			"subnets": pool.Subnets(),
			"taken":   n.builtin.taken(pool),
			"table":   "inet " + n.builtin.firewall.Name(),
		}
	}
	if n.opt.Mode != ModeBuiltin {
		d["cni"] = n.external.describe()
	}
	return d
}

// taken counts the addresses in use: those of pool, and those that pods have of
// ranges from before it.
func (f *builtin) taken(pool *ipam.Pool) int {
	n := pool.Taken()
	for _, addresses := range f.leases() {
		ofPool := func(a netip.Prefix) bool {
			return slices.ContainsFunc(pool.Subnets(), func(s netip.Prefix) bool { return s.Contains(a.Addr()) })
		}
		if !slices.ContainsFunc(addresses, ofPool) {
			n++
		}
	}
	return n
}

// watch looks after the built-in form until ctx ends.
func (f *builtin) watch(ctx context.Context) {
	tick := time.NewTicker(pace)
	defer tick.Stop()
	for {
		f.tend()
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// tend makes the form ready once it is wanted, and keeps it so.
func (f *builtin) tend() {
	if !f.wanted() {
		return
	}
	var err error
	if f.status() != nil {
		err = f.ready()
	} else {
		err = f.check()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if err != nil && err.Error() != f.logged {
		level := slog.LevelWarn
		if errors.Is(err, errNoRange) { // as at every start of a new node
			level = slog.LevelInfo
		}
		f.n.log.Log(context.Background(), level, "pod network is not ready", "err", err)
		f.logged = err.Error()
	}
	if err == nil {
		f.logged = ""
	}
}
