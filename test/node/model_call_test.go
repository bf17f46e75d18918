package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"cri-mini/test/node/model"
)

// answer is what a call heard.
type answer struct {
	code codes.Code
	text string
	id   string // of a new pod or container, or of a pulled image

	exec   *criapi.ExecSyncResponse
	state  criapi.ContainerState
	exit   int32
	reason string
	there  bool // the image
	took   time.Duration

	disturbed bool // by a kill of daemon or monitor
}

func (a answer) String() string {
	text := a.code.String()
	if a.text != "" {
		text += ": " + a.text
	}
	if a.disturbed {
		text += " (disturbed)"
	}
	return fmt.Sprintf("%s (%s)", text, a.took.Round(100*time.Microsecond))
}

// unsure tells whether nobody can know what became of the call.
func (a answer) unsure(op model.Op) bool {
	switch a.code {
	case codes.Canceled, codes.Unavailable:
		return true
	case codes.DeadlineExceeded:
		return op.Flaw != model.TooLong
	case codes.Unknown, codes.Internal:
		return a.disturbed
	case codes.FailedPrecondition:
		return a.disturbed && strings.Contains(a.text, "going down")
	}
	return false
}

// call makes one call. It waits for a daemon that is being restarted.
func (a *actor) call(ctx context.Context, op model.Op) answer {
	a.calls.Add(1)
	before, began := a.disturbances.Load(), time.Now()
	ctx, cancel := context.WithTimeout(ctx, 2*patience)
	defer cancel()
	var got answer
	err := a.dispatch(ctx, op, &got)
	got.took = time.Since(began)
	got.code = status.Code(err)
	if err != nil {
		got.text = status.Convert(err).Message()
	}
	after := a.disturbances.Load()
	got.disturbed = before != after || before%2 == 1
	return got
}

func (a *actor) dispatch(ctx context.Context, op model.Op, got *answer) (err error) {
	d, wait := a.d, grpc.WaitForReady(true)
	pod, container := a.pods[op.Pod].id, a.pods[op.Pod].containers[op.Slot]
	switch op.Kind {
	case model.RunPod:
		r := &criapi.RunPodSandboxRequest{Config: a.podConfig(op.Pod)}
		switch op.Flaw {
		case model.BadHostname:
			r.Config.Hostname = strings.Repeat("x", 300)
		case model.BadHandler:
			r.RuntimeHandler = "no-such-handler"
		}
		var answer *criapi.RunPodSandboxResponse
		answer, err = d.RunPodSandbox(ctx, r, wait)
		got.id = answer.GetPodSandboxId()
	case model.StopPod:
		_, err = d.StopPodSandbox(ctx, &criapi.StopPodSandboxRequest{PodSandboxId: pod}, wait)
	case model.RemovePod:
		_, err = d.RemovePodSandbox(ctx, &criapi.RemovePodSandboxRequest{PodSandboxId: pod}, wait)
	case model.UpdatePod:
		_, err = d.UpdatePodSandboxResources(ctx, &criapi.UpdatePodSandboxResourcesRequest{PodSandboxId: pod,
			Resources: &criapi.LinuxContainerResources{CpuShares: 512}}, wait)
	case model.PodStatus:
		_, err = d.PodSandboxStatus(ctx, &criapi.PodSandboxStatusRequest{PodSandboxId: pod}, wait)
	case model.Create:
		var answer *criapi.CreateContainerResponse
		answer, err = d.CreateContainer(ctx, &criapi.CreateContainerRequest{PodSandboxId: pod,
			SandboxConfig: a.podConfig(op.Pod), Config: a.containerConfig(op)}, wait)
		got.id = answer.GetContainerId()
	case model.Start:
		_, err = d.StartContainer(ctx, &criapi.StartContainerRequest{ContainerId: container}, wait)
	case model.Stop:
		r := &criapi.StopContainerRequest{ContainerId: container}
		if op.Grace {
			r.Timeout = 1
		}
		_, err = d.StopContainer(ctx, r, wait)
	case model.Remove:
		_, err = d.RemoveContainer(ctx, &criapi.RemoveContainerRequest{ContainerId: container}, wait)
	case model.Exec:
		got.exec, err = d.ExecSync(ctx, execRequest(container, op.Flaw), wait)
	case model.Update:
		r := &criapi.UpdateContainerResourcesRequest{ContainerId: container, Linux: &criapi.LinuxContainerResources{}}
		if op.Flaw == model.BadLimit {
			r.Linux.CpuShares = -2
		}
		_, err = d.UpdateContainerResources(ctx, r, wait)
	case model.Status:
		var answer *criapi.ContainerStatusResponse
		answer, err = d.ContainerStatus(ctx, &criapi.ContainerStatusRequest{ContainerId: container}, wait)
		got.state, got.exit, got.reason = answer.GetStatus().GetState(), answer.GetStatus().GetExitCode(), answer.GetStatus().GetReason()
	case model.Kill:
		err = a.killFromOutside(ctx, container)
	default:
		err = a.dispatchImage(ctx, op, got)
	}
	return err
}

