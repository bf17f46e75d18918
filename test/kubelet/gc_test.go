package kubelet

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"cri-mini/internal/enclosure"
)

// cri asks the daemon itself: of what is left the kubelet does not tell.
func (n *node) cri(ask func(context.Context, *grpc.ClientConn) error) error {
	connection, err := grpc.NewClient(n.Endpoint(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer connection.Close()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return ask(ctx, connection)
}

// images are the names of all images.
func (n *node) images() (names []string, err error) {
	err = n.cri(func(ctx context.Context, c *grpc.ClientConn) error {
		list, err := criapi.NewImageServiceClient(c).ListImages(ctx, &criapi.ListImagesRequest{})
		for _, image := range list.GetImages() {
			names = append(names, image.RepoTags...)
		}
		return err
	})
	return names, err
}

// known are the pods and containers that the daemon has of a static pod.
func (n *node) known(pod string) ([]string, error) { return n.knownAs(pod + "-node") }

// knownAs are the pods and containers that the daemon has of a pod, in whatever state.
func (n *node) knownAs(pod string) (names []string, err error) {
	err = n.cri(func(ctx context.Context, c *grpc.ClientConn) error {
		runtime := criapi.NewRuntimeServiceClient(c)
		pods, err := runtime.ListPodSandbox(ctx, &criapi.ListPodSandboxRequest{})
		if err != nil {
			return err
		}
		for _, p := range pods.Items {
			if p.Metadata.Name == pod {
				names = append(names, fmt.Sprint("pod ", p.State))
			}
		}
		containers, err := runtime.ListContainers(ctx, &criapi.ListContainersRequest{})
		for _, one := range containers.GetContainers() {
			if one.Labels["io.kubernetes.pod.name"] == pod {
				names = append(names, fmt.Sprint("container ", one.Metadata.Name, " ", one.Metadata.Attempt, " ", one.State))
			}
		}
		return err
	})
	return names, err
}

// TestKubeletCollectsDeadContainersAndUnusedImages runs on a disk that is never
// free enough. The kubelet looks for what it can do without, and finds no pod:
// static ones it does not evict.
func TestKubeletCollectsDeadContainersAndUnusedImages(t *testing.T) {
	n := startWith(t, func(n *node) { n.Reserve = "99.99%" })
	n.add("plain")
	n.add("always")
	n.add("once")
	n.ready("plain")
	n.until("once", "succeeded", func(p *pod) bool { return p.Status.Phase == "Succeeded" })
	n.until("always", "restarted", func(p *pod) bool {
		c, err := p.container("main")
		return err == nil && c.RestartCount >= 2
	})
	n.eventually("of a container that starts again and again only one dead one is kept", func() error {
		names, err := n.known("always")
		if err == nil && len(names) > 3 { // with the pod, and one that may run
			err = fmt.Errorf("%q", names)
		}
		return err
	})
	if _, err := n.pod("once"); err != nil {
		t.Errorf("a pod that has ended and that nobody removed: %v", err)
	}
	n.remove("once")
	n.remove("always")
	for _, name := range []string{"once", "always"} {
		n.eventually("nothing is left of "+name, func() error {
			names, err := n.known(name)
			if err == nil && len(names) > 0 {
				err = fmt.Errorf("%q", names)
			}
			return err
		})
	}
	n.eventually("the image that nobody uses is gone", func() error {
		names, err := n.images()
		if err == nil && strings.Contains(strings.Join(names, " "), "registry.test/once:1") {
			err = fmt.Errorf("%q", names)
		}
		return err
	})
	if names, err := n.images(); err != nil || !strings.Contains(strings.Join(names, " "), "registry.test/busybox:1") {
		t.Errorf("images %q, %v: want the one in use", names, err)
	}
	if got := n.run("plain", "main", "cat", "/tmp/www/index.html"); got != "hello\n" {
		t.Errorf("the pod that stays says %q", got)
	}
	n.remove("plain")
}

var identifier = regexp.MustCompile(`^(cri-mini-)?[0-9a-f]{64}(\.scope)?$`)

// remains is what there still is of pods, wherever it might be.
func (n *node) remains() []string {
	n.t.Helper()
	var found []string
	for _, pattern := range []string{"root/pods/*", "root/containers/*", "root/network/pods/*", "run/state/exits/*", "run/state/tasks/*"} {
		paths, err := filepath.Glob(filepath.Join(n.dir, pattern))
		if err != nil {
			n.t.Fatal(err)
		}
		found = append(found, paths...)
	}
	ports, err := filepath.Glob("/sys/class/net/*/brport")
	if err != nil {
		n.t.Fatal(err)
	}
	found = append(found, ports...)
	err = filepath.WalkDir(enclosure.CgroupRoot, func(path string, entry os.DirEntry, err error) error {
		if err == nil && identifier.MatchString(entry.Name()) {
			found = append(found, path)
		}
		return nil // the kubelet removes groups meanwhile
	})
	if err != nil {
		n.t.Fatal(err)
	}
	for _, path := range n.strayMounts(fmt.Sprint(n.daemon.cmd.Process.Pid)) {
		found = append(found, "mount "+path)
	}
	return found
}

// TestHundredAndTenPodsRunAndGo is as many as a kubelet takes by default.
func TestHundredAndTenPodsRunAndGo(t *testing.T) {
	const pods, within = 110, 10 * time.Minute // on a machine that is emulated
	n := start(t)
	begin := time.Now()
	for i := range pods {
		n.writeWith("pods/crowd.yaml", fmt.Sprintf("%s/crowd%d.yaml", n.Manifests(), i), map[string]int{"Index": i})
	}
	n.within(within, "all pods run", func() error {
		running, err := n.running("crowd")
		if err == nil && running != pods {
			err = fmt.Errorf("%d run", running)
		}
		return err
	})
	t.Logf("%d pods run after %s", pods, time.Since(begin).Round(time.Second/10))
	begin = time.Now()
	for i := range pods {
		if err := os.Remove(fmt.Sprintf("%s/crowd%d.yaml", n.Manifests(), i)); err != nil {
			t.Fatal(err)
		}
	}
	n.within(within, "nothing is left", func() error {
		if left := n.remains(); len(left) > 0 {
			return fmt.Errorf("%d things, such as %s", len(left), left[0])
		}
		return nil
	})
	t.Logf("nothing is left of them after %s", time.Since(begin).Round(time.Second/10))
}
