package node

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"cri-mini/internal/testregistry"
)

// TestWholeLifeOfAPod is what a kubelet does with a node, call after call.
func TestWholeLifeOfAPod(t *testing.T) {
	d := ready(t)
	secret := newRegistry(testregistry.Options{TLS: true, Username: "user", Password: "pass word", Token: true})
	t.Cleanup(secret.Close)
	secret.Push("team/tool", "1", busybox(t, testregistry.Files(map[string]string{"secret": "from the registry with a password"})))
	if err := secret.Trust(d.certs()); err != nil {
		t.Fatal(err)
	}
	// An image that any registry would have, from the mirror for all others.
	mirror := newRegistry(testregistry.Options{})
	t.Cleanup(mirror.Close)
	mirror.Push("library/tool", "2", busybox(t, testregistry.Files(map[string]string{"mirrored": "from the mirror"})))
	if err := mirror.Mirror(d.certs(), "_default"); err != nil {
		t.Fatal(err)
	}
	check := d.unchanged()

	tool := secret.Host() + "/team/tool:1"
	if err := d.tryPull(tool); status.Code(err) != codes.Unknown || !strings.Contains(err.Error(), "401") {
		t.Errorf("pull without password: %v, want the registry's 401", err)
	}
	pulled, err := d.images.PullImage(d.context(), &criapi.PullImageRequest{
		Image: &criapi.ImageSpec{Image: tool}, Auth: &criapi.AuthConfig{Username: "user", Password: "pass word"}})
	if err != nil {
		t.Fatal(err)
	}
	if text := readFile(t, d.log()); strings.Contains(text, "pass word") {
		t.Error("the log of the daemon holds the password")
	}
	mirrored := d.pull("example.com/library/tool:2")
	if mirror.Count("library/tool") == 0 {
		t.Error("the mirror was not asked")
	}
	if answer, err := d.images.ImageStatus(d.context(), &criapi.ImageStatusRequest{Image: &criapi.ImageSpec{Image: tool}}); err != nil || answer.Image.GetId() != pulled.ImageRef {
		t.Errorf("status of the image: %v, %v", answer, err)
	}

	p := d.runPod("life", func(c *criapi.PodSandboxConfig) {
		c.Hostname = "the-life"
		c.DnsConfig = &criapi.DNSConfig{Servers: []string{"10.9.9.9"}, Searches: []string{"life.test"}}
	})
	if podAddress(t, p) == "" {
		t.Error("the pod has no address")
	}
	config := containerConfig("tool", "sh", "-c", "cat /secret; echo; echo trouble >&2; while read line; do echo got $line; done; exit 5")
	config.Image.Image, config.Stdin = tool, true
	config.Envs = []*criapi.KeyValue{{Key: "COLOUR", Value: []byte("blue")}}
	c := p.create(config)
	if s := c.status(); s.State != criapi.ContainerState_CONTAINER_CREATED {
		t.Errorf("created container: %s", s.State)
	}
	c.start()

	t.Run("exec", func(t *testing.T) { d.enter(t); c.liveExec(t) })
	t.Run("logs", func(t *testing.T) {
		d.enter(t)
		eventually(t, "both lines are in the log", func() bool { return len(readLog(t, c.log)) == 2 })
		text := readFile(t, c.log)
		for _, line := range []string{" stdout F from the registry with a password\n", " stderr F trouble\n"} {
			if !strings.Contains(text, line) {
				t.Errorf("log %q lacks %q", text, line)
			}
		}
	})
	t.Run("port forward", func(t *testing.T) {
		d.enter(t)
		server := p.run(containerConfig("server", "sh", "-c", "echo knock knock >/tmp/index.html; exec httpd -f -p 8080 -h /tmp"))
		eventually(t, "the server listens", func() bool {
			return strings.Contains(server.exec("cat", "/proc/net/tcp", "/proc/net/tcp6"), ":1F90")
		})
		f, data := p.forward(8080)
		fmt.Fprint(data, "GET /index.html HTTP/1.0\r\n\r\n")
		if got := readAll(t, data); !strings.HasSuffix(got, "knock knock\n") {
			t.Errorf("through the forwarded port came %q", got)
		}
		f.close()
		server.stop(0)
		server.remove()
	})
	t.Run("stats", func(t *testing.T) {
		d.enter(t)
		answer, err := d.ContainerStats(d.context(), &criapi.ContainerStatsRequest{ContainerId: c.id})
		if err != nil {
			t.Fatal(err)
		}
		if answer.Stats.GetCpu().GetUsageCoreNanoSeconds().GetValue() == 0 || answer.Stats.GetAttributes().GetId() != c.id {
			t.Errorf("stats %v", answer.Stats)
		}
		list, err := d.ListContainerStats(d.context(), &criapi.ListContainerStatsRequest{})
		if err != nil || len(list.Stats) != 1 {
			t.Errorf("list of stats: %v, %v; want one", list, err)
		}
	})
	t.Run("attach", func(t *testing.T) { // ends the program: its input ends
		d.enter(t)
		a, streams := c.attach(false)
		defer a.close()
		fmt.Fprintln(streams[0], "words")
		readUntil(t, streams[1], "got words\n")
		list, err := d.ListContainers(d.context(), &criapi.ListContainersRequest{})
		if err != nil || len(list.Containers) != 1 || list.Containers[0].ImageId != pulled.ImageRef {
			t.Errorf("list of containers: %v, %v", list, err)
		}
	})

	other := containerConfig("mirrored", "cat", "/mirrored")
	other.Image.Image = "example.com/library/tool:2"
	m := p.run(other)
	if s := m.exited(); s.ExitCode != 0 || s.Reason != "Completed" || s.ImageId != mirrored {
		t.Errorf("mirrored: %v", s)
	}

	c.stop(1) // a shell that reads ignores SIGTERM as PID 1
	if s := c.exited(); s.ExitCode != 137 {
		t.Errorf("stopped container: exit code %d", s.ExitCode)
	}
	if _, err := d.StopPodSandbox(d.context(), &criapi.StopPodSandboxRequest{PodSandboxId: p.id}); err != nil {
		t.Error(err)
	}
	c.remove()
	p.remove() // with the other container in it
	for _, name := range []string{tool, "example.com/library/tool:2"} {
		if _, err := d.images.RemoveImage(d.context(), &criapi.RemoveImageRequest{Image: &criapi.ImageSpec{Image: name}}); err != nil {
			t.Error(err)
		}
	}
	check()
}

