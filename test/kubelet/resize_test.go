package kubelet

import (
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// share is what a container asks for and what it may take at most.
type share struct{ request, limit int }

// resources are thousandths of a processor, and MiB.
type resources struct{ cpu, memory share }

// startOfResized is what pods/resized.yaml has for each container.
var startOfResized = resources{cpu: share{100, 200}, memory: share{32, 48}}

func (r resources) requests() map[string]string {
	return map[string]string{"cpu": fmt.Sprintf("%dm", r.cpu.request), "memory": fmt.Sprintf("%dMi", r.memory.request)}
}

func (r resources) limits() map[string]string {
	return map[string]string{"cpu": fmt.Sprintf("%dm", r.cpu.limit), "memory": fmt.Sprintf("%dMi", r.memory.limit)}
}

// resized is one pod whose containers get other resources while they run.
type resized struct {
	*node
	runtime  criapi.RuntimeServiceClient
	ids      map[string]string // of the containers, by name
	restarts map[string]int
}

// TestRunningPodIsResized has the server tell of other resources of a pod. What
// is in force is told by three: the kubelet, the runtime, and the container,
// which sees its own group.
func TestRunningPodIsResized(t *testing.T) {
	needControllers(t)
	n, _ := clustered(t, func(*node) {})
	n.give("resized", nil)
	n.awaitReady("resized")
	connection, err := grpc.NewClient(n.Endpoint(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer connection.Close()
	r := &resized{n, criapi.NewRuntimeServiceClient(connection), map[string]string{}, map[string]int{"main": 0, "restarted": 0}}
	for name := range r.restarts {
		r.ids[name] = r.container(name).ContainerID
		r.inForce(name, startOfResized)
	}
	for _, scenario := range []struct {
		name string
		run  func(*resized)
	}{
		{"ProcessorUpAndDown", resizeProcessor},
		{"MemoryUpAndDown", resizeMemory},
		{"MemoryBelowItsUseWaits", resizeBelowUse},
		{"MoreThanTheNodeHasIsPutOff", resizeBeyondNode},
		{"PolicyRestartsOnce", resizeWithRestart},
	} {
		t.Run(scenario.name, func(t *testing.T) {
			own, node := *r, *n
			node.t, own.node = t, &node
			scenario.run(&own)
		})
	}
	n.dismiss("resized")
}

// resizeProcessor ends with what it began with.
func resizeProcessor(r *resized) {
	for _, cpu := range []struct {
		share
		weight string
	}{{share{200, 500}, "29"}, {share{100, 100}, "17"}, {share{100, 200}, "17"}} {
		r.resize("main", resources{cpu.share, startOfResized.memory})
		dir := weightOf(r.group("burstable", r.now(), "main"))
		if got := r.groupFile(dir, "cpu.weight"); got != cpu.weight {
			r.t.Errorf("cpu.weight %q with a request of %dm, want %q", got, cpu.request, cpu.weight)
		}
	}
}

// resizeMemory leaves 56 MiB in use: more than the container could have at first.
func resizeMemory(r *resized) {
	r.resize("main", resources{startOfResized.cpu, share{48, 96}})
	if out, err := r.tryRunAs("resized", "main", "dd", "if=/dev/zero", "of=/dev/shm/file", "bs=1M", "count=56"); err != nil {
		r.t.Fatalf("56 MiB with a limit of 96: %v: %s", err, out)
	}
	r.resize("main", resources{startOfResized.cpu, share{32, 80}})
}

// resizeBelowUse finds the container of resizeMemory.
func resizeBelowUse(r *resized) {
	before, less := resources{startOfResized.cpu, share{32, 80}}, resources{startOfResized.cpu, share{32, 40}}
	r.server.resize("resized", "main", less)
	r.refused("PodResizeInProgress", "Error", `attempting to set container "main" memory limit (41943040) below current usage`)
	r.unchanged("main", before)
	if out, err := r.tryRunAs("resized", "main", "rm", "/dev/shm/file"); err != nil {
		r.t.Fatalf("%v: %s", err, out)
	}
	r.inForce("main", less)
}

func resizeBeyondNode(r *resized) {
	before := resources{startOfResized.cpu, share{32, 40}}
	r.server.resize("resized", "main", resources{startOfResized.cpu, share{900_001, 900_001}})
	r.refused("PodResizePending", "Deferred", "Node didn't have enough resource: memory")
	r.unchanged("main", before)
	r.resize("main", before)
}

func resizeWithRestart(r *resized) {
	r.restarts["restarted"]++
	r.resize("restarted", resources{startOfResized.cpu, share{32, 64}})
	r.resize("restarted", resources{share{200, 300}, share{32, 64}})
	time.Sleep(12 * time.Second) // the kubelet looks at everything twice
	r.inForce("restarted", resources{share{200, 300}, share{32, 64}})
	r.unchanged("main", resources{startOfResized.cpu, share{32, 40}})
}

// resize changes the resources of a container and waits until they are in force.
func (r *resized) resize(name string, want resources) {
	r.t.Helper()
	r.server.resize("resized", name, want)
	r.inForce(name, want)
}

// resize is what the part "resize" of a pod does: the kubelet is told by the pod.
func (s *apiServer) resize(pod, name string, want resources) {
	s.t.Helper()
	o := s.get(podsPath + pod)
	if o == nil {
		s.t.Fatalf("no pod %s to resize", pod)
	}
	var containers []any
	for _, c := range o["spec"].(object)["containers"].([]any) {
		if c.(object)["name"] == name {
			c = merged(c.(object), object{"resources": object{"requests": want.requests(), "limits": want.limits()}})
		}
		containers = append(containers, c)
	}
	s.patch(podsPath+pod, object{"spec": object{"containers": containers}})
}

// inForce waits until the kubelet is done with a resize; then everyone has to
// agree.
func (r *resized) inForce(name string, want resources) {
	r.t.Helper()
	r.within(2*patience, fmt.Sprintf("%s has %+v", name, want), func() error {
		p, err := r.server.pod("resized")
		if err != nil {
			return err
		}
		c, err := p.container(name)
		if err == nil && (c.State.Running == nil || c.RestartCount != r.restarts[name] || !c.has(want) ||
			!maps.Equal(c.AllocatedResources, want.requests()) ||
			p.condition("PodResizePending") != "absent" || p.condition("PodResizeInProgress") != "absent") {
			err = fmt.Errorf("%s", p)
		}
		return err
	})
	r.unchanged(name, want)
}

func (c *container) has(want resources) bool {
	return maps.Equal(c.Resources.Requests, want.requests()) && maps.Equal(c.Resources.Limits, want.limits())
}

// refused waits until the kubelet says why a resize is not done.
func (r *resized) refused(condition, reason, why string) {
	r.t.Helper()
	r.within(2*patience, condition+" says "+reason, func() error {
		p, err := r.server.pod("resized")
		if err != nil {
			return err
		}
		for _, c := range p.Status.Conditions {
			if c.Type == condition && c.Status == "True" && c.Reason == reason && strings.Contains(c.Message, why) {
				return nil
			}
		}
		return fmt.Errorf("%s", p)
	})
}

// unchanged looks whether a container has these resources by everyone's word,
// and runs since it was started first, or restarted as it was to be.
func (r *resized) unchanged(name string, want resources) {
	r.t.Helper()
	c := r.container(name)
	if c.State.Running == nil || c.RestartCount != r.restarts[name] || !c.has(want) {
		r.t.Errorf("the kubelet says of %s: %+v, want it to run after %d restarts with %+v", name, c, r.restarts[name], want)
	}
	if same := c.ContainerID == r.ids[name]; same != (r.restarts[name] == 0) {
		r.t.Errorf("%s was %s and is %s after %d restarts", name, r.ids[name], c.ContainerID, r.restarts[name])
	}
	_, id, _ := strings.Cut(c.ContainerID, "://")
	answer, err := r.runtime.ContainerStatus(r.t.Context(), &criapi.ContainerStatusRequest{ContainerId: id})
	if err != nil {
		r.t.Fatal(err)
	}
	l := answer.Status.GetResources().GetLinux()
	if l.GetCpuQuota() != int64(want.cpu.limit)*100 || l.GetCpuPeriod() != 100_000 ||
		l.GetCpuShares() != int64(want.cpu.request)*1024/1000 || l.GetMemoryLimitInBytes() != int64(want.memory.limit)*mebibyte {
		r.t.Errorf("the runtime says of %s: %v, want %+v", name, l, want)
	}
	got, err := r.tryRunAs("resized", name, "cat", "/sys/fs/cgroup/cpu.max", "/sys/fs/cgroup/memory.max")
	if inside := fmt.Sprintf("%d 100000\n%d", want.cpu.limit*100, want.memory.limit*mebibyte); err != nil || strings.TrimSpace(got) != inside {
		r.t.Errorf("%s sees %q, %v, want %q", name, got, err, inside)
	}
}

func (r *resized) now() *pod {
	r.t.Helper()
	p, err := r.server.pod("resized")
	if err != nil {
		r.t.Fatal(err)
	}
	return p
}

func (r *resized) container(name string) *container {
	r.t.Helper()
	c, err := r.now().container(name)
	if err != nil {
		r.t.Fatal(err)
	}
	return c
}
