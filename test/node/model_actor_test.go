package node

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc/codes"

	"cri-mini/test/node/model"
)

// actor is one client. It knows what may be on the node of what it made there.
// It makes its calls one after the other, unless it wants them at the same
// time.
type actor struct {
	*contest
	n       int
	image   string // nobody else's
	unknown string // an image that the registry does not have
	random  *rand.Rand

	may   model.May
	pods  [model.Pods]known
	steps int

	failed string // a disagreement: what, and how it came to it
}

// known is what an actor calls a pod and its containers by. Ids of what is gone
// are kept, to ask for it.
type known struct {
	id         string
	containers [model.Slots]string
	trace      []string // the last operations
}

const traceLength = 50

func (a *actor) note(pod int, format string, args ...any) {
	k := &a.pods[pod]
	k.trace = append(k.trace, fmt.Sprintf("step %d: ", a.steps)+fmt.Sprintf(format, args...))
	k.trace = k.trace[max(0, len(k.trace)-traceLength):]
}

// disagree ends everything; only the first is told.
func (a *actor) disagree(pod int, err error) {
	if a.failed != "" {
		return
	}
	a.failed = fmt.Sprintf("actor %d, step %d: %v\npod %s, containers %s\nthe last operations:\n  %s", a.n, a.steps, err,
		a.pods[pod].id, a.pods[pod].containers, strings.Join(a.pods[pod].trace, "\n  "))
	a.end()
}

func (a *actor) play() {
	for i := range a.pods { // ids of nothing
		a.pods[i].id = fmt.Sprintf("%064x", 0xabc+i)
		for s := range a.pods[i].containers {
			a.pods[i].containers[s] = fmt.Sprintf("%064x", 0xdef+8*i+s)
		}
	}
	for a.failed == "" {
		select {
		case <-a.over:
			a.leave()
			return
		default:
		}
		a.step()
		a.enough()
	}
}

// step is one or a few calls, and a look at what they did.
func (a *actor) step() {
	a.steps++
	op := a.choose(a.random.IntN(model.Pods))
	switch dice := a.random.IntN(100); {
	case dice < 60:
		a.once(op)
	case dice < 75:
		a.cutShort(op)
	case dice < 87:
		a.atOnce(op)
	case dice < 96:
		a.pair(op)
	default:
		a.shared()
	}
	if a.failed == "" && a.random.IntN(4) == 0 {
		a.look(op.Pod)
	}
}

// once makes a call, again and again until it knows how that ended.
func (a *actor) once(op model.Op) {
	for try := 0; a.failed == ""; try++ {
		got := a.call(context.Background(), op)
		a.note(op.Pod, "%s: %s", op, got)
		if a.settle(op, got) {
			return
		}
		if try > 100 {
			a.disagree(op.Pod, fmt.Errorf("%s does not come to an end", op))
			return
		}
		a.retries.Add(1)
		time.Sleep(10 * time.Millisecond)
	}
}

// settle hands an answer to the model. It is false for one that nobody heard.
func (a *actor) settle(op model.Op, got answer) bool {
	if got.unsure(op) {
		a.cuts.Add(1)
		// A start whose caller left goes on, perhaps into a kill that comes later.
		op.Disturbed = got.disturbed || op.Kind == model.Start
		a.may.CutOff(op)
		return false
	}
	if err := a.may.Answer(op, got.code); err != nil {
		a.disagree(op.Pod, err)
		return true
	}
	a.learn(op, got)
	return true
}

// learn compares the rest of an answer, and keeps ids.
func (a *actor) learn(op model.Op, got answer) {
	k := &a.pods[op.Pod]
	one, only := a.may.One()
	switch op.Kind {
	case model.RunPod:
		if got.code == codes.OK {
			k.id = got.id
			a.contest.pods.Add(1)
		}
		if got.code == codes.AlreadyExists { // from a call that was cut off, perhaps
			a.look(op.Pod)
			if a.failed == "" && !strings.Contains(got.text, k.id) {
				a.disagree(op.Pod, fmt.Errorf("the pod that exists is not named: %s", got.text))
			}
		}
	case model.Create:
		if got.code == codes.OK {
			k.containers[op.Slot] = got.id
		}
		if got.code == codes.AlreadyExists {
			a.look(op.Pod)
		}
	case model.Exec:
		c := one.Pods[op.Pod].Containers[op.Slot]
		want := map[model.Flaw]int32{model.Fails: model.CodeEnds}[op.Flaw]
		if sure := only && c.State == model.Running && (c.Program == model.Sleeps || c.Program == model.Obeys); sure && got.code == codes.OK &&
			(got.exec.ExitCode != want || string(got.exec.Stdout) != "hello\n") {
			a.disagree(op.Pod, fmt.Errorf("%s gives %v", op, got.exec))
		}
	case model.Status:
		if got.code == codes.OK {
			a.seeStatus(op.Pod, op.Slot, got)
		}
	case model.ImageStatus:
		a.see(op.Pod, fmt.Sprintf("image there: %t", got.there), func(w model.World) bool { return w.Image == got.there })
	}
}

func (a *actor) see(pod int, what string, fits func(model.World) bool) {
	a.seen.Add(1)
	if a.failed != "" {
		return
	}
	if err := a.may.See(what, fits); err != nil {
		a.note(pod, "saw %s", what)
		a.disagree(pod, err)
	}
}

