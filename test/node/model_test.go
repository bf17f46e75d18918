package node

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"cri-mini/test/node/model"
)

var (
	modelPods  = flag.Int("pods", 150, "how many pods the model test runs")
	modelSeed  = flag.Uint64("seed", 0, "of the model test; 0: another one each time")
	modelKills = flag.Int("kills", 0, "how many SIGKILLs the model test meets at least")
	modelPause = flag.Duration("kill-pause", 1800*time.Millisecond, "the longest time between two ends of a process in the model test")
)

const (
	modelActors = 8
	sharedNames = 4
)

// contest is one run of the model test: actors against one node, and somebody
// who kills its processes.
type contest struct {
	d     *daemon
	seed  uint64
	watch *watcher

	pods     atomic.Int64 // that were run
	calls    atomic.Int64
	cuts     atomic.Int64 // calls whose answer nobody heard
	retries  atomic.Int64
	repeated atomic.Int64 // calls issued more than once at a time
	races    atomic.Int64 // pairs of different calls at a time
	seen     atomic.Int64 // comparisons with lists and statuses

	over chan struct{} // closed when there were enough pods and kills, or a disagreement
	once sync.Once

	disturbed atomic.Bool // by each kind of kill, often enough

	// disturbances counts the beginnings and ends of kills: while it is odd, or
	// when it changed, an error may come from that.
	disturbances atomic.Int64
}

func (c *contest) end() { c.once.Do(func() { close(c.over) }) }

// enough ends the contest when it has shown what it is for.
func (c *contest) enough() {
	if c.pods.Load() >= int64(*modelPods) && c.disturbed.Load() {
		c.end()
	}
}

// TestNodeDoesWhatTheModelDoes has actors make random calls, good and bad,
// cut off, repeated and at the same time, while daemon and monitor are killed.
// Each answer, list, status and event must fit the model of package model. At
// the end nothing may be left.
func TestNodeDoesWhatTheModelDoes(t *testing.T) {
	d := ready(t)
	seed := *modelSeed
	if seed == 0 {
		seed = rand.Uint64()>>40 + 1
	}
	t.Logf("to see it again: go test ./test/node -run TestNodeDoesWhatTheModelDoes -v -args -pods %d -seed %d", *modelPods, seed)
	c := &contest{d: d, seed: seed, over: make(chan struct{})}
	var actors []*actor
	for n := range modelActors {
		name := fmt.Sprintf("model-%d", n)
		registry(t).Push(name, "1", busyboxWith(t, ocispec.ImageConfig{Env: []string{"ACTOR=" + name}}))
		actors = append(actors, &actor{contest: c, n: n, image: "registry.test/" + name + ":1", unknown: registry(t).Host() + "/no-such-image:1",
			random: rand.New(rand.NewPCG(seed, uint64(n)))})
	}
	d.sharedLife()
	check := d.unchanged()
	c.watch = watchEvents(d)
	began := time.Now()
	var running sync.WaitGroup
	for _, a := range actors {
		running.Go(a.play)
	}
	done := c.disturb(rand.New(rand.NewPCG(seed, modelActors)))
	running.Wait()
	took := time.Since(began)
	for _, a := range actors {
		if a.failed != "" {
			t.Errorf("seed %d: %s", seed, a.failed)
		}
	}
	if !t.Failed() {
		c.removeShared()
		c.watch.end(t)
	}
	sum := fmt.Sprintf("seed %d: %d pods, %d calls in %s; %d cut off, %d retries, %d repeated at once, %d pairs at once, %d comparisons, %d events; %d kills of the daemon, %d ends of it, %d kills of the monitor",
		seed, c.pods.Load(), c.calls.Load(), took.Round(time.Millisecond), c.cuts.Load(), c.retries.Load(), c.repeated.Load(), c.races.Load(),
		c.seen.Load(), c.watch.count(), done[daemonKilled], done[daemonAsked], done[monitorKilled])
	if t.Failed() {
		t.Log(sum)
		return
	}
	for _, what := range []struct {
		name string
		n    int64
	}{{"cut off", c.cuts.Load()}, {"repeated", c.repeated.Load()}, {"at the same time", c.races.Load()}} {
		if what.n == 0 {
			t.Errorf("nothing was %s: the test does not do what it says", what.name)
		}
	}
	d.sharedLife()
	check()
	if !t.Failed() {
		t.Logf("%s; lost 0, leaked 0", sum)
	}
}