func (a *actor) dispatchImage(ctx context.Context, op model.Op, got *answer) error {
	image, wait := &criapi.ImageSpec{Image: a.image}, grpc.WaitForReady(true)
	switch op.Kind {
	case model.Pull:
		if op.Flaw == model.UnknownImage {
			image.Image = a.unknown
		}
		answer, err := a.d.images.PullImage(ctx, &criapi.PullImageRequest{Image: image}, wait)
		got.id = answer.GetImageRef()
		return err
	case model.RemoveImage:
		_, err := a.d.images.RemoveImage(ctx, &criapi.RemoveImageRequest{Image: image}, wait)
		return err
	case model.ImageStatus:
		answer, err := a.d.images.ImageStatus(ctx, &criapi.ImageStatusRequest{Image: image}, wait)
		got.there = answer.GetImage() != nil
		return err
	}
	return fmt.Errorf("no such call: %s", op)
}

func execRequest(container string, flaw model.Flaw) *criapi.ExecSyncRequest {
	r := &criapi.ExecSyncRequest{ContainerId: container, Cmd: []string{"echo", "hello"}, Timeout: 30}
	switch flaw {
	case model.NoProgram:
		r.Cmd = []string{"/no/such/program"}
	case model.Fails:
		r.Cmd = []string{"sh", "-c", fmt.Sprintf("echo hello; exit %d", model.CodeEnds)}
	case model.TooLong:
		r.Cmd, r.Timeout = []string{"sleep", "1000"}, 1
	}
	return r
}

// killFromOutside kills the program of a container, if it runs.
func (a *actor) killFromOutside(ctx context.Context, container string) error {
	answer, err := a.d.ContainerStatus(ctx, &criapi.ContainerStatusRequest{ContainerId: container, Verbose: true}, grpc.WaitForReady(true))
	if status.Code(err) == codes.NotFound {
		return nil
	}
	if err != nil {
		return err
	}
	var info struct{ PID int }
	if err := json.Unmarshal([]byte(answer.Info["info"]), &info); err != nil {
		return err
	}
	if info.PID == 0 {
		return nil
	}
	if err := syscall.Kill(info.PID, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		return err
	}
	return nil
}

func (a *actor) podConfig(pod int) *criapi.PodSandboxConfig {
	config := a.d.podConfig(fmt.Sprintf("model-%d-%d", a.n, pod))
	config.Labels = map[string]string{"actor": fmt.Sprint(a.n), "pod": fmt.Sprint(pod)}
	if pod == 1 { // the others share no PID namespace
		config.Linux.SecurityContext.NamespaceOptions.Pid = criapi.NamespaceMode_POD
	}
	return config
}

func (a *actor) containerConfig(op model.Op) *criapi.ContainerConfig {
	config := containerConfig([]string{"c", "c", "d"}[op.Slot], commands[op.Program]...)
	config.Metadata.Attempt = uint32(op.Slot % 2)
	config.LogPath = fmt.Sprintf("%d.log", op.Slot)
	config.Labels = map[string]string{"actor": fmt.Sprint(a.n), "pod": fmt.Sprint(op.Pod), "slot": fmt.Sprint(op.Slot)}
	config.Image.Image = a.image
	if op.Pod == 1 {
		config.Linux.SecurityContext.NamespaceOptions.Pid = criapi.NamespaceMode_POD
	}
	switch op.Flaw {
	case model.UnknownImage:
		config.Image.Image = a.unknown
	case model.BadMount:
		config.Mounts = []*criapi.Mount{{ContainerPath: "/mnt", HostPath: "/no/such/source"}}
	case model.BadCapability:
		config.Linux.SecurityContext.Capabilities = &criapi.Capability{AddCapabilities: []string{"FLY"}}
	}
	return config
}
