package node

import (
	"context"
	"math/rand"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"cri-mini/internal/testregistry"
)

// slowPlugin connects pods, except while the file "hang" is beside it.
const slowPlugin = `#!/bin/sh
d=$(dirname "$0")
cat >/dev/null
case "$CNI_COMMAND" in
VERSION) echo '{"cniVersion":"1.0.0","supportedVersions":["0.4.0","1.0.0"]}' ;;
ADD)
	if [ -e "$d/hang" ]; then echo $$ >"$d/pid.new"; mv "$d/pid.new" "$d/pid"; exec sleep 1000; fi
	echo '{"cniVersion":"1.0.0","interfaces":[{"name":"eth0","sandbox":"'$CNI_NETNS'"}],"ips":[{"address":"10.9.8.7/24","interface":0}]}' ;;
DEL) echo "$CNI_CONTAINERID" >>"$d/deleted" ;;
esac
`

// slowNetwork is a node whose network is that plugin.
type slowNetwork struct {
	*daemon
	bin string
}

func startSlow(t *testing.T, flags ...string) *slowNetwork {
	t.Helper()
	d := start(t, append(flags, "--network", "cni")...)
	n := &slowNetwork{d, filepath.Join(d.dir, "cni-bin")}
	if err := os.MkdirAll(n.bin, 0o755); err != nil {
		t.Fatal(err)
	}
	list := `{"cniVersion":"1.0.0","name":"slow","plugins":[{"type":"slow"}]}`
	for path, text := range map[string]string{filepath.Join(n.bin, "slow"): slowPlugin, filepath.Join(d.conflists(), "10-slow.conflist"): list} {
		if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	d.pull(shell)
	eventually(t, "the network is ready", func() bool {
		answer, err := d.Status(d.context(), &criapi.StatusRequest{})
		return err == nil && answer.Status.Conditions[1].Status
	})
	n.wholeLife("before") // the first pod makes folders that stay
	return n
}

func (n *slowNetwork) slow(on bool) {
	n.t.Helper()
	var err error
	if on {
		os.Remove(filepath.Join(n.bin, "pid"))
		err = os.WriteFile(filepath.Join(n.bin, "hang"), nil, 0o600)
	} else {
		err = os.Remove(filepath.Join(n.bin, "hang"))
	}
	if err != nil {
		n.t.Fatal(err)
	}
}

// plugin waits for the one that hangs.
func (n *slowNetwork) plugin() (pid int) {
	n.t.Helper()
	eventually(n.t, "the plugin is at work", func() bool {
		text, _ := os.ReadFile(filepath.Join(n.bin, "pid"))
		pid, _ = strconv.Atoi(strings.TrimSpace(string(text)))
		return pid != 0
	})
	return pid
}

func (n *slowNetwork) runSlow(ctx context.Context, change func(*criapi.PodSandboxConfig)) (string, error) {
	config := n.podConfig("p")
	if change != nil {
		change(config)
	}
	answer, err := n.RunPodSandbox(ctx, &criapi.RunPodSandboxRequest{Config: config})
	return answer.GetPodSandboxId(), err
}

func says(t *testing.T, err error, code codes.Code, words ...string) {
	t.Helper()
	if status.Code(err) != code {
		t.Errorf("code %s, want %s: %v", status.Code(err), code, err)
	}
	for _, word := range words {
		if err != nil && !strings.Contains(err.Error(), word) {
			t.Errorf("the error does not say %q: %v", word, err)
		}
	}
}

func TestRunPodSandboxThatIsGivenUpStopsItsPluginAndFreesItsName(t *testing.T) {
	n := startSlow(t)
	before := count(t, n.daemon)
	n.slow(true)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	first := make(chan error, 1)
	go func() {
		_, err := n.runSlow(ctx, nil)
		first <- err
	}()
	plugin := n.plugin()
	_, err := n.runSlow(n.context(), func(c *criapi.PodSandboxConfig) { c.Hostname = "other" })
	says(t, err, codes.Unavailable, "run pod default/p", "setting up the network for ", "another config")
	// The caller hears it although it was he who set the limit.
	says(t, <-first, codes.DeadlineExceeded, "run pod default/p", "setting up the network for ")
	eventually(t, "the plugin ends", func() bool { return !alive(plugin) })
	if text := readFile(t, filepath.Join(n.bin, "deleted")); len(strings.Fields(text)) == 0 {
		t.Error("the plugin was not asked to take back what it did")
	}
	n.slow(false)
	began := time.Now()
	id, err := n.runSlow(n.context(), nil)
	if err != nil {
		t.Fatalf("the same pod again: %v", err)
	}
	t.Logf("the retry took %s", time.Since(began))
	(&pod{n.daemon, id, nil}).remove()
	before.compare(t, "afterwards", func() census { return count(t, n.daemon) })
}

func TestRunPodSandboxOfAKilledDaemonReservesNothing(t *testing.T) {
	n := startSlow(t)
	before := count(t, n.daemon)
	n.slow(true)
	go n.runSlow(context.Background(), nil)
	plugin := n.plugin()
	n.kill()
	eventually(t, "the plugin ends with its daemon", func() bool { return !alive(plugin) })
	n.slow(false)
	n.serve()
	eventually(t, "the network is ready again", func() bool {
		answer, err := n.Status(n.context(), &criapi.StatusRequest{})
		return err == nil && answer.Status.Conditions[1].Status
	})
	id, err := n.runSlow(n.context(), nil)
	if err != nil {
		t.Fatalf("the same pod again: %v", err)
	}
	(&pod{n.daemon, id, nil}).remove()
	n.wholeLife("after")
	before.compare(t, "afterwards", func() census { return count(t, n.daemon) })
}

// slowImage is an image whose second layer comes slowly.
func slowImage(t *testing.T) (r *testregistry.Registry, name, layer string) {
	t.Helper()
	r = newRegistry(testregistry.Options{})
	t.Cleanup(r.Close)
	noise := make([]byte, 256<<10)
	rand.New(rand.NewSource(1)).Read(noise)
	pushed := r.Push("slow", "1", busybox(t, testregistry.Layer{Files: []testregistry.File{{Name: "noise", Data: string(noise)}}}))
	r.Fault(testregistry.Fault{Path: pushed.Layers[1].String(), Trickle: time.Millisecond})
	return r, r.Host() + "/slow:1", pushed.Layers[1].String()
}

func (d *daemon) pullWith(ctx context.Context, name string) error {
	_, err := d.images.PullImage(ctx, &criapi.PullImageRequest{Image: &criapi.ImageSpec{Image: name}})
	return err
}

func TestPullThatIsGivenUpStopsItsDownload(t *testing.T) {
	d := ready(t)
	check := d.unchanged()
	r, name, layer := slowImage(t)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	says(t, d.pullWith(ctx, name), codes.DeadlineExceeded, name, "downloading for ", "1 of 2 layers")
	eventually(t, "nothing is sent any more", func() bool {
		sent := r.Sent()
		time.Sleep(200 * time.Millisecond)
		return r.Sent() == sent
	})
	if n := r.Count(layer); n != 1 {
		t.Errorf("the layer was asked for %d times, want once", n)
	}
	if list, err := d.images.ListImages(d.context(), &criapi.ListImagesRequest{}); err != nil || len(list.Images) != 1 {
		t.Errorf("images after the pull: %v, %v; want one", list, err)
	}
	r.ClearFaults()
	d.pull(name)
	d.removeImage(name)
	check()
}

func TestRetryOfAPullJoinsItsDownload(t *testing.T) {
	d := ready(t)
	check := d.unchanged()
	r, name, layer := slowImage(t)
	ctx, cancel := context.WithCancel(t.Context())
	first, second := make(chan error, 1), make(chan error, 1)
	go func() { first <- d.pullWith(ctx, name) }()
	eventually(t, "the layer comes", func() bool { return r.Count(layer) == 1 })
	asked := len(r.Requests())
	go func() { second <- d.pullWith(d.context(), name) }()
	eventually(t, "the retry has looked at the manifest", func() bool { return len(r.Requests()) > asked })
	time.Sleep(200 * time.Millisecond)
	r.ClearFaults() // for later requests; this one goes on as it is
	cancel()
	says(t, <-first, codes.Canceled)
	select {
	case err := <-second:
		t.Errorf("the retry ended with the first call: %v", err)
	case <-time.After(time.Second):
	}
	if n := r.Count(layer); n != 1 {
		t.Errorf("the layer was asked for %d times, want once", n)
	}
	// A daemon that is killed in the middle leaves nothing of it.
	d.kill()
	<-second
	d.serve()
	d.pull(name)
	d.removeImage(name)
	check()
}

// What a container's life is made of, given up in the middle and tried again.
func TestStopThatIsGivenUpSaysWhatItWaitsForAndIsJoinedByItsRetry(t *testing.T) {
	d := ready(t)
	check := d.unchanged()
	p := d.runPod("p")
	c := p.run(containerConfig("deaf", "sleep", "1000"))
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	_, err := d.StopContainer(ctx, &criapi.StopContainerRequest{ContainerId: c.id, Timeout: 30})
	says(t, err, codes.DeadlineExceeded, "stop container "+c.id, "waiting up to 30s for its end after the stop signal for ")
	if s := c.status(); s.State != criapi.ContainerState_CONTAINER_RUNNING {
		t.Errorf("after the stop that was given up: %s", s.State)
	}
	long := make(chan error, 1)
	go func() {
		_, err := d.StopContainer(d.context(), &criapi.StopContainerRequest{ContainerId: c.id, Timeout: 30})
		long <- err
	}()
	time.Sleep(200 * time.Millisecond)
	c.stop(0) // ends the long one as well
	select {
	case err := <-long:
		if err != nil {
			t.Errorf("the long stop: %v", err)
		}
	case <-time.After(patience):
		t.Error("the long stop goes on although the container has ended")
	}
	if s := c.exited(); s.ExitCode != 137 {
		t.Errorf("exit code %d, want 137", s.ExitCode)
	}
	p.remove()
	check()
}
