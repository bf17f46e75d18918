package network

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"

	"cri-mini/internal/crashpoint"
	"cri-mini/podsandbox/network/internal/cni"
	"cri-mini/podsandbox/network/internal/netns"
)

// statusPace is how often plugins that are well are asked for their status.
const statusPace = 3 * pace

// external is the form that runs CNI plugins.
type external struct {
	n       *Network
	dir     *cni.Directory
	plugins *cni.Plugins

	mu      sync.Mutex
	checked *cni.Conflist // the one that health is about
	health  error
	askedAt time.Time
}

func newExternal(n *Network) *external {
	return &external{
		n:       n,
		dir:     cni.NewDirectory(n.opt.ConfDir),
		plugins: cni.NewPlugins(n.opt.BinDir, n.opt.CacheDir, n.host, n.opt.PluginLimit),
	}
}

func (x *external) name() string { return formCNI }

// configured tells whether pods are to be connected by this form. Files that
// are there but wrong are an error: somebody meant to have this form.
func (x *external) configured() (bool, error) {
	list, err := x.dir.Current()
	if errors.Is(err, cni.ErrNone) && x.n.opt.Mode == ModeAuto {
		return false, nil
	}
	return list != nil, err
}

// refresh reads the directory if it changed.
func (x *external) refresh() {
	if !x.dir.Refresh() {
		return
	}
	if list, err := x.dir.Current(); err != nil {
		x.n.log.Info("no usable CNI configuration", "err", err)
	} else {
		x.n.log.Info("read CNI configuration", "file", list.File, "network", list.Name())
	}
}

// watch follows the directory and the health of the plugins until ctx ends.
func (x *external) watch(ctx context.Context) {
	changed := make(chan struct{}, 1)
	x.n.stopped.Go(func() {
		err := x.dir.Watch(ctx, func() {
			select {
			case changed <- struct{}{}:
			default:
			}
		})
		if err != nil {
			x.n.log.Warn("look for CNI configuration every few seconds only", "err", err)
		}
	})
	tick := time.NewTicker(pace)
	defer tick.Stop()
	for {
		x.refresh()
		x.n.builtin.tend()
		x.examine(ctx)
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-tick.C:
		}
	}
}

// examine asks the plugins how they are, when it is time.
func (x *external) examine(ctx context.Context) {
	list, _ := x.dir.Current()
	if list == nil {
		return
	}
	x.mu.Lock()
	fresh := x.checked != list || x.health != nil
	due := fresh || time.Since(x.askedAt) > statusPace
	x.mu.Unlock()
	if !due {
		return
	}
	health := x.ask(ctx, list, fresh)
	x.mu.Lock()
	defer x.mu.Unlock()
	if ctx.Err() != nil {
		return
	}
	if health != nil && (x.health == nil || x.health.Error() != health.Error()) {
		x.n.log.Warn("CNI network is not ready", "file", list.File, "err", health)
	}
	x.checked, x.health, x.askedAt = list, health, time.Now()
}

// ask checks programs, and with fresh also their versions.
func (x *external) ask(ctx context.Context, list *cni.Conflist, fresh bool) error {
	err := x.plugins.Find(list)
	if err == nil && fresh {
		err = x.plugins.Validate(ctx, list)
	}
	if err == nil {
		err = x.plugins.Status(ctx, list)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", list.File, err)
	}
	return nil
}

