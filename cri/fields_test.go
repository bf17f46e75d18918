package cri

import (
	"encoding/json"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"cri-mini/image"
	"cri-mini/podsandbox"
)

// A list and a status are two views of one thing.
func TestListsTellTheSameAsStatuses(t *testing.T) {
	w, ctx := newWorld(t), t.Context()
	pod := w.pod(t, "a", func(c *criapi.PodSandboxConfig) {
		c.Metadata.Attempt = 3
		c.Annotations = map[string]string{"note": "of the pod"}
	})
	created, err := w.CreateContainer(ctx, &criapi.CreateContainerRequest{PodSandboxId: pod, Config: &criapi.ContainerConfig{
		Metadata:    &criapi.ContainerMetadata{Name: "web", Attempt: 2},
		Image:       &criapi.ImageSpec{Image: "example.com/app:1", UserSpecifiedImage: "app", Annotations: map[string]string{"platform": "of another machine"}},
		Labels:      map[string]string{"part": "web"},
		Annotations: map[string]string{"note": "of the container"},
	}})
	if err != nil {
		t.Fatal(err)
	}
	pods, err := w.ListPodSandbox(ctx, &criapi.ListPodSandboxRequest{})
	if err != nil || len(pods.Items) != 1 {
		t.Fatalf("pods %v, %v", pods, err)
	}
	p, err := w.PodSandboxStatus(ctx, &criapi.PodSandboxStatusRequest{PodSandboxId: pod})
	if err != nil {
		t.Fatal(err)
	}
	s := p.Status
	if want := (&criapi.PodSandbox{Id: s.Id, Metadata: s.Metadata, State: s.State, CreatedAt: s.CreatedAt, Labels: s.Labels,
		Annotations: s.Annotations, RuntimeHandler: s.RuntimeHandler}); !proto.Equal(pods.Items[0], want) || s.Id != pod || s.Metadata.Attempt != 3 {
		t.Errorf("listed %v, status %v", pods.Items[0], want)
	}
	if p.Info != nil || p.Timestamp != 0 || len(p.ContainersStatuses) != 0 {
		t.Errorf("more than was asked for: %v", p)
	}
	containers, err := w.ListContainers(ctx, &criapi.ListContainersRequest{})
	if err != nil || len(containers.Containers) != 1 {
		t.Fatalf("containers %v, %v", containers, err)
	}
	c, err := w.ContainerStatus(ctx, &criapi.ContainerStatusRequest{ContainerId: created.ContainerId})
	if err != nil {
		t.Fatal(err)
	}
	if want := (&criapi.Container{Id: c.Status.Id, PodSandboxId: pod, Metadata: c.Status.Metadata, Image: c.Status.Image, ImageRef: c.Status.ImageRef,
		ImageId: c.Status.ImageId, State: c.Status.State, CreatedAt: c.Status.CreatedAt, Labels: c.Status.Labels, Annotations: c.Status.Annotations}); !proto.Equal(containers.Containers[0], want) {
		t.Errorf("listed %v, status %v", containers.Containers[0], want)
	}
	if i := c.Status.Image; i.Image != "example.com/app:1" || i.UserSpecifiedImage != "app" || i.Annotations["platform"] == "" {
		t.Errorf("image %v, want it as asked for", i)
	}
	if c.Info != nil || c.Status.Resources.Windows != nil || c.Status.ExitCode != 0 || c.Status.Reason != "" {
		t.Errorf("container %v", c)
	}
}

