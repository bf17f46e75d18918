package model

import (
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
)

// say has a client hear answers: "run pod 0: OK" as Op and code.
func say(t *testing.T, m *May, op Op, code codes.Code) {
	t.Helper()
	if err := m.Answer(op, code); err != nil {
		t.Fatal(err)
	}
}

// begun is a client with an image, a pod and a created container.
func begun(t *testing.T, p Program) *May {
	t.Helper()
	m := new(May)
	say(t, m, Op{Kind: Pull}, codes.OK)
	say(t, m, Op{Kind: RunPod}, codes.OK)
	say(t, m, Op{Kind: Create, Program: p}, codes.OK)
	return m
}

func TestWholeLifeFitsTheModel(t *testing.T) {
	m := begun(t, Sleeps)
	for _, step := range []struct {
		op   Op
		code codes.Code
	}{
		{Op{Kind: RunPod}, codes.AlreadyExists},
		{Op{Kind: Create}, codes.AlreadyExists},
		{Op{Kind: Exec}, codes.FailedPrecondition},
		{Op{Kind: Start}, codes.OK},
		{Op{Kind: Start}, codes.FailedPrecondition},
		{Op{Kind: Exec, Flaw: TooLong}, codes.DeadlineExceeded},
		{Op{Kind: Update, Flaw: BadLimit}, codes.InvalidArgument},
		{Op{Kind: Stop}, codes.OK},
		{Op{Kind: Stop}, codes.OK},
		{Op{Kind: Update}, codes.FailedPrecondition},
		{Op{Kind: Remove}, codes.OK},
		{Op{Kind: Remove}, codes.OK},
		{Op{Kind: Status}, codes.NotFound},
		{Op{Kind: StopPod}, codes.OK},
		{Op{Kind: Create}, codes.FailedPrecondition},
		{Op{Kind: RemovePod}, codes.OK},
		{Op{Kind: Create}, codes.NotFound},
		{Op{Kind: RemoveImage}, codes.OK},
		{Op{Kind: RunPod, Flaw: BadHandler}, codes.InvalidArgument},
	} {
		say(t, m, step.op, step.code)
	}
	if w, only := m.One(); !only || w != (World{}) {
		t.Errorf("at the end there is %s", m)
	}
}

// Each of these is what a node with a fault would say.
func TestWhatNoNodeMayDoIsADisagreement(t *testing.T) {
	for name, wrong := range map[string]func(m *May) error{
		"a name that is had twice": func(m *May) error { return m.Answer(Op{Kind: Create}, codes.OK) },
		"a removed pod that is listed": func(m *May) error {
			m.Answer(Op{Kind: RemovePod}, codes.OK)
			return m.See("listed", func(w World) bool { return w.Pods[0].State == Ready })
		},
		"an exit code from nowhere": func(m *May) error {
			m.Answer(Op{Kind: Start}, codes.OK)
			m.Answer(Op{Kind: Stop}, codes.OK)
			return m.See("exit code 0", func(w World) bool { return w.Pods[0].Containers[0].Code == 0 })
		},
		"a container that runs without being asked": func(m *May) error {
			return m.See("running", func(w World) bool { return w.Pods[0].Containers[0].State == Running })
		},
		"a cut off call that did something else": func(m *May) error {
			m.CutOff(Op{Kind: Start})
			return m.See("gone", func(w World) bool { return w.Pods[0].Containers[0].State == None })
		},
		"two callers who both made the same pod anew": func(m *May) error {
			m.Answer(Op{Kind: RemovePod}, codes.OK)
			return m.Answers(Op{Kind: RunPod}, false, codes.AlreadyExists, codes.AlreadyExists)
		},
		"a start that came after a stop of its pod and before it": func(m *May) error {
			if err := m.Both(Op{Kind: Start}, codes.FailedPrecondition, Op{Kind: StopPod}, codes.OK); err != nil {
				return nil
			}
			return m.See("running", func(w World) bool { return w.Pods[0].Containers[0].State == Running })
		},
	} {
		t.Run(name, func(t *testing.T) {
			if err := wrong(begun(t, Sleeps)); err == nil {
				t.Error("the model agrees")
			}
		})
	}
}

func TestCutOffCallIsEitherDoneOrNotUntilSomethingIsSeen(t *testing.T) {
	m := begun(t, Ends)
	m.CutOff(Op{Kind: Start})
	states := map[ContainerState]bool{}
	for w := range m.settled() {
		states[w.Pods[0].Containers[0].State] = true
	}
	if len(states) != 3 { // created, running, exited
		t.Errorf("after a cut off start there may be %s", m)
	}
	// Nothing proves that it does not go on.
	if err := m.See("created", func(w World) bool { return w.Pods[0].Containers[0].State == Created }); err != nil {
		t.Fatal(err)
	}
	if _, only := m.One(); only {
		t.Error("a call that may go on is taken for ended")
	}
	say(t, m, Op{Kind: Start}, codes.OK)
	if err := m.See("ended", func(w World) bool { return w.Pods[0].Containers[0] == Container{State: Exited, Code: CodeEnds} }); err != nil {
		t.Fatal(err)
	}
	if _, only := m.One(); !only || strings.Contains(m.String(), "cut off") {
		t.Errorf("after the answer there may still be %s", m)
	}
}

func TestCallsAtTheSameTimeHaveAnOrder(t *testing.T) {
	m := begun(t, Sleeps)
	if err := m.Both(Op{Kind: Start}, codes.OK, Op{Kind: Remove}, codes.OK); err != nil {
		t.Fatal(err)
	}
	if w, only := m.One(); !only || w.Pods[0].Containers[0].State != None {
		t.Errorf("started, then removed: there is %s", m)
	}
	if err := m.Both(Op{Kind: Create}, codes.FailedPrecondition, Op{Kind: StopPod}, codes.OK); err != nil {
		t.Error(err)
	}
}

func TestEachProgramHasAName(t *testing.T) {
	for program := Sleeps; program <= Dying; program++ {
		if text := (Container{State: Running, Program: program}).String(); !strings.HasPrefix(text, "running(") {
			t.Errorf("program %d is %q", program, text)
		}
	}
}

// Of three starts at once one was cut off by the death of the monitor and one
// hears that the container has ended: how, the third may have decided.
func TestAnswerAfterACallThatDidNotComeToItsEndIsUnderstood(t *testing.T) {
	m := begun(t, Missing)
	if err := m.Answers(Op{Kind: Start, Disturbed: true}, true, codes.FailedPrecondition); err != nil {
		t.Fatal(err)
	}
	if err := m.See("broken", func(w World) bool { return w.Pods[0].Containers[0] == Container{State: Exited, Code: CodeBroken} }); err != nil {
		t.Error(err)
	}
}
