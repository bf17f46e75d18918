package cri

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func TestKubeletFindsWhatItAsksForAtItsStart(t *testing.T) {
	w := newWorld(t)
	v, err := w.Version(t.Context(), &criapi.VersionRequest{Version: "0.1.0"})
	if err != nil || v.Version != "0.1.0" || v.RuntimeName != "cri-mini" || v.RuntimeVersion != "1.2.3" || v.RuntimeApiVersion != "v1" {
		t.Errorf("Version: %v, %v", v, err)
	}
	c, err := w.RuntimeConfig(t.Context(), &criapi.RuntimeConfigRequest{})
	if err != nil || c.Linux == nil || c.Linux.CgroupDriver != criapi.CgroupDriver_CGROUPFS {
		t.Errorf("RuntimeConfig: %v, %v", c, err)
	}
	w.kernel.down = errors.New("no bridge")
	s, err := w.Status(t.Context(), &criapi.StatusRequest{Verbose: true})
	if err != nil {
		t.Fatal(err)
	}
	conditions := map[string]*criapi.RuntimeCondition{}
	for _, one := range s.Status.Conditions {
		conditions[one.Type] = one
	}
	if !conditions["RuntimeReady"].Status || conditions["NetworkReady"].Status || conditions["NetworkReady"].Message != "no bridge" ||
		conditions["NetworkReady"].Reason != "NetworkNotReady" {
		t.Errorf("conditions: %v", s.Status.Conditions)
	}
	if len(s.RuntimeHandlers) != 1 || s.Features == nil {
		t.Errorf("handlers %v, features %v", s.RuntimeHandlers, s.Features)
	}
	objects(t, s.Info)
	if !strings.Contains(s.Info["config"], `"stateDir"`) {
		t.Errorf("config %s has no stateDir", s.Info["config"])
	}
	if _, err := w.UpdateRuntimeConfig(t.Context(), &criapi.UpdateRuntimeConfigRequest{RuntimeConfig: &criapi.RuntimeConfig{
		NetworkConfig: &criapi.NetworkConfig{PodCidr: "10.7.0.0/24"}}}); err != nil || w.kernel.cidr != "10.7.0.0/24" {
		t.Errorf("pod CIDR %q, %v", w.kernel.cidr, err)
	}
}

// objects checks what crictl insists on.
func objects(t *testing.T, info map[string]string) {
	t.Helper()
	if len(info) == 0 {
		t.Error("no verbose info")
	}
	for key, value := range info {
		var object map[string]any
		if err := json.Unmarshal([]byte(value), &object); err != nil {
			t.Errorf("info %s is no JSON object: %v: %s", key, err, value)
		}
	}
}