// All of a filter must fit, and an empty one fits all.
func TestFiltersAreJoinedByAnd(t *testing.T) {
	w, ctx := newWorld(t), t.Context()
	a, b := w.pod(t, "a", nil), w.pod(t, "b", nil)
	made, runs := w.container(t, a, "made", false), w.container(t, a, "runs", true)
	if _, err := w.StopPodSandbox(ctx, &criapi.StopPodSandboxRequest{PodSandboxId: b}); err != nil {
		t.Fatal(err)
	}
	podState := func(s criapi.PodSandboxState) *criapi.PodSandboxStateValue {
		return &criapi.PodSandboxStateValue{State: s}
	}
	for _, c := range []struct {
		filter *criapi.PodSandboxFilter
		want   []string
	}{
		{nil, []string{a, b}},
		{&criapi.PodSandboxFilter{}, []string{a, b}},
		{&criapi.PodSandboxFilter{LabelSelector: map[string]string{}}, []string{a, b}},
		{&criapi.PodSandboxFilter{State: podState(criapi.PodSandboxState_SANDBOX_READY)}, []string{a}},
		{&criapi.PodSandboxFilter{State: podState(criapi.PodSandboxState_SANDBOX_NOTREADY)}, []string{b}},
		{&criapi.PodSandboxFilter{State: podState(9)}, nil},
		{&criapi.PodSandboxFilter{Id: b[:13]}, []string{b}},
		{&criapi.PodSandboxFilter{Id: b, State: podState(criapi.PodSandboxState_SANDBOX_READY)}, nil},
		{&criapi.PodSandboxFilter{LabelSelector: map[string]string{"app": "b"}, State: podState(criapi.PodSandboxState_SANDBOX_NOTREADY)}, []string{b}},
		{&criapi.PodSandboxFilter{LabelSelector: map[string]string{"app": "b", "other": ""}}, nil},
	} {
		list, err := w.ListPodSandbox(ctx, &criapi.ListPodSandboxRequest{Filter: c.filter})
		var got []string
		for _, p := range list.GetItems() {
			got = append(got, p.Id)
		}
		if err != nil || !slices.Equal(got, c.want) {
			t.Errorf("pods with %v: %v, %v; want %v", c.filter, got, err, c.want)
		}
	}
	state := func(s criapi.ContainerState) *criapi.ContainerStateValue {
		return &criapi.ContainerStateValue{State: s}
	}
	for _, c := range []struct {
		filter *criapi.ContainerFilter
		want   []string
	}{
		{&criapi.ContainerFilter{}, []string{made, runs}},
		{&criapi.ContainerFilter{State: state(criapi.ContainerState_CONTAINER_RUNNING), PodSandboxId: a}, []string{runs}},
		{&criapi.ContainerFilter{State: state(criapi.ContainerState_CONTAINER_RUNNING), PodSandboxId: b}, nil},
		{&criapi.ContainerFilter{State: state(criapi.ContainerState_CONTAINER_RUNNING), LabelSelector: map[string]string{"part": "made"}}, nil},
		{&criapi.ContainerFilter{State: state(criapi.ContainerState_CONTAINER_UNKNOWN)}, nil},
		{&criapi.ContainerFilter{Id: runs, PodSandboxId: a[:10], LabelSelector: map[string]string{"part": "runs"}}, []string{runs}},
	} {
		list, err := w.ListContainers(ctx, &criapi.ListContainersRequest{Filter: c.filter})
		var got []string
		for _, one := range list.GetContainers() {
			got = append(got, one.Id)
		}
		if err != nil || !slices.Equal(got, c.want) {
			t.Errorf("containers with %v: %v, %v; want %v", c.filter, got, err, c.want)
		}
	}
	for _, filter := range []*criapi.ImageFilter{nil, {}, {Image: &criapi.ImageSpec{}}, {Image: &criapi.ImageSpec{Image: "example.com/app:1"}}} {
		list, err := w.ListImages(ctx, &criapi.ListImagesRequest{Filter: filter})
		if err != nil || len(list.Images) != 1 {
			t.Errorf("images with %v: %v, %v; want the one", filter, list, err)
		}
	}
}