// liveExec is exec in its three forms.
func (c *container) liveExec(t *testing.T) {
	t.Helper()
	if got := c.exec("sh", "-c", "echo $COLOUR; hostname 2>/dev/null || cat /proc/sys/kernel/hostname; cat /etc/resolv.conf"); !strings.HasPrefix(got, "blue\nthe-life\n") ||
		!strings.Contains(got, "nameserver 10.9.9.9") || !strings.Contains(got, "search life.test") {
		t.Errorf("exec: %q", got)
	}
	failed, err := c.d.ExecSync(c.d.context(), &criapi.ExecSyncRequest{ContainerId: c.id, Cmd: []string{"sh", "-c", "echo out; echo err >&2; exit 3"}})
	if err != nil || failed.ExitCode != 3 || string(failed.Stdout) != "out\n" || string(failed.Stderr) != "err\n" {
		t.Errorf("exec: %v, %v", failed, err)
	}
	x, streams := c.interactive(false, []string{"stdin", "stdout", "stderr"}, "sh", "-c", "cat; echo problem >&2; exit 4")
	fmt.Fprint(streams[0], "through the pipes")
	streams[0].Close()
	if out, errs := readAll(t, streams[1]), readAll(t, streams[2]); out != "through the pipes" || errs != "problem\n" {
		t.Errorf("streamed exec: stdout %q, stderr %q", out, errs)
	}
	if end := readAll(t, x.end); !strings.Contains(end, `"ExitCode"`) || !strings.Contains(end, `"4"`) {
		t.Errorf("streamed exec ended with %q, want exit code 4", end)
	}
	x.close()

	x, streams = c.interactive(true, []string{"stdin", "stdout"}, "sh")
	resize := x.stream("streamType", "resize")
	fmt.Fprint(resize, `{"Width":123,"Height":45}`)
	eventually(t, "the terminal has its size", func() bool {
		fmt.Fprint(streams[0], "stty size; echo done\n")
		return strings.Contains(readUntil(t, streams[1], "\ndone\r\n"), "45 123")
	})
	fmt.Fprint(streams[0], "exit 6\n")
	if end := readAll(t, x.end); !strings.Contains(end, `"6"`) {
		t.Errorf("exec on a terminal ended with %q, want exit code 6", end)
	}
	x.close()
}

func TestInstancesLiveSideBySide(t *testing.T) {
	a := ready(t)
	check := a.unchanged()
	twin := func(d *daemon, port int32) (*pod, *container) { // the same names on both
		p := d.runPod("twin", func(c *criapi.PodSandboxConfig) {
			c.PortMappings = []*criapi.PortMapping{{ContainerPort: 80, HostPort: port}}
		})
		return p, p.run(containerConfig("c", "sleep", "1000"))
	}
	p, c := twin(a, 7000)
	pid := c.pid()

	t.Run("another", func(t *testing.T) {
		b := ready(t)
		q, _ := twin(b, 7001)
		if x, y := podAddress(t, p), podAddress(t, q); x == y || x == "" {
			t.Errorf("addresses %q and %q", x, y)
		}
		b.stopAll() // with its pod
		if _, err := os.Stat(filepath.Join(b.state, "state")); err == nil {
			t.Error("the state of the instance that was stopped is still there")
		}
	})
	if s := c.status(); s.State != criapi.ContainerState_CONTAINER_RUNNING || !alive(pid) || c.pid() != pid {
		t.Errorf("the other's container: %s, process alive: %v", s.State, alive(pid))
	}
	if got := c.exec("cat", "/etc/motd"); got != "hello" {
		t.Errorf("exec on the other: %q", got)
	}
	a.restart()
	if podAddress(t, p) == "" || c.pid() != pid {
		t.Error("the other's pod did not survive a restart")
	}
	p.remove()
	check()
}
