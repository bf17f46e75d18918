package node

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"cri-mini/internal/enclosure"
)

func TestUnknownIdsAreNotFoundExceptWhereGoneMeansDone(t *testing.T) {
	d := ready(t)
	check := d.unchanged()
	const id = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	for name, c := range map[string]struct {
		code codes.Code
		do   func(context.Context) error
	}{
		"StopPodSandbox": {codes.OK, func(ctx context.Context) error {
			_, err := d.StopPodSandbox(ctx, &criapi.StopPodSandboxRequest{PodSandboxId: id})
			return err
		}},
		"RemovePodSandbox": {codes.OK, func(ctx context.Context) error {
			_, err := d.RemovePodSandbox(ctx, &criapi.RemovePodSandboxRequest{PodSandboxId: id})
			return err
		}},
		"StopContainer": {codes.OK, func(ctx context.Context) error {
			_, err := d.StopContainer(ctx, &criapi.StopContainerRequest{ContainerId: id})
			return err
		}},
		"RemoveContainer": {codes.OK, func(ctx context.Context) error {
			_, err := d.RemoveContainer(ctx, &criapi.RemoveContainerRequest{ContainerId: id})
			return err
		}},
		"RemoveImage": {codes.OK, func(ctx context.Context) error {
			_, err := d.images.RemoveImage(ctx, &criapi.RemoveImageRequest{Image: &criapi.ImageSpec{Image: "sha256:" + id}})
			return err
		}},
		"ImageStatus": {codes.OK, func(ctx context.Context) error {
			answer, err := d.images.ImageStatus(ctx, &criapi.ImageStatusRequest{Image: &criapi.ImageSpec{Image: "registry.test/none:1"}})
			if err == nil && answer.Image != nil {
				t.Errorf("image %v", answer.Image)
			}
			return err
		}},
		"ImageStatus of what is no reference": {codes.OK, func(ctx context.Context) error {
			answer, err := d.images.ImageStatus(ctx, &criapi.ImageStatusRequest{Image: &criapi.ImageSpec{Image: "UPPER/x"}})
			if err == nil && answer.Image != nil {
				t.Errorf("image %v", answer.Image)
			}
			return err
		}},
		"PodSandboxStatus": {codes.NotFound, func(ctx context.Context) error {
			_, err := d.PodSandboxStatus(ctx, &criapi.PodSandboxStatusRequest{PodSandboxId: id})
			return err
		}},
		"CreateContainer": {codes.NotFound, func(ctx context.Context) error {
			_, err := d.CreateContainer(ctx, &criapi.CreateContainerRequest{PodSandboxId: id, Config: containerConfig("c", "true"), SandboxConfig: d.podConfig("p")})
			return err
		}},
		"StartContainer": {codes.NotFound, func(ctx context.Context) error {
			_, err := d.StartContainer(ctx, &criapi.StartContainerRequest{ContainerId: id})
			return err
		}},
		"ContainerStatus": {codes.NotFound, func(ctx context.Context) error {
			_, err := d.ContainerStatus(ctx, &criapi.ContainerStatusRequest{ContainerId: id})
			return err
		}},
		"UpdateContainerResources": {codes.NotFound, func(ctx context.Context) error {
			_, err := d.UpdateContainerResources(ctx, &criapi.UpdateContainerResourcesRequest{ContainerId: id, Linux: &criapi.LinuxContainerResources{}})
			return err
		}},
		"ReopenContainerLog": {codes.NotFound, func(ctx context.Context) error {
			_, err := d.ReopenContainerLog(ctx, &criapi.ReopenContainerLogRequest{ContainerId: id})
			return err
		}},
		"ExecSync": {codes.NotFound, func(ctx context.Context) error {
			_, err := d.ExecSync(ctx, &criapi.ExecSyncRequest{ContainerId: id, Cmd: []string{"true"}})
			return err
		}},
		"Exec": {codes.NotFound, func(ctx context.Context) error {
			_, err := d.Exec(ctx, &criapi.ExecRequest{ContainerId: id, Cmd: []string{"true"}, Stdout: true})
			return err
		}},
		"Attach": {codes.NotFound, func(ctx context.Context) error {
			_, err := d.Attach(ctx, &criapi.AttachRequest{ContainerId: id, Stdout: true})
			return err
		}},
		"PortForward": {codes.NotFound, func(ctx context.Context) error {
			_, err := d.PortForward(ctx, &criapi.PortForwardRequest{PodSandboxId: id})
			return err
		}},
		"PodSandboxStats": {codes.NotFound, func(ctx context.Context) error {
			_, err := d.PodSandboxStats(ctx, &criapi.PodSandboxStatsRequest{PodSandboxId: id})
			return err
		}},
		"PodSandboxStats of no id": {codes.NotFound, func(ctx context.Context) error {
			_, err := d.PodSandboxStats(ctx, &criapi.PodSandboxStatsRequest{})
			return err
		}},
		"ContainerStats": {codes.NotFound, func(ctx context.Context) error {
			_, err := d.ContainerStats(ctx, &criapi.ContainerStatsRequest{ContainerId: id})
			return err
		}},
	} {
		t.Run(name, func(t *testing.T) {
			err := c.do(d.context())
			if status.Code(err) != c.code {
				t.Errorf("code %s, want %s: %v", status.Code(err), c.code, err)
			}
			if err != nil && !strings.Contains(err.Error(), id) && !strings.Contains(err.Error(), `pod ""`) {
				t.Errorf("the error does not say the id: %v", err)
			}
		})
	}
	if answer, err := d.ListContainers(d.context(), &criapi.ListContainersRequest{Filter: &criapi.ContainerFilter{Id: id}}); err != nil || len(answer.Containers) > 0 {
		t.Errorf("list of an unknown id: %v, %v; want none", answer, err)
	}
	check()
}

