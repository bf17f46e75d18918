package podsandbox

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"

	"google.golang.org/protobuf/proto"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func TestUpdateChangesWhatItNamesAndIsRemembered(t *testing.T) {
	inBubble(t, func(t *testing.T, l *life) {
		l.do([]string{"run", "a"})
		cfg := containerConfig("web")
		cfg.Linux.Resources = &criapi.LinuxContainerResources{CpuShares: 100, MemoryLimitInBytes: 1 << 20, Unified: map[string]string{"memory.low": "0"}}
		id, err := l.pods.Create(t.Context(), l.id("a"), cfg)
		if err != nil {
			t.Fatal(err)
		}
		update := func(r *criapi.LinuxContainerResources) error {
			c, err := l.pods.Container(id)
			if err != nil {
				t.Fatal(err)
			}
			return c.Update(t.Context(), r)
		}
		check := func(when string, want *criapi.LinuxContainerResources) {
			t.Helper()
			c, _ := l.pods.Container(id)
			if got := c.Status().Resources; !proto.Equal(got, want) {
				t.Errorf("%s the limits are %v, want %v", when, got, want)
			}
		}
		// The kubelet sends the score with every update. What runs keeps the one
		// it began with, and the status says so.
		if err := update(&criapi.LinuxContainerResources{CpusetCpus: "0-1", OomScoreAdj: 500}); err != nil {
			t.Fatal(err)
		}
		if got := l.world.updates[id]; got.CpusetCpus != "0-1" || got.CPUShares != 0 {
			t.Errorf("the executor is asked for %+v, want the change alone", got)
		}
		want := proto.CloneOf(cfg.Linux.Resources)
		want.CpusetCpus = "0-1"
		check("after an update", want)

		l.world.change(func() { l.world.fail["Update"] = errors.New("no such CPU") })
		if err := update(&criapi.LinuxContainerResources{CpusetCpus: "99"}); err == nil {
			t.Error("the executor's error was lost")
		}
		check("after a failed update", want)

		l.do([]string{"restart"})
		check("after a restart", want)
		if err := update(&criapi.LinuxContainerResources{MemoryLimitInBytes: 2 << 20}); err != nil {
			t.Fatal(err)
		}
		if got := l.world.updates[id]; got.MemorySwapLimit != 0 {
			t.Errorf("the executor is asked for %+v, want nothing of swap", got)
		}
		c, _ := l.pods.Container(id)
		if err := c.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := l.world.prepared[id].Resources; got.MemoryLimit != 2<<20 || got.CpusetCpus != "0-1" || got.CPUShares != 100 {
			t.Errorf("prepared again with %+v, want all updates in it", got)
		}
		l.do([]string{"restart"})
		if err := update(&criapi.LinuxContainerResources{CpusetCpus: "1"}); err != nil {
			t.Fatal(err)
		}
		if got := l.world.updates[id]; got.CpusetCpus != "1" {
			t.Errorf("of a container that an earlier daemon started the executor is asked for %+v, want the change", got)
		}
		if c, err = l.pods.Container(id); err != nil {
			t.Fatal(err)
		}
		if err := c.Stop(t.Context(), 0); err != nil {
			t.Fatal(err)
		}
		if err := update(&criapi.LinuxContainerResources{CpuShares: 2}); !errors.Is(err, ErrFailedPrecondition) {
			t.Errorf("update of an ended container: %v, want ErrFailedPrecondition", err)
		}
		if err := update(&criapi.LinuxContainerResources{CpuShares: -2}); !errors.Is(err, ErrInvalid) {
			t.Errorf("update to a negative share: %v, want ErrInvalid", err)
		}
	})
}

func TestUpdateThatWaitedForARemovalFindsNothing(t *testing.T) {
	inBubble(t, func(t *testing.T, l *life) {
		l.do([]string{"run", "a"})
		l.do([]string{"create", "a/web"})
		c, err := l.pods.Container(l.id("a/web"))
		if err != nil {
			t.Fatal(err)
		}
		l.do([]string{"block", "Remove"})
		l.do([]string{"go", "1", "remove", "a/web"})
		synctest.Wait()
		answer := make(chan error, 1)
		go func() { answer <- c.Update(t.Context(), &criapi.LinuxContainerResources{CpuShares: 100}) }()
		synctest.Wait()
		l.do([]string{"unblock", "Remove"})
		if err := <-answer; !errors.Is(err, ErrNotFound) {
			t.Errorf("update: %v, want ErrNotFound", err)
		}
		if len(l.world.updates) > 0 {
			t.Errorf("the executor was asked for %v", l.world.updates)
		}
	})
}

