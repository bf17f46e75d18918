// Package network connects pods.
//
// A Network is the pod network of one instance. It has two forms: the built-in
// one, a bridge with addresses, host ports and masquerade made by netlink and
// nftables, which needs no program; and the external one, which runs the CNI
// plugins that a conflist names. A Pod goes in, a Result comes out. A pod is
// taken down by the form that set it up, whatever is configured by then.
//
// Every pod has one record on disk, written before anything is done for it, so
// whatever a crash leaves can be taken back: by Teardown, or by Collect.
//
// The network namespace of the thread that calls Open is the host's; its
// sysctls for forwarding are switched on when the built-in form needs them and
// stay on, for others may rely on them by then. The package does not make the
// pods' namespaces and does not know containers.
package network

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"cri-mini/internal/atomicfile"
	"cri-mini/podsandbox/network/internal/netns"
	"cri-mini/podsandbox/network/internal/rtnl"
)

// The values of Options.Mode.
const (
	ModeAuto    = "auto"    // external when there is a conflist, else built-in
	ModeBuiltin = "builtin" // never external
	ModeCNI     = "cni"     // never built-in
)

// Options say how to connect pods.
type Options struct {
	Mode     string
	ConfDir  string // of CNI conflists
	BinDir   string // of CNI plugins; several are separated by colons
	StateDir string // records and chosen subnets; must survive a reboot
	CacheDir string // of CNI results; empty: below StateDir
	// PluginLimit is how long one plugin may take; 0 means a minute.
	PluginLimit time.Duration
	Bridge      string // name of the bridge; empty: made from Instance
	Instance    string // tells instances on one host apart, for example a path
	PodCIDR     string // subnets of the pods; empty: chosen, see SetPodCIDR
	// Cluster is the ranges of all pods of a cluster whose nodes have routes to
	// each other. What pods send there keeps their address. With it, and without
	// PodCIDR, nothing is chosen: SetPodCIDR must come first.
	Cluster []netip.Prefix
	IPv6    bool // give pods IPv6 addresses too; switched off on hosts without IPv6
	Logger  *slog.Logger
}

// Pod is what a network needs to know of a pod.
type Pod struct {
	ID, Name, Namespace, UID string

	// NetNS is a path that plugins can open. It may be stale or empty at
	// Teardown.
	NetNS string
	// NetNSFile is the namespace itself; when nil, NetNS is opened.
	NetNSFile *os.File

	Ports        []PortMapping
	Labels       map[string]string
	Annotations  map[string]string
	CgroupParent string
}

// Interface is a network interface of a pod.
type Interface struct {
	Name string
	MAC  string
	Host string // its other end on the host, where it has one
}

// Result is what a pod got.
type Result struct {
	IPs        []netip.Addr // the primary one first
	Interfaces []Interface
}

// Network is the pod network of an instance. It is safe for concurrent use.
type Network struct {
	opt      Options
	log      *slog.Logger
	host     *os.File     // the host's network namespace
	diag     *rtnl.Socket // asks who listens on a port
	records  records
	builtin  *builtin
	external *external
	stop     context.CancelFunc
	stopped  sync.WaitGroup

	mu    sync.Mutex // guards what follows; never held over a system call
	pods  map[string]*entry
	ports reservations
}

// entry is one pod.
type entry struct {
	op sync.Mutex // held by the Setup or Teardown at work on the pod

	// What follows is guarded by Network.mu.
	record
	loaded  bool // set up in an earlier life
	ready   bool // Setup succeeded
	leaving bool // its host ports are to be closed
	since   time.Time
}

// Open reads the records of earlier lives and makes the network ready. When it
// cannot be made ready, Status says why, and it is tried again.
func Open(opt Options) (*Network, error) {
	if err := opt.complete(); err != nil {
		return nil, err
	}
	n := &Network{opt: opt, log: opt.Logger, pods: map[string]*entry{}, ports: reservations{}}
	if err := n.open(); err != nil {
		return nil, errors.Join(fmt.Errorf("pod network: %w", err), n.Close())
	}
	return n, nil
}