// What a pod was made with counts, not what a later request says it was.
func TestPodOfALaterRequestChangesNothing(t *testing.T) {
	w, ctx := newWorld(t), t.Context()
	pod := w.pod(t, "a", func(c *criapi.PodSandboxConfig) { c.LogDirectory = "/logs/a" })
	other := &criapi.PodSandboxConfig{
		Metadata: &criapi.PodSandboxMetadata{Name: "other"}, LogDirectory: "/etc", Hostname: "other",
		Linux: &criapi.LinuxPodSandboxConfig{SecurityContext: &criapi.LinuxSandboxSecurityContext{Privileged: true}},
	}
	config := func(privileged bool) *criapi.ContainerConfig {
		return &criapi.ContainerConfig{
			Metadata: &criapi.ContainerMetadata{Name: "web"}, Image: &criapi.ImageSpec{Image: "example.com/app:1"}, LogPath: "web.log",
			Linux: &criapi.LinuxContainerConfig{SecurityContext: &criapi.LinuxContainerSecurityContext{Privileged: privileged}},
		}
	}
	_, err := w.CreateContainer(ctx, &criapi.CreateContainerRequest{PodSandboxId: pod, Config: config(true), SandboxConfig: other})
	if status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), `: config.linux.security_context.privileged "true": `) {
		t.Errorf("a privileged container: %v, want it refused", err)
	}
	answer, err := w.CreateContainer(ctx, &criapi.CreateContainerRequest{PodSandboxId: pod, Config: config(false), SandboxConfig: other})
	if err != nil {
		t.Fatal(err)
	}
	c, err := w.ContainerStatus(ctx, &criapi.ContainerStatusRequest{ContainerId: answer.ContainerId})
	if err != nil || c.Status.LogPath != "/logs/a/web.log" {
		t.Errorf("log %v, %v; want it in the pod's folder", c.GetStatus().GetLogPath(), err)
	}
	// A pull does not look at it at all.
	_, err = w.PullImage(ctx, &criapi.PullImageRequest{Image: &criapi.ImageSpec{Image: "127.0.0.1:1/x:1"},
		SandboxConfig: &criapi.PodSandboxConfig{Windows: &criapi.WindowsPodSandboxConfig{}}})
	if err == nil || !strings.Contains(err.Error(), "RegistryUnavailable") {
		t.Errorf("pull: %v, want the registry's failure", err)
	}
}

func TestFieldsThatCannotBeKeptAreRefused(t *testing.T) {
	w, ctx := newWorld(t), t.Context()
	pod := w.pod(t, "a", nil)
	id := w.container(t, pod, "web", true)
	kata := &criapi.ImageSpec{Image: "example.com/app:1", RuntimeHandler: "kata"}
	volume := func(spec *criapi.ImageSpec) func() error {
		return func() error {
			_, err := w.CreateContainer(ctx, &criapi.CreateContainerRequest{PodSandboxId: pod, Config: &criapi.ContainerConfig{
				Metadata: &criapi.ContainerMetadata{Name: "x"}, Image: &criapi.ImageSpec{Image: "example.com/app:1"},
				Mounts: []*criapi.Mount{{ContainerPath: "/v", Readonly: true, Image: spec}}}})
			return err
		}
	}
	pull := func(spec *criapi.ImageSpec) func() error {
		return func() error { _, err := w.PullImage(ctx, &criapi.PullImageRequest{Image: spec}); return err }
	}
	look := func(spec *criapi.ImageSpec) func() error {
		return func() error { _, err := w.ImageStatus(ctx, &criapi.ImageStatusRequest{Image: spec}); return err }
	}
	remove := func(spec *criapi.ImageSpec) func() error {
		return func() error { _, err := w.RemoveImage(ctx, &criapi.RemoveImageRequest{Image: spec}); return err }
	}
	for name, c := range map[string]struct {
		call func() error
		want string
	}{
		"create without config": {func() error {
			_, err := w.CreateContainer(ctx, &criapi.CreateContainerRequest{PodSandboxId: pod})
			return err
		}, `config: is missing`},
		"pull with a handler":     {pull(kata), `image.runtime_handler "kata"`},
		"status with a handler":   {look(kata), `image.runtime_handler "kata"`},
		"remove with a handler":   {remove(kata), `image.runtime_handler "kata"`},
		"pull without an image":   {pull(nil), `image.image ""`},
		"status without an image": {look(nil), `image.image ""`},
		"remove without an image": {remove(nil), `image.image ""`},
		"update for windows": {func() error {
			_, err := w.UpdateContainerResources(ctx, &criapi.UpdateContainerResourcesRequest{ContainerId: id, Windows: &criapi.WindowsContainerResources{CpuShares: 1}})
			return err
		}, "windows: is not for a Linux node"},
		"option of an update": {func() error {
			_, err := w.UpdateContainerResources(ctx, &criapi.UpdateContainerResourcesRequest{ContainerId: id, Annotations: map[string]string{"io.weight": "7"}})
			return err
		}, `annotations[io.weight] "7"`},
		"stop with negative timeout": {func() error {
			_, err := w.StopContainer(ctx, &criapi.StopContainerRequest{ContainerId: id, Timeout: -2})
			return err
		}, `timeout "-2"`},
		"attach without streams": {func() error {
			_, err := w.Attach(ctx, &criapi.AttachRequest{ContainerId: id})
			return err
		}, "stdin"},
		"list with a handler": {func() error {
			_, err := w.ListImages(ctx, &criapi.ListImagesRequest{Filter: &criapi.ImageFilter{Image: kata}})
			return err
		}, `filter.image.runtime_handler "kata"`},
		"volume with a handler": {volume(kata), `ImageVolumeMountFailed: config.mounts[0].image.runtime_handler "kata"`},
		"volume without a name": {volume(&criapi.ImageSpec{}), `ImageVolumeMountFailed: config.mounts[0].image.image ""`},
	} {
		t.Run(name, func(t *testing.T) {
			err := c.call()
			if status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want InvalidArgument with %s", err, c.want)
			}
		})
	}
	if c, err := w.ContainerStatus(ctx, &criapi.ContainerStatusRequest{ContainerId: id}); err != nil || c.Status.State != criapi.ContainerState_CONTAINER_RUNNING {
		t.Errorf("the container: %v, %v; want it to run", c, err)
	}
	if list, err := w.ListImages(ctx, &criapi.ListImagesRequest{}); err != nil || len(list.Images) != 1 {
		t.Errorf("images %v, %v; want the one", list, err)
	}
}