func TestDaemonRefusesBadConfigurationAndLeavesNothing(t *testing.T) {
	d := ready(t)
	eventually(t, "the image is on disk", d.synced)
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good := "root = \"" + dir + "/root\"\nstate = \"" + dir + "/state\"\nlisten = \"unix://" + dir + "/cri.sock\"\n"
	occupied := write("occupied", "")
	for name, c := range map[string]struct {
		args []string
		says []string
	}{
		"unknown key":         {[]string{"serve", "--config", write("key.toml", good+"\nspeed = 9\n")}, []string{"key.toml:5", "speed"}},
		"wrong type":          {[]string{"serve", "--config", write("type.toml", good+"network = 9\n")}, []string{"type.toml:4", "network"}},
		"broken file":         {[]string{"serve", "--config", write("broken.toml", good+"network = \n")}, []string{"broken.toml:4"}},
		"missing file":        {[]string{"serve", "--config", dir + "/none.toml"}, []string{dir + "/none.toml"}},
		"unknown flag":        {[]string{"serve", "--speed=9"}, []string{"--speed"}},
		"unknown network":     {[]string{"serve", "--config", write("ok.toml", good), "--network", "carrier-pigeon"}, []string{"network", "carrier-pigeon"}},
		"relative root":       {[]string{"serve", "--config", write("ok.toml", good), "--root", "here"}, []string{"root", "here"}},
		"TCP socket":          {[]string{"serve", "--config", write("ok.toml", good), "--listen", "tcp://127.0.0.1:1"}, []string{"listen", "tcp://127.0.0.1:1"}},
		"pod range":           {[]string{"serve", "--config", write("ok.toml", good), "--pod-cidr", "10.0.0.0/99"}, []string{"pod-cidr", "10.0.0.0/99"}},
		"file in the way":     {[]string{"serve", "--config", write("ok.toml", good), "--listen", "unix://" + occupied}, []string{occupied}},
		"root of another":     {[]string{"serve", "--config", write("ok.toml", good), "--root", d.root()}, []string{d.root()}},
		"socket of another":   {[]string{"serve", "--config", write("ok.toml", good), "--listen", d.endpoint()}, []string{strings.TrimPrefix(d.endpoint(), "unix://")}},
		"port of the streams": {[]string{"serve", "--config", write("ok.toml", good), "--stream-address", registry(t).Host()}, []string{registry(t).Host()}},
	} {
		t.Run(name, func(t *testing.T) {
			before := count(t, d)
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			out, err := exec.CommandContext(ctx, enclosure.Program("cri-mini"), c.args...).CombinedOutput()
			exit, ok := err.(*exec.ExitError)
			if !ok || exit.ExitCode() != 1 {
				t.Errorf("%q: %v, want exit code 1\n%s", c.args, err, out)
			}
			for _, word := range c.says {
				if !strings.Contains(string(out), word) {
					t.Errorf("%q does not say %q", out, word)
				}
			}
			before.compare(t, "after the refusal", func() census { return count(t, d) })
		})
	}
	d.wholeLife("after")
}

func TestNetworkOfPluginsWithoutPluginsRefusesPods(t *testing.T) {
	d := start(t, "--network", "cni")
	d.pull(shell)
	notReady := func(t *testing.T, says ...string) {
		t.Helper()
		var message string
		eventually(t, "the network says what is missing: "+says[0], func() bool {
			answer, err := d.Status(d.context(), &criapi.StatusRequest{})
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range answer.Status.Conditions {
				if c.Type == criapi.NetworkReady {
					message = c.Message
					return !c.Status && strings.Contains(c.Message, says[0])
				}
			}
			return false
		})
		_, err := d.RunPodSandbox(d.context(), &criapi.RunPodSandboxRequest{Config: d.podConfig("p")})
		if err == nil {
			t.Fatal("the pod runs")
		}
		for _, word := range says {
			if !strings.Contains(err.Error(), word) {
				t.Errorf("the error does not say %q: %v (status: %s)", word, err, message)
			}
		}
	}
	before := count(t, d)
	t.Run("no conflist", func(t *testing.T) { notReady(t, d.conflists()) })
	before.compare(t, "after the refusal", func() census { return count(t, d) })
	list := filepath.Join(d.conflists(), "10-none.conflist")
	if err := os.WriteFile(list, []byte(`{"cniVersion":"1.0.0","name":"none","plugins":[{"type":"no-such-plugin"}]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Run("no plugin", func(t *testing.T) { notReady(t, "no-such-plugin") })
	before.compare(t, "after the refusal", func() census { return count(t, d) })
	// A pod in the network of the node needs none.
	p := d.runPod("host", func(c *criapi.PodSandboxConfig) {
		c.Linux.SecurityContext.NamespaceOptions.Network = criapi.NamespaceMode_NODE
	})
	p.remove()
}