func (o *Options) complete() error {
	switch o.Mode {
	case "":
		o.Mode = ModeAuto
	case ModeAuto, ModeBuiltin, ModeCNI:
	default:
		return fmt.Errorf("network mode %q is not one of auto, builtin, cni", o.Mode)
	}
	if o.StateDir == "" {
		return errors.New("network state directory is not set")
	}
	if o.Mode != ModeBuiltin && o.ConfDir == "" {
		return errors.New("CNI configuration directory is not set")
	}
	if o.CacheDir == "" {
		o.CacheDir = filepath.Join(o.StateDir, "cni")
	}
	if o.PluginLimit <= 0 {
		o.PluginLimit = time.Minute
	}
	if o.Instance == "" {
		o.Instance = o.StateDir
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	return nil
}

func (n *Network) open() (err error) {
	if n.host, err = netns.Current(); err != nil {
		return err
	}
	err = netns.Do(n.host, func() (err error) {
		n.diag, err = rtnl.Open(unix.NETLINK_SOCK_DIAG)
		return err
	})
	if err != nil {
		return err
	}
	if n.records, err = openRecords(filepath.Join(n.opt.StateDir, "pods")); err != nil {
		return err
	}
	if err := atomicfile.Sweep(n.opt.StateDir); err != nil {
		return err
	}
	if err := n.load(); err != nil {
		return err
	}
	if n.builtin, err = newBuiltin(n); err != nil {
		return err
	}
	n.external = newExternal(n)
	ctx, stop := context.WithCancel(context.Background())
	n.stop = stop
	if n.opt.Mode != ModeBuiltin {
		n.external.refresh()
		n.stopped.Go(func() { n.external.watch(ctx) })
	}
	n.builtin.tend()
	n.stopped.Go(func() { n.builtin.watch(ctx) })
	n.stopped.Go(func() { n.builtin.forget(ctx) })
	return nil
}

// load learns from the records what earlier lives left.
func (n *Network) load() error {
	loaded, err := n.records.load(n.log)
	for _, r := range loaded {
		n.pods[r.ID] = &entry{record: r, loaded: true, ready: true, since: time.Now()}
		n.ports.restore(&n.pods[r.ID].record)
	}
	return err
}

// Close stops watching and leaves all pods connected.
func (n *Network) Close() error {
	if n.stop != nil {
		n.stop()
		n.stopped.Wait()
		n.stop = nil
	}
	var err error
	if n.builtin != nil {
		err = n.builtin.close()
	}
	if n.diag != nil {
		err = errors.Join(err, n.diag.Close())
	}
	if n.host != nil {
		err = errors.Join(err, n.host.Close())
	}
	return err
}

// Destroy takes down every pod that is left and removes what Open made: bridge,
// table and files. Only Close may follow.
func (n *Network) Destroy() error {
	if n.stop != nil {
		n.stop()
		n.stopped.Wait()
		n.stop = nil
	}
	var failed error
	for _, e := range n.entries() {
		failed = errors.Join(failed, n.Teardown(context.Background(), Pod{ID: e.ID}))
	}
	failed = errors.Join(failed, n.builtin.destroy())
	if failed != nil {
		return failed // the records say what is left to do
	}
	return errors.Join(n.records.close(), os.RemoveAll(n.opt.StateDir), os.RemoveAll(n.opt.CacheDir))
}

// entries lists all pods, in no order.
func (n *Network) entries() []*entry {
	n.mu.Lock()
	defer n.mu.Unlock()
	all := make([]*entry, 0, len(n.pods))
	for _, e := range n.pods {
		all = append(all, e)
	}
	return all
}

// Result returns what a pod got, also in an earlier life of this process. For a
// pod whose Setup was cut short by a crash it may return what was meant to be.
func (n *Network) Result(podID string) (Result, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	e, ok := n.pods[podID]
	if !ok || !e.ready || len(e.Addresses) == 0 {
		return Result{}, false
	}
	return e.result(), true
}

// SetPodCIDR changes the subnets from which pods get addresses: one, or two
// with a comma between them, one of each address family. Pods that have
// addresses keep them. The external form has its own addresses. What is no
// subnet is ErrInvalid.
func (n *Network) SetPodCIDR(cidr string) error { return n.builtin.setPodCIDR(cidr) }
