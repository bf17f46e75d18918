package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	grpcstatus "google.golang.org/grpc/status"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// story is a life of a pod in which each step can be cut by the death of daemon
// or monitor. What was cut is done again, and then has to be as if it had not
// been cut.
type story struct {
	d      *daemon
	points string // folder where crash points are armed
	beside *beside
	build  string // another build of the program

	armed      string // a point; none after it fired
	old        int    // the monitor then
	next       func() bool
	cut        bool          // in this step a process died
	cutMonitor bool          // and it was the monitor
	again      func() string // the point at which the next daemon dies too, or none
	second     bool          // that one is armed
	daemons    int           // deaths so far
	monitors   int

	pod        *pod
	containers map[string]*container
	attempts   map[string]uint32
}

const crashImage = "registry.test/crash:1"

// steps is the story. Each may be done twice: the second time, after a death,
// finds what the first has done.
var steps = []struct {
	name string
	do   func(*story) error
}{
	{"pull", (*story).pull},
	{"run a pod that is refused", (*story).runRefused},
	{"run pod", (*story).runPod},
	{"update pod", (*story).updatePod},
	{"create", func(s *story) error { return s.create("worker") }},
	{"start", func(s *story) error { return s.start("worker") }},
	{"exec", (*story).exec},
	{"update", (*story).update},
	{"reopen log", (*story).reopenLog},
	{"create one that is started late", func(s *story) error { return s.create("late") }},
	{"restart", (*story).restart},
	{"upgrade", (*story).upgrade},
	{"start late, until it exits", (*story).startLate},
	{"stop", (*story).stop},
	{"remove image that is held", (*story).removeImage},
	{"remove", (*story).remove},
	{"create and start for the pod's end", func(s *story) error {
		return errors.Join(s.create("last"), s.start("last"))
	}},
	{"stop pod", (*story).stopPod},
	{"remove pod", (*story).removePod},
}

// begin is the beginning of a step that is to be cut at a point.
func (s *story) begin(point string, n int) {
	s.cut, s.cutMonitor, s.second = false, false, false
	s.arm(point, n)
}

// arm has the next process that comes to a point for the n-th time die there.
func (s *story) arm(point string, n int) {
	if point == "" {
		return
	}
	s.old, s.next = s.d.monitor(), s.d.nextMonitor()
	path := filepath.Join(s.points, point)
	if err := os.WriteFile(path+".new", fmt.Append(nil, n), 0o600); err != nil {
		s.d.t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		s.d.t.Fatal(err)
	}
	s.armed = point
}

// disarm is false when the point was reached before.
func (s *story) disarm() bool {
	if os.Remove(filepath.Join(s.points, s.armed)) != nil {
		return false
	}
	s.armed = ""
	return true
}

// fired tells whether a process has died, or is about to, at the armed point.
func (s *story) fired() bool {
	if s.armed == "" {
		return false
	}
	_, err := os.Lstat(filepath.Join(s.points, s.armed))
	return os.IsNotExist(err)
}

// revive sees the process die and the next one work, and nobody beside harmed.
func (s *story) revive() {
	s.d.t.Helper()
	point := s.armed
	s.armed, s.cut = "", true
	if !strings.HasPrefix(point, "monitor.") {
		s.buryDaemon()
		s.succeed()
		if s.armed == "" { // else a question could meet the second death
			s.beside.unharmed(0)
		}
		return
	}
	s.monitors++
	s.cutMonitor = true
	eventually(s.d.t, "the monitor is dead", func() bool { return !alive(s.old) })
	eventually(s.d.t, "another monitor that holds all", s.next)
	s.beside.unharmed(1)
}

// succeed starts the next daemon. It dies as well, while it comes up or later,
// when it comes to the second point.
func (s *story) succeed() {
	s.d.t.Helper()
	if s.again != nil && !s.second {
		s.arm(s.again(), 1)
		s.second = true
	}
	s.d.launch()
	if err := s.d.answers(); err != nil && s.fired() {
		s.armed = ""
		s.buryDaemon()
		s.d.serve()
	} else if err != nil {
		s.d.showLog()
		s.d.t.Fatal(err)
	}
}