func TestStatusTellsWhatWasAskedAndMade(t *testing.T) {
	inBubble(t, func(t *testing.T, l *life) {
		pod := podConfig("a")
		pod.Labels = map[string]string{"label": "ä"}
		sandbox, err := l.pods.Run(t.Context(), pod, "other")
		if err != nil {
			t.Fatal(err)
		}
		cfg := containerConfig("web")
		cfg.Annotations = map[string]string{"key": "value"}
		cfg.Envs = []*criapi.KeyValue{{Key: "BYTES", Value: []byte{0xff, 0xfe}}}
		cfg.Mounts = []*criapi.Mount{
			{ContainerPath: "/host", HostPath: "/srv", Propagation: criapi.MountPropagation_PROPAGATION_BIDIRECTIONAL},
			{ContainerPath: "/image", Readonly: true, Image: &criapi.ImageSpec{Image: "tools"}},
		}
		asked := proto.CloneOf(cfg)
		id, err := l.pods.Create(t.Context(), sandbox, cfg)
		if err != nil {
			t.Fatal(err)
		}
		cfg.Annotations["key"] = "changed by the caller"

		for _, when := range []string{"now", "after a restart"} {
			c, err := l.pods.Container(id[:12])
			if err != nil {
				t.Fatal(err)
			}
			s := c.Status()
			if !proto.Equal(s.Config, asked) {
				t.Errorf("%s the config is %v, want %v", when, s.Config, asked)
			}
			app, tools := l.world.images["app"], l.world.images["tools"]
			if s.ImageID != app.ID || s.ImageRef != app.Digests[0] {
				t.Errorf("%s the image is %s and %s, want %s and %s", when, s.ImageID, s.ImageRef, app.ID, app.Digests[0])
			}
			if s.Mounts[1].Image.ImageRef != tools.ID || s.Mounts[0].Propagation != asked.Mounts[0].Propagation {
				t.Errorf("%s the mounts are %v, want them as asked and with the id of the image", when, s.Mounts)
			}
			if s.LogPath != "/logs/a/web.log" || s.User.Uid != 33 || s.User.SupplementalGroups[0] != 33 || s.StopSignal != criapi.Signal_SIGNAL_SIGTERM {
				t.Errorf("%s: log %q, user %v, stop signal %v", when, s.LogPath, s.User, s.StopSignal)
			}
			p, err := l.pods.Sandbox(sandbox[:12])
			if err != nil {
				t.Fatal(err)
			}
			if status := p.Status(); !proto.Equal(status.Config, pod) || status.Handler != "other" || len(status.IPs) != 1 || !status.Ready {
				t.Errorf("%s the pod is %+v", when, status)
			}
			if got := c.Status().Spec.Process.Env; !strings.Contains(strings.Join(got, " "), "BYTES=\xff\xfe") {
				t.Errorf("%s the environment is %q, want the bytes of BYTES unchanged", when, got)
			}
			l.do([]string{"restart"})
		}
	})
}

func TestUnknownAndAmbiguousIDs(t *testing.T) {
	table := map[string]int{"aa" + strings.Repeat("0", 62): 1, "ab" + strings.Repeat("0", 62): 2}
	for id, want := range map[string]error{"a": ErrAmbiguous, "": ErrNotFound, "b": ErrNotFound, "aa": nil, strings.Repeat("a", 64): ErrNotFound} {
		if _, err := find(table, "pod", id); !errors.Is(err, want) {
			t.Errorf("find %q: %v, want %v", id, err, want)
		}
	}
}