// cutShort leaves in the middle of a call, has a look perhaps, and tries again
// as the kubelet would.
func (a *actor) cutShort(op model.Op) {
	delay := a.delay()
	ctx, cancel := context.WithTimeout(context.Background(), delay)
	got := a.call(ctx, op)
	cancel()
	a.note(op.Pod, "%s, cut off after %s: %s", op, delay, got)
	if got.code == codes.DeadlineExceeded && op.Flaw == model.TooLong {
		got.code = codes.Canceled // ours or the exec's
	}
	if a.settle(op, got) {
		return
	}
	if a.random.IntN(2) == 0 {
		a.look(op.Pod)
	}
	a.retries.Add(1)
	a.once(op)
}

// delay is up to 20 ms, most often less: most calls take two.
func (a *actor) delay() time.Duration {
	f := a.random.Float64()
	return time.Duration(f*f*20_000) * time.Microsecond
}

// atOnce makes the same call two or three times at a time; the first caller
// leaves early sometimes.
func (a *actor) atOnce(op model.Op) {
	a.repeated.Add(1)
	n := 2 + a.random.IntN(2)
	delay, leaves := a.delay(), a.random.IntN(2) == 0
	answers := make([]answer, n)
	var calls sync.WaitGroup
	for i := range answers {
		calls.Go(func() {
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			if leaves && i == 0 {
				defer time.AfterFunc(delay, cancel).Stop()
			}
			answers[i] = a.call(ctx, op)
		})
	}
	calls.Wait()
	a.note(op.Pod, "%s %d times at once, the first leaves after %s: %t: %s", op, n, delay, leaves, answers)
	var sure []answer
	for _, got := range answers {
		if got.unsure(op) {
			a.cuts.Add(1)
		} else {
			sure = append(sure, got)
		}
	}
	op.Disturbed = slices.ContainsFunc(answers, func(x answer) bool { return x.disturbed }) || op.Kind == model.Start && len(sure) == 0
	if len(sure) == 0 {
		a.may.CutOff(op)
		op.Disturbed = false
		a.once(op)
		return
	}
	heard := make([]codes.Code, len(sure))
	id := ""
	for i, got := range sure {
		heard[i] = got.code
		if got.id != "" && id != "" && got.id != id {
			a.disagree(op.Pod, fmt.Errorf("the same call gives %s and %s", id, got.id))
		}
		id = max(id, got.id)
	}
	if op.Kind == model.Exec { // each is one of its own
		for _, code := range heard {
			if err := a.may.Answer(op, code); err != nil {
				a.disagree(op.Pod, err)
			}
		}
		return
	}
	if err := a.may.Answers(op, len(sure) < n, heard...); err != nil {
		a.disagree(op.Pod, err)
		return
	}
	if i := slices.Index(heard, codes.OK); i >= 0 {
		a.learn(op, sure[i])
	} else {
		a.learn(op, sure[0])
	}
}

// pair makes two different calls about the same pod at the same time.
func (a *actor) pair(op model.Op) {
	other := a.choose(op.Pod)
	other.Slot = op.Slot
	// One of each is enough, and the outcome of these depends on more.
	if other.Kind == op.Kind || op.Kind == model.Kill || other.Kind == model.Kill || op.Kind >= model.Pull || other.Kind >= model.Pull {
		a.once(op)
		return
	}
	a.races.Add(1)
	ops, answers := [2]model.Op{op, other}, [2]answer{}
	var calls sync.WaitGroup
	for i := range ops {
		calls.Go(func() { answers[i] = a.call(context.Background(), ops[i]) })
	}
	calls.Wait()
	a.note(op.Pod, "%s: %s; at the same time %s: %s", ops[0], answers[0], ops[1], answers[1])
	unsure := [2]bool{answers[0].unsure(ops[0]), answers[1].unsure(ops[1])}
	if unsure[0] || unsure[1] {
		for i := range ops {
			if unsure[i] {
				a.settle(ops[i], answers[i])
			}
		}
		for i := range ops {
			if !unsure[i] {
				// What the other did of itself is in the model only as a possibility.
				a.may.CutOff(ops[i])
			}
		}
		for i := range ops {
			a.once(ops[i])
		}
		a.look(op.Pod)
		return
	}
	if err := a.may.Both(ops[0], answers[0].code, ops[1], answers[1].code); err != nil {
		a.disagree(op.Pod, err)
		return
	}
	for i := range ops {
		if k := &a.pods[op.Pod]; answers[i].code == codes.OK && ops[i].Kind == model.RunPod {
			k.id = answers[i].id
			a.contest.pods.Add(1)
		} else if answers[i].code == codes.OK && ops[i].Kind == model.Create {
			k.containers[ops[i].Slot] = answers[i].id
		}
	}
}

// leave removes everything, until it is gone.
func (a *actor) leave() {
	for pod := range model.Pods {
		a.once(model.Op{Kind: model.RemovePod, Pod: pod})
		a.look(pod)
	}
	a.once(model.Op{Kind: model.RemoveImage})
	a.once(model.Op{Kind: model.ImageStatus})
	if w, only := a.may.One(); a.failed == "" && (!only || w != model.World{}) {
		a.disagree(0, fmt.Errorf("after the removal of everything there is %s", &a.may))
	}
}
