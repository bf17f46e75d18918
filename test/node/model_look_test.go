package node

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"cri-mini/test/node/model"
)

// weights of calls: about as often as they bring a pod through its life, and
// sometimes where they make no sense.
var weights = map[model.PodState][]struct {
	kind model.Kind
	n    int
}{
	model.Absent: {{model.RunPod, 70}, {model.Create, 3}, {model.Start, 2}, {model.Stop, 2}, {model.StopPod, 2}, {model.RemovePod, 2},
		{model.Remove, 2}, {model.PodStatus, 2}, {model.UpdatePod, 2}, {model.Exec, 2}, {model.Status, 2}, {model.Update, 2}, {model.RemoveImage, 2}},
	model.Ready: {{model.Create, 26}, {model.Start, 22}, {model.Exec, 14}, {model.Stop, 10}, {model.Remove, 10}, {model.StopPod, 6},
		{model.RemovePod, 5}, {model.Status, 4}, {model.Update, 3}, {model.UpdatePod, 2}, {model.PodStatus, 2}, {model.RunPod, 2}, {model.Kill, 4},
		{model.Pull, 1}, {model.RemoveImage, 2}, {model.ImageStatus, 1}},
	model.NotReady: {{model.RemovePod, 40}, {model.Create, 6}, {model.Start, 6}, {model.Exec, 4}, {model.Stop, 5}, {model.Remove, 8},
		{model.StopPod, 5}, {model.Status, 4}, {model.Update, 3}, {model.UpdatePod, 2}, {model.PodStatus, 2}, {model.RunPod, 4}},
}

// wanted is in which state of a container a call does something.
var wanted = map[model.Kind]model.ContainerState{
	model.Create: model.None, model.Start: model.Created, model.Stop: model.Running, model.Exec: model.Running, model.Kill: model.Running,
	model.Remove: model.Exited,
}

// choose makes up the next call about a pod.
func (a *actor) choose(pod int) model.Op {
	w, _ := a.may.One()
	p := w.Pods[pod]
	op := model.Op{Kind: a.chooseKind(p.State), Pod: pod, Slot: a.random.IntN(model.Slots)}
	if op.Kind == model.Create && !w.Image && a.random.IntN(4) > 0 {
		op.Kind = model.Pull
	}
	if state, some := wanted[op.Kind]; some && a.random.IntN(5) > 0 {
		for range model.Slots {
			if p.Containers[op.Slot].State == state {
				break
			}
			op.Slot = (op.Slot + 1) % model.Slots
		}
	}
	c := p.Containers[op.Slot]
	flawed := a.random.IntN(6) == 0
	pick := func(flaws ...model.Flaw) {
		if flawed {
			op.Flaw = flaws[a.random.IntN(len(flaws))]
		}
	}
	switch op.Kind {
	case model.RunPod:
		pick(model.BadHostname, model.BadHandler)
	case model.Create:
		op.Program = []model.Program{model.Sleeps, model.Sleeps, model.Obeys, model.Ends, model.Missing}[a.random.IntN(5)]
		pick(model.UnknownImage, model.BadMount, model.BadCapability)
	case model.Stop:
		// A program that does not obey costs a second.
		op.Grace = a.random.IntN(2) == 0 && (c.Program != model.Sleeps || a.random.IntN(8) == 0)
	case model.Exec:
		pick(model.NoProgram, model.Fails)
		if op.Flaw == model.Fails && a.random.IntN(10) == 0 {
			op.Flaw = model.TooLong
		}
	case model.Update:
		pick(model.BadLimit)
	case model.Pull:
		pick(model.UnknownImage)
	}
	if op.Kind < model.Create || op.Kind >= model.Pull && op.Kind < model.Kill {
		op.Slot = 0
	}
	return op
}

func (a *actor) chooseKind(state model.PodState) model.Kind {
	sum := 0
	for _, x := range weights[state] {
		sum += x.n
	}
	dice := a.random.IntN(sum)
	for _, x := range weights[state] {
		if dice -= x.n; dice < 0 {
			return x.kind
		}
	}
	return model.RunPod
}

// persist makes a call that only reads until it is answered.
func persist[Q, A any](a *actor, call func(context.Context, Q, ...grpc.CallOption) (A, error), request Q) (answer A, err error) {
	for range 50 {
		ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
		answer, err = call(ctx, request, grpc.WaitForReady(true))
		cancel()
		if code := status.Code(err); code != codes.Unavailable && code != codes.Canceled {
			return answer, err
		}
		time.Sleep(10 * time.Millisecond)
	}
	return answer, err
}

// look compares one pod with lists and statuses, through filters too.
func (a *actor) look(pod int) {
	if a.failed != "" {
		return
	}
	mine := map[string]string{"actor": fmt.Sprint(a.n), "pod": fmt.Sprint(pod)}
	pods, err := persist(a, a.d.ListPodSandbox, &criapi.ListPodSandboxRequest{Filter: &criapi.PodSandboxFilter{LabelSelector: mine}})
	if err != nil || len(pods.Items) > 1 {
		a.disagree(pod, fmt.Errorf("list of pods: %v, %v; want one at most", pods, err))
		return
	}
	state := model.Absent
	for _, item := range pods.Items {
		if state = model.Ready; item.State == criapi.PodSandboxState_SANDBOX_NOTREADY {
			state = model.NotReady
		}
		a.pods[pod].id = item.Id
	}
	a.see(pod, fmt.Sprintf("the list says that pod %d is %s", pod, podStates[state]), func(w model.World) bool { return w.Pods[pod].State == state })
	a.lookAtContainers(pod, mine)
	a.lookThroughFilter(pod, mine)
}