func TestFilesBelowEtc(t *testing.T) {
	inBubble(t, func(t *testing.T, l *life) {
		own := podConfig("own")
		own.DnsConfig = &criapi.DNSConfig{Servers: []string{"10.0.0.10"}, Searches: []string{"a", "b"}, Options: []string{"ndots:8"}}
		node := podConfig("node")
		node.Hostname = "another"
		node.Linux.SecurityContext.NamespaceOptions.Network = criapi.NamespaceMode_NODE
		name, err := os.Hostname()
		if err != nil {
			t.Fatal(err)
		}
		nodeHosts, _ := os.ReadFile("testdata/etc/hosts")
		for _, c := range []struct {
			config *criapi.PodSandboxConfig
			want   map[string]string
		}{
			{podConfig("plain"), map[string]string{"hostname": "host-plain\n", "resolv.conf": "nameserver 192.0.2.53\n",
				"hosts": "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n10.88.0.2\thost-plain\n"}},
			{own, map[string]string{"resolv.conf": "nameserver 10.0.0.10\nsearch a b\noptions ndots:8\n"}},
			{node, map[string]string{"hostname": name + "\n", "hosts": string(nodeHosts)}},
		} {
			id, err := l.pods.Run(t.Context(), c.config, "")
			if err != nil {
				t.Fatal(err)
			}
			for file, want := range c.want {
				got, err := os.ReadFile(filepath.Join(l.root, "pods", id, "etc", file))
				if err != nil || string(got) != want {
					t.Errorf("%s: /etc/%s is %q, %v; want %q", c.config.Metadata.Name, file, got, err, want)
				}
			}
		}
	})
}

// A resolver on the node's loopback is out of reach for a pod with a network of
// its own, which gets the servers behind it, if somebody tells them.
func TestResolverOnTheLoopbackIsReplacedByTheServersBehindIt(t *testing.T) {
	const stub, real, mixed = "nameserver 127.0.0.53\n", "nameserver 192.0.2.1\n", "nameserver 127.0.0.53\nnameserver 192.0.2.7\n"
	for name, c := range map[string]struct {
		node, real string
		onNode     bool // in the node's network
		want       string
	}{
		"replaced":         {stub, real, false, real},
		"nobody tells":     {stub, "", false, stub},
		"one reachable":    {mixed, real, false, mixed},
		"the node's pod":   {stub, real, true, stub},
		"no file whatever": {"", real, false, ""},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, l *life) {
				dir := t.TempDir()
				l.pods.opt.ResolvConf, l.pods.opt.RealServers = filepath.Join(dir, "node"), filepath.Join(dir, "real")
				for path, text := range map[string]string{l.pods.opt.ResolvConf: c.node, l.pods.opt.RealServers: c.real} {
					if text == "" {
						continue
					}
					if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
						t.Fatal(err)
					}
				}
				config := podConfig("a")
				if c.onNode {
					config.Linux.SecurityContext.NamespaceOptions.Network = criapi.NamespaceMode_NODE
				}
				id, err := l.pods.Run(t.Context(), config, "")
				if err != nil {
					t.Fatal(err)
				}
				if got, err := os.ReadFile(filepath.Join(l.root, "pods", id, "etc/resolv.conf")); err != nil || string(got) != c.want {
					t.Errorf("resolv.conf %q, %v; want %q", got, err, c.want)
				}
			})
		})
	}
}

func TestNetNSOfAStoppedPodIsRefused(t *testing.T) {
	inBubble(t, func(t *testing.T, l *life) {
		l.do([]string{"run", "a"})
		f, err := l.pods.NetNS(l.id("a"))
		if err != nil || f == nil {
			t.Fatalf("NetNS gives %v, %v", f, err)
		}
		f.Close()
		if err := l.pods.Stop(context.Background(), l.id("a")); err != nil {
			t.Fatal(err)
		}
		if _, err := l.pods.NetNS(l.id("a")); !errors.Is(err, ErrFailedPrecondition) {
			t.Errorf("NetNS of a stopped pod: %v, want ErrFailedPrecondition", err)
		}
	})
}

func TestNothingBeginsAfterClose(t *testing.T) {
	inBubble(t, func(t *testing.T, l *life) {
		if err := l.pods.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		if answer := l.do([]string{"run", "a"}); !strings.Contains(answer, "precondition") {
			t.Errorf("a run after Close answers %q", answer)
		}
	})
}