func TestTimeoutsBeyondTheClockAreForEver(t *testing.T) {
	for asked, want := range map[int64]time.Duration{0: 0, 30: 30 * time.Second, math.MaxInt64: math.MaxInt64 / time.Second * time.Second} {
		if got, err := seconds(asked); err != nil || got != want {
			t.Errorf("%d seconds are %s, %v; want %s", asked, got, err, want)
		}
	}
}

func TestNothingToConfigureChangesNothing(t *testing.T) {
	w, ctx := newWorld(t), t.Context()
	w.kernel.cidr = "10.7.0.0/24"
	for _, c := range []*criapi.RuntimeConfig{nil, {}, {NetworkConfig: &criapi.NetworkConfig{}}} {
		if _, err := w.UpdateRuntimeConfig(ctx, &criapi.UpdateRuntimeConfigRequest{RuntimeConfig: c}); err != nil || w.kernel.cidr != "10.7.0.0/24" {
			t.Errorf("%v: pod CIDR %q, %v", c, w.kernel.cidr, err)
		}
	}
	for _, version := range []string{"", "0.1.0", "v1alpha2"} {
		if v, err := w.Version(ctx, &criapi.VersionRequest{Version: version}); err != nil || v.Version != "0.1.0" {
			t.Errorf("asked for version %q: %v, %v", version, v, err)
		}
	}
	s, err := w.Status(ctx, &criapi.StatusRequest{})
	if err != nil || s.Info != nil {
		t.Errorf("status %v, %v; want nothing verbose", s, err)
	}
	for _, condition := range s.Status.Conditions {
		if !condition.Status || condition.Reason != "" || condition.Message != "" {
			t.Errorf("condition %v", condition)
		}
	}
}

func TestVerboseStatusOfAPodTellsItsInit(t *testing.T) {
	w, ctx := newWorld(t), t.Context()
	shared := w.pod(t, "shared", nil)
	alone := w.pod(t, "alone", func(c *criapi.PodSandboxConfig) {
		c.Linux = &criapi.LinuxPodSandboxConfig{SecurityContext: &criapi.LinuxSandboxSecurityContext{
			NamespaceOptions: &criapi.NamespaceOption{Pid: criapi.NamespaceMode_CONTAINER}}}
	})
	for pod, want := range map[string]string{shared: `"pid":999`, alone: `"pid":0`} {
		p, err := w.PodSandboxStatus(ctx, &criapi.PodSandboxStatusRequest{PodSandboxId: pod, Verbose: true})
		if err != nil || !strings.Contains(p.Info["info"], want) {
			t.Errorf("%v, %v; want %s in it", p.GetInfo(), err, want)
		}
	}
}