// sharedLife has the daemon keep what the first pod with a shared PID namespace
// makes: the program of its init.
func (d *daemon) sharedLife() {
	d.t.Helper()
	p := d.runPod("shared", func(c *criapi.PodSandboxConfig) {
		c.Linux.SecurityContext.NamespaceOptions.Pid = criapi.NamespaceMode_POD
	})
	p.remove()
}

// disturbance is how a process of the node ends.
type disturbance int

const (
	daemonKilled disturbance = iota
	daemonAsked
	monitorKilled
	disturbanceKinds
)

// disturb ends the daemon, by SIGKILL or SIGTERM, and rarely the monitor, until
// the contest is over. It begins with one of each, so that the fastest node has
// met all of them.
func (c *contest) disturb(random *rand.Rand) (done [disturbanceKinds]int) {
	first := random.Perm(int(disturbanceKinds))
	for {
		select {
		case <-c.over:
			return done
		case <-time.After(*modelPause/6 + time.Duration(random.Int64N(int64(*modelPause)*5/6))):
		}
		kind := []disturbance{monitorKilled, daemonAsked, daemonAsked, daemonAsked, daemonKilled}[min(random.IntN(10), 4)]
		if len(first) > 0 {
			kind, first = disturbance(first[0]), first[1:]
		}
		c.disturbances.Add(1)
		c.meet(kind)
		c.disturbances.Add(1)
		done[kind]++
		if len(first) == 0 && done[daemonKilled]+done[monitorKilled] >= *modelKills {
			c.disturbed.Store(true)
		}
	}
}

// meet returns when the node is whole again.
func (c *contest) meet(kind disturbance) {
	switch kind {
	case daemonKilled:
		c.d.restart()
	case daemonAsked:
		c.d.terminate()
		c.d.serve()
	case monitorKilled:
		c.d.killMonitor()
	}
}

// removeShared removes the pods that belong to no actor.
func (c *contest) removeShared() {
	list, err := c.d.ListPodSandbox(c.d.context(), &criapi.ListPodSandboxRequest{})
	if err != nil {
		c.d.t.Error(err)
		return
	}
	for _, item := range list.Items {
		if _, shared := item.Labels["shared"]; !shared {
			c.d.t.Errorf("at the end there is still pod %s of actor %q", item.Metadata.Name, item.Labels["actor"])
		}
	}
	if err := c.d.down(podIDs(list.Items)); err != nil {
		c.d.t.Error(err)
	}
	containers, err := c.d.ListContainers(c.d.context(), &criapi.ListContainersRequest{})
	if err != nil || len(containers.Containers) > 0 {
		c.d.t.Errorf("at the end there are still containers %v, %v", containers, err)
	}
}

func podIDs(items []*criapi.PodSandbox) []string {
	ids := make([]string, len(items))
	for i, item := range items {
		ids[i] = item.Id
	}
	return ids
}

// commands are what the programs of the model are on a real node. A shell that
// waits can be asked to end; a sleep that is PID 1 cannot.
var commands = map[model.Program][]string{
	model.Sleeps:  {"sleep", "1000"},
	model.Obeys:   {"sh", "-c", fmt.Sprintf("trap 'exit %d' TERM; sleep 1000 & wait", model.CodeAsked)},
	model.Ends:    {"sh", "-c", fmt.Sprintf("exit %d", model.CodeEnds)},
	model.Missing: {"/no/such/program"},
}

// reasons of exit codes, as users know them.
var reasons = map[int32]string{
	model.CodeAsked: "Error", model.CodeEnds: "Error", model.CodeKilled: "Error", model.CodeTerminated: "Error", model.CodeAbsent: "ContainerCannotRun", model.CodeBroken: "StartError",
}