// Swap is what the limit on both leaves over: a new limit on memory is a new
// one on swap as well.
func TestUpdateOfMemoryKeepsTheLimitOnBoth(t *testing.T) {
	inBubble(t, func(t *testing.T, l *life) {
		l.do([]string{"run", "a"})
		cfg := containerConfig("web")
		cfg.Linux.Resources = &criapi.LinuxContainerResources{MemoryLimitInBytes: 100, MemorySwapLimitInBytes: 150, OomScoreAdj: 7}
		id, err := l.pods.Create(t.Context(), l.id("a"), cfg)
		if err != nil {
			t.Fatal(err)
		}
		c, err := l.pods.Container(id)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Update(t.Context(), &criapi.LinuxContainerResources{MemoryLimitInBytes: 120, OomScoreAdj: 9}); err != nil {
			t.Fatal(err)
		}
		if got := l.world.updates[id]; got.MemoryLimit != 120 || got.MemorySwapLimit != 150 {
			t.Errorf("the executor is asked for %+v, want 120 of memory and 150 of both", got)
		}
		if got := c.Status().Resources; got.MemorySwapLimitInBytes != 150 || got.OomScoreAdj != 7 {
			t.Errorf("the limits are %v; want 150 of both, and the score as it was", got)
		}
		err = c.Update(t.Context(), &criapi.LinuxContainerResources{MemoryLimitInBytes: 160})
		if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "memory_swap_limit_in_bytes") {
			t.Errorf("more memory than of both: %v", err)
		}
	})
}

// The kubelet gives each pod a range of its own; if it does not, somebody
// should know.
func TestUsersSharedByTwoPodsAreToldToTheLog(t *testing.T) {
	inBubble(t, func(t *testing.T, l *life) {
		l.end()
		var log bytes.Buffer
		o := l.options()
		o.Logger = slog.New(slog.NewTextHandler(&log, nil))
		var err error
		if l.pods, err = Open(t.Context(), o); err != nil {
			t.Fatal(err)
		}
		run := func(name string, host, length uint32) string {
			cfg := podConfig(name)
			ids := []*criapi.IDMapping{{HostId: host, Length: length}}
			cfg.Linux.SecurityContext.NamespaceOptions.UsernsOptions = &criapi.UserNamespace{Mode: criapi.NamespaceMode_POD, Uids: ids, Gids: ids}
			log.Reset()
			if _, err := l.pods.Run(t.Context(), cfg, ""); err != nil {
				t.Fatal(err)
			}
			return log.String()
		}
		if told := run("a", 65536, 65536); told != "" {
			t.Errorf("of the first pod: %s", told)
		}
		if told := run("b", 131072, 65536); told != "" {
			t.Errorf("of a range right behind: %s", told)
		}
		if told := run("c", 131071, 1); !strings.Contains(told, "test/c") || !strings.Contains(told, "test/a") || strings.Contains(told, "test/b") {
			t.Errorf("of a range in that of a: %q", told)
		}
		for _, s := range l.pods.Sandboxes() {
			if err := l.pods.Stop(t.Context(), s.ID); err != nil {
				t.Fatal(err)
			}
		}
		if told := run("d", 65536, 65536); strings.Contains(told, "two pods") {
			t.Errorf("of the range of a pod that is stopped: %s", told)
		}
	})
}

// In the node's network a program listens on the node's port itself.
func TestPodInTheNodesNetworkHasNoPortsToForward(t *testing.T) {
	inBubble(t, func(t *testing.T, l *life) {
		for _, name := range []string{"a", "b"} { // the same port is not ours to give
			cfg := podConfig(name)
			cfg.Linux.SecurityContext.NamespaceOptions.Network = criapi.NamespaceMode_NODE
			cfg.PortMappings = []*criapi.PortMapping{{ContainerPort: 80, HostPort: 80}}
			id, err := l.pods.Run(t.Context(), cfg, "")
			if err != nil {
				t.Fatal(err)
			}
			s, err := l.pods.Sandbox(id)
			if err != nil || len(s.Status().IPs) > 0 || len(l.world.connected) > 0 {
				t.Errorf("pod %s has addresses %v and the network %v, %v", name, s.Status().IPs, l.world.connected, err)
			}
		}
	})
}