func (s *story) buryDaemon() {
	s.d.t.Helper()
	s.daemons++
	select {
	case err := <-s.d.ended:
		s.d.ended <- err
		if err == nil || err.Error() != "signal: killed" {
			s.d.t.Fatalf("the daemon ended with %v, want the death at the point", err)
		}
	case <-time.After(patience):
		s.d.t.Fatal("the daemon lives although its point was reached")
	}
}

// call makes a call, and makes it again when a process died meanwhile.
func (s *story) call(do func(context.Context) error) error {
	for {
		ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
		err := do(ctx)
		cancel()
		if err == nil || !s.fired() {
			return err
		}
		s.revive()
	}
}

func (s *story) pull() error {
	return s.call(func(ctx context.Context) error {
		_, err := s.d.images.PullImage(ctx, &criapi.PullImageRequest{Image: &criapi.ImageSpec{Image: crashImage}})
		return err
	})
}

// runRefused wants the host port of a pod beside.
func (s *story) runRefused() error {
	config := s.d.podConfig("refused")
	config.PortMappings = []*criapi.PortMapping{{HostPort: besidePort, ContainerPort: 80}}
	err := s.call(func(ctx context.Context) error {
		_, err := s.d.RunPodSandbox(ctx, &criapi.RunPodSandboxRequest{Config: config})
		return err
	})
	if err == nil || !strings.Contains(err.Error(), "default/beside") {
		return fmt.Errorf("a host port in use: %v; want its owner named", err)
	}
	return nil
}

func (s *story) runPod() error {
	config := s.d.podConfig("story")
	config.PortMappings = []*criapi.PortMapping{{HostPort: besidePort + 1, ContainerPort: 80}}
	config.Linux.SecurityContext.NamespaceOptions.Pid = criapi.NamespaceMode_POD
	id := ""
	err := s.call(func(ctx context.Context) error {
		answer, err := s.d.RunPodSandbox(ctx, &criapi.RunPodSandboxRequest{Config: config})
		id = answer.GetPodSandboxId()
		return err
	})
	if err != nil && !(s.cut && grpcstatus.Code(err) == codes.AlreadyExists) {
		return err
	}
	list, err2 := s.d.ListPodSandbox(s.d.context(), &criapi.ListPodSandboxRequest{})
	if err2 != nil {
		return err2
	}
	var found *criapi.PodSandbox
	for _, item := range list.Items {
		if item.Metadata.Name == "story" {
			found = item
		}
	}
	switch {
	case len(list.Items) != len(s.beside.pods)+1 || found == nil || found.State != criapi.PodSandboxState_SANDBOX_READY:
		return fmt.Errorf("listed are %v", list.Items)
	case err != nil && !strings.Contains(err.Error(), found.Id) || err == nil && found.Id != id:
		return fmt.Errorf("the pod is %s, the answer %s, %v", found.Id, id, err)
	}
	s.pod, s.containers, s.attempts = &pod{s.d, found.Id, config}, map[string]*container{}, map[string]uint32{}
	return nil
}

func (s *story) updatePod() error {
	const shares = 512
	err := s.call(func(ctx context.Context) error {
		_, err := s.d.UpdatePodSandboxResources(ctx, &criapi.UpdatePodSandboxResourcesRequest{PodSandboxId: s.pod.id, Resources: &criapi.LinuxContainerResources{CpuShares: shares}})
		return err
	})
	return err
}

// programs are the containers of the story: image and command.
var programs = map[string][]string{
	"worker": {crashImage, "sh", "-c", "trap 'exit 7' TERM; sleep 1000 & wait"},
	"late":   {crashImage, "sh", "-c", "exit 42"},
	"last":   {shell, "sleep", "1000"},
}