func TestPodAndContainerLiveAndAreListed(t *testing.T) {
	w := newWorld(t)
	pod, other := w.pod(t, "a", nil), w.pod(t, "b", nil)
	made, runs := w.container(t, pod, "made", false), w.container(t, pod, "runs", true)

	p, err := w.PodSandboxStatus(t.Context(), &criapi.PodSandboxStatusRequest{PodSandboxId: pod, Verbose: true})
	if err != nil {
		t.Fatal(err)
	}
	if p.Status.Network.Ip != "10.1.2.3" || p.Status.Network.AdditionalIps[0].Ip != "fd00::3" || p.Status.CreatedAt == 0 || p.Status.Linux.Namespaces.Options == nil {
		t.Errorf("pod status %v", p.Status)
	}
	objects(t, p.Info)
	c, err := w.ContainerStatus(t.Context(), &criapi.ContainerStatusRequest{ContainerId: runs, Verbose: true})
	if err != nil {
		t.Fatal(err)
	}
	s := c.Status
	if s.State != criapi.ContainerState_CONTAINER_RUNNING || s.StartedAt == 0 || s.FinishedAt != 0 || s.ImageId == "" || s.ImageRef == "" || s.User.Linux.Uid != 7 || s.StopSignal == 0 {
		t.Errorf("container status %v", s)
	}
	objects(t, c.Info)

	for _, list := range []struct {
		filter *criapi.ContainerFilter
		want   []string
	}{
		{nil, []string{made, runs}},
		{&criapi.ContainerFilter{Id: runs[:10]}, []string{runs}},
		{&criapi.ContainerFilter{State: &criapi.ContainerStateValue{State: criapi.ContainerState_CONTAINER_CREATED}}, []string{made}},
		{&criapi.ContainerFilter{PodSandboxId: other}, nil},
		{&criapi.ContainerFilter{LabelSelector: map[string]string{"part": "runs"}}, []string{runs}},
		{&criapi.ContainerFilter{Id: made, LabelSelector: map[string]string{"part": "runs"}}, nil},
	} {
		answer, err := w.ListContainers(t.Context(), &criapi.ListContainersRequest{Filter: list.filter})
		if err != nil || len(answer.Containers) != len(list.want) {
			t.Errorf("%v: %d containers, %v; want %d", list.filter, len(answer.GetContainers()), err, len(list.want))
		}
	}
	pods, err := w.ListPodSandbox(t.Context(), &criapi.ListPodSandboxRequest{Filter: &criapi.PodSandboxFilter{LabelSelector: map[string]string{"app": "b"}}})
	if err != nil || len(pods.Items) != 1 || pods.Items[0].Id != other {
		t.Errorf("pods with app=b: %v, %v", pods, err)
	}
	stats, err := w.ListContainerStats(t.Context(), &criapi.ListContainerStatsRequest{})
	if err != nil || len(stats.Stats) != 1 || stats.Stats[0].Cpu.Timestamp == 0 || stats.Stats[0].Memory.AvailableBytes.Value != 910 {
		t.Errorf("stats %v, %v", stats, err)
	}

	if _, err := w.StopContainer(t.Context(), &criapi.StopContainerRequest{ContainerId: runs, Timeout: 5}); err != nil {
		t.Fatal(err)
	}
	c, err = w.ContainerStatus(t.Context(), &criapi.ContainerStatusRequest{ContainerId: runs})
	if err != nil || c.Status.State != criapi.ContainerState_CONTAINER_EXITED || c.Status.ExitCode != 143 || c.Status.FinishedAt == 0 || c.Info != nil {
		t.Errorf("after the stop: %v, %v", c, err)
	}
	if _, err := w.RemovePodSandbox(t.Context(), &criapi.RemovePodSandboxRequest{PodSandboxId: pod}); err != nil {
		t.Fatal(err)
	}
	if left, err := w.ListContainers(t.Context(), &criapi.ListContainersRequest{}); err != nil || len(left.Containers) != 0 {
		t.Errorf("containers of a removed pod: %v, %v", left, err)
	}
}

func TestResourcesOfAPodAreKeptAndShown(t *testing.T) {
	w := newWorld(t)
	pod := w.pod(t, "a", nil)
	if _, err := w.UpdatePodSandboxResources(t.Context(), &criapi.UpdatePodSandboxResourcesRequest{PodSandboxId: pod,
		Resources: &criapi.LinuxContainerResources{CpuQuota: 4242}}); err != nil {
		t.Fatal(err)
	}
	p, err := w.PodSandboxStatus(t.Context(), &criapi.PodSandboxStatusRequest{PodSandboxId: pod, Verbose: true})
	if err != nil || !strings.Contains(p.Info["info"], `"cpu_quota":4242`) {
		t.Errorf("%v, %v; want the resources in it", p.GetInfo(), err)
	}
}

func TestEndingWhatIsGoneSucceeds(t *testing.T) {
	w := newWorld(t)
	for name, call := range map[string]func() error{
		"StopPodSandbox": func() error {
			_, err := w.StopPodSandbox(t.Context(), &criapi.StopPodSandboxRequest{PodSandboxId: "gone"})
			return err
		},
		"RemovePodSandbox": func() error {
			_, err := w.RemovePodSandbox(t.Context(), &criapi.RemovePodSandboxRequest{PodSandboxId: "gone"})
			return err
		},
		"StopContainer": func() error {
			_, err := w.StopContainer(t.Context(), &criapi.StopContainerRequest{ContainerId: "gone"})
			return err
		},
		"RemoveContainer": func() error {
			_, err := w.RemoveContainer(t.Context(), &criapi.RemoveContainerRequest{ContainerId: "gone"})
			return err
		},
		"RemoveImage": func() error {
			_, err := w.RemoveImage(t.Context(), &criapi.RemoveImageRequest{Image: &criapi.ImageSpec{Image: "example.com/gone"}})
			return err
		},
	} {
		if err := call(); err != nil {
			t.Errorf("%s: %v, want success", name, err)
		}
	}
}