func TestImageTellsUserAnnotationsAndPin(t *testing.T) {
	for user, want := range map[string]*criapi.Image{
		"1003:1004":     {Uid: &criapi.Int64Value{Value: 1003}},
		"0":             {Uid: &criapi.Int64Value{}},
		"www-data:1004": {Username: "www-data"},
		"":              {},
	} {
		got := imageMessage(image.Image{ID: "sha256:1", Size: 7, Tags: []string{"example.com/a:1"}, Digests: []string{"example.com/a@sha256:2"}, Config: image.Config{User: user}, Pinned: true, Annotations: map[string]string{"made": "by hand"}})
		want.RepoTags, want.RepoDigests = []string{"example.com/a:1"}, []string{"example.com/a@sha256:2"}
		want.Id, want.Size, want.Pinned, want.Spec = "sha256:1", 7, true, &criapi.ImageSpec{Annotations: map[string]string{"made": "by hand"}}
		if !proto.Equal(got, want) {
			t.Errorf("user %q: %v, want %v", user, got, want)
		}
	}
}

func TestVerboseAnswersHaveTheKeysThatToolsRead(t *testing.T) {
	w, ctx := newWorld(t), t.Context()
	pod := w.pod(t, "a", nil)
	id := w.container(t, pod, "web", true)
	p, err := w.PodSandboxStatus(ctx, &criapi.PodSandboxStatusRequest{PodSandboxId: pod, Verbose: true})
	if err != nil {
		t.Fatal(err)
	}
	c, err := w.ContainerStatus(ctx, &criapi.ContainerStatusRequest{ContainerId: id, Verbose: true})
	if err != nil {
		t.Fatal(err)
	}
	i, err := w.ImageStatus(ctx, &criapi.ImageStatusRequest{Image: &criapi.ImageSpec{Image: "example.com/app:1"}, Verbose: true})
	if err != nil {
		t.Fatal(err)
	}
	s, err := w.Status(ctx, &criapi.StatusRequest{Verbose: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		info map[string]string
		key  string
		want []string
	}{
		{p.Info, "info", []string{"pid", "config", "runtimeSpec"}},
		{p.Info, "why", []string{"State", "Since", "Because", "Entries"}},
		{c.Info, "why", []string{"State", "Since", "Because", "Entries"}},
		{c.Info, "info", []string{"pid", "sandboxID", "config", "runtimeSpec"}},
		{i.Info, "info", []string{"config", "layers"}},
		{s.Info, "config", []string{"rootDir", "stateDir", "cgroupDriver"}},
		{s.Info, "network", []string{"form"}},
		{s.Info, "kernel", []string{"seccomp"}},
	} {
		var object map[string]any
		if err := json.Unmarshal([]byte(c.info[c.key]), &object); err != nil {
			t.Errorf("%s of %v: %v", c.key, c.info, err)
		}
		for _, key := range c.want {
			if _, there := object[key]; !there {
				t.Errorf("no %s in %s", key, c.info[c.key])
			}
		}
	}
}

// Each field of both statuses arrives at the client as it was asked for and made.
func TestStatusesHaveEveryField(t *testing.T) {
	w, ctx := newWorld(t), t.Context()
	options := &criapi.NamespaceOption{Pid: criapi.NamespaceMode_CONTAINER, Ipc: criapi.NamespaceMode_NODE}
	var asked *criapi.PodSandboxConfig
	began := time.Now().UnixNano()
	pod := w.pod(t, "a", func(c *criapi.PodSandboxConfig) {
		c.Metadata.Attempt, c.LogDirectory = 4, "/logs/a"
		c.Annotations = map[string]string{"note": "of the pod"}
		c.Linux = &criapi.LinuxPodSandboxConfig{SecurityContext: &criapi.LinuxSandboxSecurityContext{NamespaceOptions: options}}
		asked = c
	})
	p, err := w.PodSandboxStatus(ctx, &criapi.PodSandboxStatusRequest{PodSandboxId: pod})
	if err != nil {
		t.Fatal(err)
	}
	if want := (&criapi.PodSandboxStatus{
		Id: pod, Metadata: asked.Metadata, CreatedAt: p.Status.CreatedAt, Labels: asked.Labels, Annotations: asked.Annotations,
		Network: &criapi.PodSandboxNetworkStatus{Ip: "10.1.2.3", AdditionalIps: []*criapi.PodIP{{Ip: "fd00::3"}}},
		Linux:   &criapi.LinuxPodSandboxStatus{Namespaces: &criapi.Namespace{Options: options}},
	}); !proto.Equal(p.Status, want) || p.Status.CreatedAt < began || p.Status.CreatedAt > time.Now().UnixNano() {
		t.Errorf("pod %v, want %v", p.Status, want)
	}

	config := &criapi.ContainerConfig{
		Metadata: &criapi.ContainerMetadata{Name: "web", Attempt: 5}, Image: &criapi.ImageSpec{Image: "example.com/app:1"}, LogPath: "web.log",
		Labels: map[string]string{"part": "web"}, Annotations: map[string]string{"note": "of the container"},
		Mounts:     []*criapi.Mount{{ContainerPath: "/data", HostPath: "/srv", Readonly: true}},
		StopSignal: criapi.Signal_SIGNAL_SIGQUIT,
		Linux: &criapi.LinuxContainerConfig{Resources: &criapi.LinuxContainerResources{CpuShares: 512},
			SecurityContext: &criapi.LinuxContainerSecurityContext{SupplementalGroups: []int64{77}}},
	}
	created, err := w.CreateContainer(ctx, &criapi.CreateContainerRequest{PodSandboxId: pod, Config: config})
	if err != nil {
		t.Fatal(err)
	}
	id := created.ContainerId
	look := func() *criapi.ContainerStatus {
		t.Helper()
		c, err := w.ContainerStatus(ctx, &criapi.ContainerStatusRequest{ContainerId: id})
		if err != nil {
			t.Fatal(err)
		}
		return c.Status
	}
	s := look()
	want := &criapi.ContainerStatus{
		Id: id, Metadata: config.Metadata, CreatedAt: s.CreatedAt, Image: config.Image, ImageRef: s.ImageRef, ImageId: s.ImageId,
		Labels: config.Labels, Annotations: config.Annotations, Mounts: config.Mounts, LogPath: "/logs/a/web.log",
		Resources:  &criapi.ContainerResources{Linux: config.Linux.Resources},
		User:       &criapi.ContainerUser{Linux: &criapi.LinuxContainerUser{Uid: 7, Gid: 8, SupplementalGroups: []int64{8, 77}}},
		StopSignal: config.StopSignal,
	}
	if !proto.Equal(s, want) || s.CreatedAt < p.Status.CreatedAt || s.ImageId == "" || s.ImageRef == "" {
		t.Errorf("created: %v, want %v", s, want)
	}
	if _, err := w.StartContainer(ctx, &criapi.StartContainerRequest{ContainerId: id}); err != nil {
		t.Fatal(err)
	}
	s = look()
	want.State, want.StartedAt = criapi.ContainerState_CONTAINER_RUNNING, s.StartedAt
	if !proto.Equal(s, want) || s.StartedAt <= s.CreatedAt {
		t.Errorf("started: %v, want %v", s, want)
	}
	if _, err := w.StopContainer(ctx, &criapi.StopContainerRequest{ContainerId: id, Timeout: 60}); err != nil {
		t.Fatal(err)
	}
	s = look()
	want.State, want.FinishedAt, want.ExitCode, want.Reason = criapi.ContainerState_CONTAINER_EXITED, s.FinishedAt, 131, "Error"
	if !proto.Equal(s, want) || s.FinishedAt <= s.StartedAt {
		t.Errorf("stopped: %v, want %v", s, want)
	}
	if m := containerStatus(podsandbox.ContainerStatus{Message: "why"}); m.Message != "why" {
		t.Errorf("message %q", m.Message)
	}
}