func (s *story) create(name string) error {
	config := containerConfig(name, programs[name][1:]...)
	config.Image.Image = programs[name][0]
	config.Metadata.Attempt = s.attempts[name]
	config.Linux.SecurityContext.NamespaceOptions.Pid = criapi.NamespaceMode_POD
	id := ""
	err := s.call(func(ctx context.Context) error {
		answer, err := s.d.CreateContainer(ctx, &criapi.CreateContainerRequest{PodSandboxId: s.pod.id, Config: config, SandboxConfig: s.pod.config})
		id = answer.GetContainerId()
		return err
	})
	if err != nil && !(s.cut && grpcstatus.Code(err) == codes.AlreadyExists) {
		return err
	}
	list, err2 := s.d.ListContainers(s.d.context(), &criapi.ListContainersRequest{Filter: &criapi.ContainerFilter{PodSandboxId: s.pod.id}})
	if err2 != nil {
		return err2
	}
	var found []string
	for _, item := range list.Containers {
		if item.Metadata.Name == name && item.Metadata.Attempt == config.Metadata.Attempt {
			found = append(found, item.Id)
		}
	}
	if len(found) != 1 || err != nil && !strings.Contains(err.Error(), found[0]) || err == nil && found[0] != id {
		return fmt.Errorf("there are %q, the answer is %s, %v", found, id, err)
	}
	s.containers[name] = &container{s.d, found[0], filepath.Join(s.pod.config.LogDirectory, config.LogPath)}
	return nil
}

// start starts a container. One whose monitor died on the way may have been
// given up; then its successor is started, as a kubelet would.
func (s *story) start(name string) error {
	c := s.containers[name]
	err := s.call(func(ctx context.Context) error {
		_, err := s.d.StartContainer(ctx, &criapi.StartContainerRequest{ContainerId: c.id})
		return err
	})
	if err == nil {
		return nil
	}
	now, err2 := s.status(name)
	switch {
	case err2 != nil:
		return err2
	case s.cut && grpcstatus.Code(err) == codes.FailedPrecondition && now.Reason != "StartError" && now.StartedAt > 0:
		return nil // the call before has done it
	case s.cutMonitor && now.State == criapi.ContainerState_CONTAINER_EXITED && now.Reason == "StartError":
		s.attempts[name]++
		return errors.Join(s.call(func(ctx context.Context) error {
			_, err := s.d.RemoveContainer(ctx, &criapi.RemoveContainerRequest{ContainerId: c.id})
			return err
		}), s.create(name), s.start(name))
	}
	return fmt.Errorf("%w; the container is %s, %d, %s %s", err, now.State, now.ExitCode, now.Reason, now.Message)
}

func (s *story) status(name string) (now *criapi.ContainerStatus, err error) {
	err = s.call(func(ctx context.Context) error {
		answer, err := s.d.ContainerStatus(ctx, &criapi.ContainerStatusRequest{ContainerId: s.containers[name].id})
		now = answer.GetStatus()
		return err
	})
	return now, err
}

func (s *story) exec() error {
	got, err := s.run("echo out; echo err >&2; exit 5")
	if err == nil && (string(got.Stdout) != "out\n" || string(got.Stderr) != "err\n" || got.ExitCode != 5) {
		err = fmt.Errorf("exec gives %v", got)
	}
	return err
}

// run has the shell of the worker do something.
func (s *story) run(command string) (got *criapi.ExecSyncResponse, err error) {
	err = s.call(func(ctx context.Context) (err error) {
		got, err = s.d.ExecSync(ctx, &criapi.ExecSyncRequest{ContainerId: s.containers["worker"].id, Cmd: []string{"sh", "-c", command}, Timeout: 60})
		return err
	})
	return got, err
}

func (s *story) update() error {
	const limit = 6 << 20
	worker := s.containers["worker"].id
	err := s.call(func(ctx context.Context) error {
		_, err := s.d.UpdateContainerResources(ctx, &criapi.UpdateContainerResourcesRequest{ContainerId: worker,
			Linux: &criapi.LinuxContainerResources{HugepageLimits: []*criapi.HugepageLimit{{PageSize: "2MB", Limit: limit}}}})
		return err
	})
	if err != nil {
		return err
	}
	got, err := s.run("cat /sys/fs/cgroup/hugetlb.2MB.max")
	if err != nil || string(got.Stdout) != fmt.Sprintln(limit) {
		return fmt.Errorf("the limit inside is %v, %w; want %d", got, err, limit)
	}
	now, err := s.status("worker")
	if got := now.GetResources().GetLinux().GetHugepageLimits(); err != nil || len(got) != 1 || got[0].Limit != limit {
		return fmt.Errorf("the limit in the status is %v, %w; want %d", got, err, limit)
	}
	return nil
}