func TestErrorsHaveTheirCodesAndNameFieldAndValue(t *testing.T) {
	w := newWorld(t)
	pod := w.pod(t, "a", nil)
	created, running := w.container(t, pod, "created", false), w.container(t, pod, "running", true)
	past, cancel := context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
	defer cancel()
	create := func(change func(*criapi.ContainerConfig)) func() error {
		return func() error {
			config := &criapi.ContainerConfig{
				Metadata: &criapi.ContainerMetadata{Name: "x"}, Image: &criapi.ImageSpec{Image: "example.com/app:1"},
				Linux: &criapi.LinuxContainerConfig{Resources: &criapi.LinuxContainerResources{}, SecurityContext: &criapi.LinuxContainerSecurityContext{}},
			}
			change(config)
			_, err := w.CreateContainer(t.Context(), &criapi.CreateContainerRequest{PodSandboxId: pod, Config: config})
			return err
		}
	}
	for _, c := range []struct {
		name string
		call func() error
		code codes.Code
		want string
	}{
		{"bad sysctl", func() error {
			_, err := w.RunPodSandbox(t.Context(), &criapi.RunPodSandboxRequest{Config: &criapi.PodSandboxConfig{
				Metadata: &criapi.PodSandboxMetadata{Name: "x", Namespace: "x", Uid: "x"},
				Linux:    &criapi.LinuxPodSandboxConfig{Sysctls: map[string]string{"kernel.panic": "1"}}}})
			return err
		}, codes.InvalidArgument, `config.linux.sysctls[kernel.panic] "1": `},
		{"pod for windows", func() error {
			_, err := w.RunPodSandbox(t.Context(), &criapi.RunPodSandboxRequest{Config: &criapi.PodSandboxConfig{
				Metadata: &criapi.PodSandboxMetadata{Name: "x", Namespace: "x", Uid: "x"}, Windows: &criapi.WindowsPodSandboxConfig{}}})
			return err
		}, codes.InvalidArgument, "config.windows: is not for a Linux node"},
		{"limit of a new container", create(func(c *criapi.ContainerConfig) { c.Linux.Resources.CpuShares = -1 }),
			codes.InvalidArgument, `config.linux.resources.cpu_shares "-1": `},
		{"limit of an update", func() error {
			_, err := w.UpdateContainerResources(t.Context(), &criapi.UpdateContainerResourcesRequest{ContainerId: running,
				Linux: &criapi.LinuxContainerResources{CpuShares: -1}})
			return err
		}, codes.InvalidArgument, `linux.cpu_shares "-1": `},
		{"nobody", create(func(c *criapi.ContainerConfig) { c.Linux.SecurityContext.RunAsUsername = "nobodyhere" }),
			codes.InvalidArgument, `config.linux.security_context.run_as_username "nobodyhere": not in /etc/passwd of the image`},
		{"unknown capability", create(func(c *criapi.ContainerConfig) {
			c.Linux.SecurityContext.Capabilities = &criapi.Capability{AddCapabilities: []string{"FLY"}}
		}), codes.InvalidArgument, `config.linux.security_context.capabilities.add_capabilities "FLY": unknown capability`},
		{"missing device", create(func(c *criapi.ContainerConfig) {
			c.Devices = []*criapi.Device{{HostPath: "/dev/nonexist", ContainerPath: "/dev/x", Permissions: "r"}}
		}), codes.InvalidArgument, `config.devices[0].host_path "/dev/nonexist": no such file or directory`},
		{"missing profile", create(func(c *criapi.ContainerConfig) {
			c.Linux.SecurityContext.Seccomp = &criapi.SecurityProfile{ProfileType: criapi.SecurityProfile_Localhost, LocalhostRef: "/none.json"}
		}), codes.InvalidArgument, `config.linux.security_context.seccomp.localhost_ref "/none.json": no such file or directory`},
		{"name of no image", create(func(c *criapi.ContainerConfig) { c.Image.Image = "UPPER/Case" }),
			codes.InvalidArgument, `config.image.image "UPPER/Case": invalid reference format`},
		{"status of no pod", func() error {
			_, err := w.PodSandboxStatus(t.Context(), &criapi.PodSandboxStatusRequest{PodSandboxId: "nope"})
			return err
		}, codes.NotFound, `"nope"`},
		{"resources of no pod", func() error {
			_, err := w.UpdatePodSandboxResources(t.Context(), &criapi.UpdatePodSandboxResourcesRequest{PodSandboxId: "nope"})
			return err
		}, codes.NotFound, `"nope"`},
		{"status of no container", func() error {
			_, err := w.ContainerStatus(t.Context(), &criapi.ContainerStatusRequest{ContainerId: "nope"})
			return err
		}, codes.NotFound, `"nope"`},
		{"run without config", func() error {
			_, err := w.RunPodSandbox(t.Context(), &criapi.RunPodSandboxRequest{})
			return err
		}, codes.InvalidArgument, "config: is missing"},
		{"unknown handler", func() error {
			_, err := w.RunPodSandbox(t.Context(), &criapi.RunPodSandboxRequest{RuntimeHandler: "kata", Config: &criapi.PodSandboxConfig{
				Metadata: &criapi.PodSandboxMetadata{Name: "x", Namespace: "x", Uid: "x"}}})
			return err
		}, codes.InvalidArgument, `runtime_handler "kata": `},
		{"unknown image", func() error {
			_, err := w.CreateContainer(t.Context(), &criapi.CreateContainerRequest{PodSandboxId: pod, Config: &criapi.ContainerConfig{
				Metadata: &criapi.ContainerMetadata{Name: "x"}, Image: &criapi.ImageSpec{Image: "example.com/none:2"}}})
			return err
		}, codes.NotFound, `config.image.image "example.com/none:2": not found`},
		{"name taken", func() error {
			_, err := w.CreateContainer(t.Context(), &criapi.CreateContainerRequest{PodSandboxId: pod, Config: &criapi.ContainerConfig{
				Metadata: &criapi.ContainerMetadata{Name: "running"}, Image: &criapi.ImageSpec{Image: "example.com/app:1"}, Args: []string{"other"}}})
			return err
		}, codes.AlreadyExists, "running"},
		{"exec in what does not run", func() error {
			_, err := w.ExecSync(t.Context(), &criapi.ExecSyncRequest{ContainerId: created, Cmd: []string{"x"}})
			return err
		}, codes.FailedPrecondition, created},
		{"exec without command", func() error {
			_, err := w.Exec(t.Context(), &criapi.ExecRequest{ContainerId: running, Stdout: true})
			return err
		}, codes.InvalidArgument, `cmd "": `},
		{"exec with negative timeout", func() error {
			_, err := w.ExecSync(t.Context(), &criapi.ExecSyncRequest{ContainerId: running, Cmd: []string{"x"}, Timeout: -3})
			return err
		}, codes.InvalidArgument, `timeout "-3": `},
		{"exec without streams", func() error {
			_, err := w.Exec(t.Context(), &criapi.ExecRequest{ContainerId: running, Cmd: []string{"x"}})
			return err
		}, codes.InvalidArgument, `stdin, stdout, stderr "false": `},
		{"attach with a terminal that is none", func() error {
			_, err := w.Attach(t.Context(), &criapi.AttachRequest{ContainerId: running, Tty: true, Stdout: true})
			return err
		}, codes.InvalidArgument, `tty "true": `},
		{"bad image name", func() error {
			_, err := w.PullImage(t.Context(), &criapi.PullImageRequest{Image: &criapi.ImageSpec{Image: "UPPER/Case"}})
			return err
		}, codes.InvalidArgument, `image.image "UPPER/Case": invalid reference format`},
		{"registry that is not there", func() error {
			_, err := w.PullImage(t.Context(), &criapi.PullImageRequest{Image: &criapi.ImageSpec{Image: "127.0.0.1:1/x:1"}})
			return err
		}, codes.Unknown, "RegistryUnavailable: "},
		{"image for an unknown handler", func() error {
			_, err := w.PullImage(t.Context(), &criapi.PullImageRequest{Image: &criapi.ImageSpec{Image: "127.0.0.1:1/x:1", RuntimeHandler: "kata"}})
			return err
		}, codes.InvalidArgument, `image.runtime_handler "kata": `},
		{"too late", func() error {
			_, err := w.server.PullImage(past, &criapi.PullImageRequest{Image: &criapi.ImageSpec{Image: "127.0.0.1:1/x:1"}})
			return err
		}, codes.DeadlineExceeded, ""},
		{"checkpoint of a container", func() error {
			_, err := w.CheckpointContainer(t.Context(), &criapi.CheckpointContainerRequest{ContainerId: running, Location: "/tmp/x.tar", Timeout: 5})
			return err
		}, codes.Unimplemented, "CheckpointContainer"},
		{"checkpoint of a pod", func() error {
			_, err := w.CheckpointPod(t.Context(), &criapi.CheckpointPodRequest{PodSandboxId: pod, OutputPath: "/tmp", ContainerIds: []string{running}})
			return err
		}, codes.Unimplemented, "CheckpointPod"},
		{"restore of a pod", func() error {
			_, err := w.RestorePod(t.Context(), &criapi.RestorePodRequest{CheckpointPath: "/tmp"})
			return err
		}, codes.Unimplemented, "RestorePod"},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := c.call()
			if status.Code(err) != c.code || !strings.Contains(err.Error(), c.want) || c.code == codes.InvalidArgument && !strings.Contains(err.Error(), " "+c.want) {
				t.Errorf("%v, want %v with %s", err, c.code, c.want)
			}
		})
	}
}