func (a *actor) lookAtContainers(pod int, mine map[string]string) {
	list, err := persist(a, a.d.ListContainers, &criapi.ListContainersRequest{Filter: &criapi.ContainerFilter{LabelSelector: mine}})
	if err != nil {
		a.disagree(pod, fmt.Errorf("list of containers: %w", err))
		return
	}
	states := [model.Slots]model.ContainerState{}
	for _, item := range list.Containers {
		slot := slotOf(item.Labels)
		if states[slot] != model.None {
			a.disagree(pod, fmt.Errorf("the list has two containers %s: %v", item.Metadata, list))
			return
		}
		states[slot] = stateOf(item.State)
		a.pods[pod].containers[slot] = item.Id
	}
	a.see(pod, fmt.Sprintf("the list of containers %v", states), func(w model.World) bool {
		for slot, c := range w.Pods[pod].Containers {
			if c.State != states[slot] {
				return false
			}
		}
		return true
	})
	if _, only := a.may.One(); only && a.failed == "" && a.random.IntN(8) == 0 {
		a.awaitEvents(pod, states)
	}
	for slot := range states {
		if states[slot] != model.None && a.failed == "" {
			a.once(model.Op{Kind: model.Status, Pod: pod, Slot: slot})
		}
	}
}

// awaitEvents waits until events told at least what a list told.
func (a *actor) awaitEvents(pod int, states [model.Slots]model.ContainerState) {
	for slot, state := range states {
		id := a.pods[pod].containers[slot]
		if state != model.None && !a.watch.reached(id, eventOf[state]) {
			a.disagree(pod, fmt.Errorf("container %d is listed as %d, and no event says so within %s", slot, state, patience))
		}
	}
}

// lookThroughFilter asks only for some containers.
func (a *actor) lookThroughFilter(pod int, mine map[string]string) {
	filter := &criapi.ContainerFilter{LabelSelector: mine}
	wantSlot, wantState := -1, model.None
	if a.random.IntN(2) == 0 {
		wantState = []model.ContainerState{model.Created, model.Running, model.Exited}[a.random.IntN(3)]
		filter.State = &criapi.ContainerStateValue{State: criapi.ContainerState(wantState - model.Created)}
	}
	if a.random.IntN(2) == 0 {
		wantSlot = a.random.IntN(model.Slots)
		filter.Id = a.pods[pod].containers[wantSlot][:20]
	}
	if a.random.IntN(2) == 0 {
		filter.PodSandboxId = a.pods[pod].id
	}
	list, err := persist(a, a.d.ListContainers, &criapi.ListContainersRequest{Filter: filter})
	if err != nil {
		a.disagree(pod, fmt.Errorf("list of containers: %w", err))
		return
	}
	listed := [model.Slots]model.ContainerState{}
	for _, item := range list.Containers {
		listed[slotOf(item.Labels)] = stateOf(item.State)
	}
	a.see(pod, fmt.Sprintf("with the filter %s the list of containers %v", filter, listed), func(w model.World) bool {
		for slot, c := range w.Pods[pod].Containers {
			want := c.State
			if wantState != model.None && c.State != wantState || wantSlot >= 0 && slot != wantSlot {
				want = model.None
			}
			if listed[slot] != want {
				return false
			}
		}
		return true
	})
}

func (a *actor) seeStatus(pod, slot int, got answer) {
	state := stateOf(got.state)
	a.see(pod, fmt.Sprintf("the status of container %d/%d: %s, exit code %d %s", pod, slot, got.state, got.exit, got.reason), func(w model.World) bool {
		c := w.Pods[pod].Containers[slot]
		return c.State == state && (state != model.Exited || int32(c.Code) == got.exit)
	})
	if state == model.Exited && got.reason != reasons[got.exit] {
		a.disagree(pod, fmt.Errorf("the reason of exit code %d is %q, want %q", got.exit, got.reason, reasons[got.exit]))
	}
}

// shared makes a call about a pod that others want as well. Its outcome depends
// on them; all that must hold is that the name is had once.
func (a *actor) shared() {
	name := fmt.Sprintf("shared-%d", a.random.IntN(sharedNames))
	config := a.d.podConfig(name)
	config.Labels = map[string]string{"shared": name}
	remove := a.random.IntN(2) == 0
	before := a.disturbances.Load()
	quiet := func() bool { return before%2 == 0 && a.disturbances.Load() == before }
	run, err := persist(a, a.d.RunPodSandbox, &criapi.RunPodSandboxRequest{Config: config})
	code := status.Code(err)
	a.note(0, "run %s: %v", name, err)
	if code == codes.OK {
		a.contest.pods.Add(1)
	} else if code != codes.AlreadyExists && quiet() {
		a.disagree(0, fmt.Errorf("run %s: %w", name, err))
	}
	list, err := persist(a, a.d.ListPodSandbox, &criapi.ListPodSandboxRequest{Filter: &criapi.PodSandboxFilter{LabelSelector: config.Labels}})
	if err != nil || len(list.Items) > 1 {
		a.disagree(0, fmt.Errorf("list of pods with one name: %v, %v", list, err))
	}
	if remove && run.GetPodSandboxId() != "" {
		_, err := persist(a, a.d.RemovePodSandbox, &criapi.RemovePodSandboxRequest{PodSandboxId: run.PodSandboxId})
		a.note(0, "remove %s: %v", name, err)
		if err != nil && quiet() {
			a.disagree(0, fmt.Errorf("remove %s: %w", name, err))
		}
	}
}

func slotOf(labels map[string]string) int { return int(labels["slot"][0] - '0') }

func stateOf(s criapi.ContainerState) model.ContainerState {
	return model.ContainerState(s) + model.Created
}

var podStates = map[model.PodState]string{model.Absent: "absent", model.Ready: "ready", model.NotReady: "not ready"}