func (s *story) reopenLog() error {
	return s.beside.rotate(func(id string) error {
		return s.call(func(ctx context.Context) error {
			_, err := s.d.ReopenContainerLog(ctx, &criapi.ReopenContainerLogRequest{ContainerId: id})
			return err
		})
	}, func() int {
		if s.cutMonitor {
			return 1
		}
		return 0
	})
}

// restart kills the daemon, and the next one at the armed point perhaps.
func (s *story) restart() error {
	s.d.kill()
	s.d.launch()
	err := s.d.answers()
	if err != nil && s.fired() {
		s.revive()
		return nil
	}
	return err
}

// upgrade is a restart with the other one of two builds.
func (s *story) upgrade() error {
	s.d.swapBuild(s.build)
	return s.restart()
}

func (s *story) startLate() error {
	if err := s.start("late"); err != nil {
		return err
	}
	return s.exits("late", 42)
}

func (s *story) exits(name string, code int32) error {
	var now *criapi.ContainerStatus
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		var err error
		if now, err = s.status(name); err != nil {
			return err
		}
		if now.State == criapi.ContainerState_CONTAINER_EXITED {
			break
		}
	}
	if now.GetState() != criapi.ContainerState_CONTAINER_EXITED || now.ExitCode != code {
		return fmt.Errorf("%s is %s, exit code %d, %s %s; want it to end with %d", name, now.GetState(), now.GetExitCode(), now.GetReason(), now.GetMessage(), code)
	}
	return nil
}

func (s *story) stop() error {
	worker := s.containers["worker"].id
	err := s.call(func(ctx context.Context) error {
		_, err := s.d.StopContainer(ctx, &criapi.StopContainerRequest{ContainerId: worker, Timeout: 60})
		return err
	})
	if err != nil {
		return err
	}
	return s.exits("worker", 7)
}

func (s *story) removeImage() error {
	err := s.call(func(ctx context.Context) error {
		_, err := s.d.images.RemoveImage(ctx, &criapi.RemoveImageRequest{Image: &criapi.ImageSpec{Image: crashImage}})
		return err
	})
	if err != nil {
		return err
	}
	answer, err := s.d.images.ImageStatus(s.d.context(), &criapi.ImageStatusRequest{Image: &criapi.ImageSpec{Image: crashImage}})
	if err != nil || answer.Image != nil {
		return fmt.Errorf("after its removal the image is %v, %w", answer, err)
	}
	return nil
}

func (s *story) remove() error {
	for _, name := range []string{"worker", "late"} {
		id := s.containers[name].id
		err := s.call(func(ctx context.Context) error {
			_, err := s.d.RemoveContainer(ctx, &criapi.RemoveContainerRequest{ContainerId: id})
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (s *story) stopPod() error {
	err := s.call(func(ctx context.Context) error {
		_, err := s.d.StopPodSandbox(ctx, &criapi.StopPodSandboxRequest{PodSandboxId: s.pod.id})
		return err
	})
	if err != nil {
		return err
	}
	answer, err := s.d.PodSandboxStatus(s.d.context(), &criapi.PodSandboxStatusRequest{PodSandboxId: s.pod.id})
	if err != nil || answer.Status.State != criapi.PodSandboxState_SANDBOX_NOTREADY {
		return fmt.Errorf("after its stop the pod is %v, %w", answer, err)
	}
	return s.exits("last", 137)
}

func (s *story) removePod() error {
	err := s.call(func(ctx context.Context) error {
		_, err := s.d.RemovePodSandbox(ctx, &criapi.RemovePodSandboxRequest{PodSandboxId: s.pod.id})
		return err
	})
	if err != nil {
		return err
	}
	if _, err = s.d.PodSandboxStatus(s.d.context(), &criapi.PodSandboxStatusRequest{PodSandboxId: s.pod.id}); grpcstatus.Code(err) != codes.NotFound {
		return fmt.Errorf("after its removal the pod's status is %v", err)
	}
	return nil
}