func TestImagesAreTheSameByEveryName(t *testing.T) {
	w := newWorld(t)
	byTag, err := w.ImageStatus(t.Context(), &criapi.ImageStatusRequest{Image: &criapi.ImageSpec{Image: "example.com/app:1"}, Verbose: true})
	if err != nil {
		t.Fatal(err)
	}
	objects(t, byTag.Info)
	img := byTag.Image
	if img.Size == 0 || img.Uid.GetValue() != 7 || img.Username != "" || len(img.RepoTags) != 1 {
		t.Errorf("image %v", img)
	}
	byID, err := w.ImageStatus(t.Context(), &criapi.ImageStatusRequest{Image: &criapi.ImageSpec{Image: img.Id}})
	if err != nil || byID.Image.String() != img.String() {
		t.Errorf("by id %v, %v; want %v", byID, err, img)
	}
	none, err := w.ImageStatus(t.Context(), &criapi.ImageStatusRequest{Image: &criapi.ImageSpec{Image: "example.com/none"}})
	if err != nil || none.Image != nil {
		t.Errorf("an image that is not there: %v, %v; want nothing and no error", none, err)
	}
	info, err := w.ImageFsInfo(t.Context(), &criapi.ImageFsInfoRequest{})
	if err != nil || len(info.ImageFilesystems) != 1 || info.ImageFilesystems[0].FsId.Mountpoint == "" || info.ImageFilesystems[0].Timestamp == 0 {
		t.Errorf("ImageFsInfo %v, %v", info, err)
	}
	if _, err := w.RemoveImage(t.Context(), &criapi.RemoveImageRequest{Image: &criapi.ImageSpec{Image: img.Id}}); err != nil {
		t.Fatal(err)
	}
	if list, err := w.ListImages(t.Context(), &criapi.ListImagesRequest{}); err != nil || len(list.Images) != 0 {
		t.Errorf("after removal %v, %v", list, err)
	}
}

func TestPanicFailsOneCallWithItsName(t *testing.T) {
	call := intercept(slog.New(slog.DiscardHandler))
	_, err := call(t.Context(), nil, &grpc.UnaryServerInfo{FullMethod: "/x/RunPodSandbox"}, func(context.Context, any) (any, error) {
		panic("nil map")
	})
	if status.Code(err) != codes.Internal || !strings.Contains(err.Error(), "RunPodSandbox panicked: nil map") {
		t.Fatalf("%v, want Internal with call and reason", err)
	}
}