func (x *external) status() error {
	list, err := x.dir.Current()
	if err != nil {
		return err
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.checked != list {
		return fmt.Errorf("%s: plugins have not been checked yet", list.File)
	}
	return x.health
}

func (x *external) describe() any {
	d := map[string]any{"directory": x.n.opt.ConfDir, "plugins": x.n.opt.BinDir}
	list, err := x.dir.Current()
	if err != nil {
		d["error"] = err.Error()
		return d
	}
	d["file"], d["readAt"] = list.File, list.ReadAt
	d["network"], d["version"], d["chain"] = list.Name(), list.Version(), list.Plugins()
	x.mu.Lock()
	defer x.mu.Unlock()
	d["checkedAt"] = x.askedAt
	if x.health != nil {
		d["error"] = x.health.Error()
	}
	return d
}

// connect records what it is about to do, and does it.
func (x *external) connect(ctx context.Context, e *entry, pod Pod, ns *os.File) error {
	list, err := x.dir.Current()
	if err != nil {
		return err
	}
	// Without its programs nothing could be undone either: begin nothing.
	if err := x.plugins.Find(list); err != nil {
		return fmt.Errorf("%s: %w", list.File, err)
	}
	args, err := pluginArgs(pod)
	if err != nil {
		return err
	}
	path := pod.NetNS
	if path == "" {
		if path, err = descriptorPath(ns); err != nil {
			return err
		}
	}
	identity, err := netns.Identity(ns)
	if err != nil {
		return err
	}
	if len(e.Ports) > 0 && !list.Can("portMappings") {
		x.n.log.Warn("no plugin of the network serves host ports", "pod", e.ID, "file", list.File)
	}
	x.n.mu.Lock()
	e.CNI = list.Intend(e.ID, path, identity, args, capabilities(pod, e.Ports, x.n.builtin.givenSubnets()))
	rec := e.record
	x.n.mu.Unlock()
	if err := x.n.records.save(rec); err != nil {
		return err
	}
	crashpoint.Here("cni.intended")
	if err := x.attach(ctx, e, ns); err != nil {
		return errors.Join(err, x.abandon(ctx, e, path))
	}
	return nil
}

func (x *external) attach(ctx context.Context, e *entry, ns *os.File) error {
	if err := SetupLoopback(ns); err != nil {
		return err
	}
	got, err := x.plugins.Attach(ctx, e.CNI)
	if err != nil {
		return err
	}
	crashpoint.Here("cni.added")
	x.n.mu.Lock()
	e.Addresses = got.Addresses
	for _, d := range got.Interfaces {
		e.Interfaces = append(e.Interfaces, Interface{Name: d.Name, MAC: d.MAC})
	}
	rec := e.record
	x.n.mu.Unlock()
	return x.n.records.save(rec)
}

// abandon undoes a connection that failed. What cannot be undone now stays on
// record for Collect.
func (x *external) abandon(ctx context.Context, e *entry, path string) error {
	err := x.plugins.Detach(context.WithoutCancel(ctx), e.CNI, path)
	if err == nil {
		err = x.n.records.remove(e.ID)
	}
	if err != nil {
		return x.n.owe(e, err)
	}
	return nil
}

func (x *external) disconnect(ctx context.Context, e *entry, ns *os.File) error {
	if err := x.plugins.Detach(ctx, e.CNI, podPath(e.CNI, ns)); err != nil {
		return err
	}
	crashpoint.Here("cni.deleted")
	return x.n.records.remove(e.ID)
}

// collect has the plugins remove what no pod of ours stands for.
func (x *external) collect() error {
	list, err := x.dir.Current()
	if err != nil {
		return nil // no network, nothing to collect in
	}
	var valid []string
	x.n.mu.Lock()
	for _, e := range x.n.pods {
		if e.Form == formCNI && e.Failures == 0 {
			valid = append(valid, e.ID)
		}
	}
	x.n.mu.Unlock()
	return x.plugins.Collect(context.Background(), list, valid)
}

// podPath is a path to the pod's namespace, or empty if it is gone. A stale
// path can lead to another pod's namespace, where a plugin would remove the
// wrong interface.
func podPath(a *cni.Attachment, ns *os.File) string {
	if known, err := netns.Open(a.NetNS); err == nil {
		defer known.Close()
		if id, err := netns.Identity(known); err == nil && id == a.Namespace {
			return a.NetNS // what plugins have seen before
		}
	}
	if ns == nil {
		return ""
	}
	id, err := netns.Identity(ns)
	if err != nil || id != a.Namespace {
		return ""
	}
	path, err := descriptorPath(ns)
	if err != nil {
		return ""
	}
	return path
}

// descriptorPath is a path that other processes can open while ns is open.
func descriptorPath(ns *os.File) (path string, err error) {
	raw, err := ns.SyscallConn()
	if err != nil {
		return "", err
	}
	err = raw.Control(func(fd uintptr) { path = fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), fd) })
	return path, err
}

// pluginArgs are the names by which Kubernetes plugins know a pod. They are one
// string to the plugin, so no name may break out of its place.
func pluginArgs(pod Pod) ([][2]string, error) {
	args := [][2]string{
		{"IgnoreUnknown", "1"},
		{"K8S_POD_NAMESPACE", pod.Namespace},
		{"K8S_POD_NAME", pod.Name},
		{"K8S_POD_INFRA_CONTAINER_ID", pod.ID},
		{"K8S_POD_UID", pod.UID},
	}
	for _, a := range args {
		if strings.ContainsAny(a[1], ";=\x00\n") {
			return nil, fmt.Errorf("%s: %q contains a character that CNI cannot pass on", a[0], a[1])
		}
	}
	return args, nil
}

// capabilities are the arguments of which each plugin gets those it asks for.
func capabilities(pod Pod, ports []PortMapping, subnets []netip.Prefix) map[string]any {
	c := map[string]any{}
	if len(ports) > 0 {
		var mappings []map[string]any
		for _, p := range ports {
			m := map[string]any{"hostPort": p.HostPort, "containerPort": p.ContainerPort, "protocol": p.Protocol}
			if p.HostIP.IsValid() {
				m["hostIP"] = p.HostIP.String()
			}
			mappings = append(mappings, m)
		}
		c["portMappings"] = mappings
	}
	if len(subnets) > 0 {
		var ranges [][]map[string]string
		for _, s := range subnets {
			ranges = append(ranges, []map[string]string{{"subnet": s.String()}})
		}
		c["ipRanges"] = ranges
	}
	if pod.CgroupParent != "" {
		c["cgroupPath"] = pod.CgroupParent
	}
	if len(pod.Annotations) > 0 {
		c["io.kubernetes.cri.pod-annotations"] = pod.Annotations
	}
	return c
}
