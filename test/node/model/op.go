package model

import (
	"fmt"

	"google.golang.org/grpc/codes"
)

// Kind is what a call does.
type Kind uint8

// The calls. Kill is none: somebody on the node kills the program.
const (
	RunPod Kind = iota
	StopPod
	RemovePod
	UpdatePod
	PodStatus
	Create
	Start
	Stop
	Remove
	Exec
	Update
	Status
	Pull
	RemoveImage
	ImageStatus
	Kill
)

var kinds = [...]string{"run pod", "stop pod", "remove pod", "update pod", "status of pod", "create", "start", "stop", "remove",
	"exec", "update", "status", "pull", "remove image", "status of image", "kill"}

// Flaw is what is wrong with a call.
type Flaw uint8

// The flaws.
const (
	Fine          Flaw = iota
	BadHostname        // of a pod
	BadHandler         // of a pod
	UnknownImage       // of a container, or of a pull
	BadMount           // a source that is not there
	BadCapability      //
	BadLimit           // of an update: a negative share
	NoProgram          // of an exec: it is not there
	Fails              // of an exec: it ends with CodeEnds
	TooLong            // of an exec: it takes longer than its timeout
)

var flaws = [...]string{"", "bad host name", "bad handler", "unknown image", "missing mount source", "bad capability", "negative share",
	"missing program", "failing program", "timeout"}

// Op is one call. It can be compared.
type Op struct {
	Kind      Kind
	Pod, Slot int
	Program   Program // of Create
	Grace     bool    // of Stop
	Flaw      Flaw

	// Disturbed: the node was being killed meanwhile.
	Disturbed bool
}

func (o Op) String() string {
	text := kinds[o.Kind]
	if o.Kind < Pull || o.Kind == Kill {
		text += fmt.Sprintf(" %d", o.Pod)
	}
	if o.Kind >= Create && o.Kind < Pull || o.Kind == Kill {
		text += fmt.Sprintf("/%d", o.Slot)
	}
	if o.Kind == Create {
		text += " " + Container{State: Created, Program: o.Program}.String()
	}
	if o.Grace {
		text += " with grace"
	}
	if o.Flaw != Fine {
		text += ", " + flaws[o.Flaw]
	}
	return text
}

// same tells whether two calls do the same to the same thing, so that the node
// lets one end before the other begins.
func (o Op) same(other Op) bool {
	return o.Kind == other.Kind && o.Pod == other.Pod && o.Slot == other.Slot
}

// Do gives all ways a call can end that nobody cuts off.
func (w World) Do(op Op) []Outcome {
	p := w.Pods[op.Pod]
	refuse := func(code codes.Code) []Outcome { return []Outcome{{code, w}} }
	switch op.Kind {
	case RunPod:
		switch {
		case op.Flaw != Fine:
			return refuse(codes.InvalidArgument)
		case p.State != Absent:
			return refuse(codes.AlreadyExists)
		}
		return []Outcome{{codes.OK, w.with(op.Pod, Pod{State: Ready})}}
	case StopPod:
		if p.State != Ready {
			return refuse(codes.OK)
		}
		w.Pods[op.Pod].State = NotReady
		return fine(w.each(op.Pod, Container.killed))
	case RemovePod:
		return []Outcome{{codes.OK, w.with(op.Pod, Pod{})}}
	case UpdatePod, PodStatus:
		if p.State == Absent {
			return refuse(codes.NotFound)
		}
		return refuse(codes.OK)
	case Pull:
		if op.Flaw != Fine {
			return refuse(codes.NotFound)
		}
		w.Image = true
		return refuse(codes.OK)
	case RemoveImage:
		w.Image = false
		return refuse(codes.OK)
	case ImageStatus:
		return refuse(codes.OK)
	}
	return w.container(op)
}

// container is Do for the calls about one container.
func (w World) container(op Op) []Outcome {
	p := w.Pods[op.Pod]
	c := p.Containers[op.Slot]
	refuse := func(code codes.Code) []Outcome { return []Outcome{{code, w}} }
	become := func(code codes.Code, list ...Container) (outcomes []Outcome) {
		for _, c := range list {
			outcomes = append(outcomes, Outcome{code, w.withContainer(op.Pod, op.Slot, c)})
		}
		return outcomes
	}
	switch op.Kind {
	case Create:
		switch {
		case p.State == Absent:
			return refuse(codes.NotFound)
		case p.State == NotReady:
			return refuse(codes.FailedPrecondition)
		case c.State != None:
			return refuse(codes.AlreadyExists)
		case op.Flaw == UnknownImage || !w.Image:
			return refuse(codes.NotFound)
		case op.Flaw != Fine:
			return refuse(codes.InvalidArgument)
		}
		return become(codes.OK, Container{State: Created, Program: op.Program})
	case Stop: // gone is stopped
		if op.Grace {
			c = c.asked(op.Pod)
		}
		return become(codes.OK, c.killed()...)
	case Remove:
		return become(codes.OK, Container{})
	case Kill:
		if c.State != Running {
			return become(codes.OK, c)
		}
		dying := c
		dying.Program = Dying
		if len(c.alone()) > 0 { // it may have ended unseen, and such a process takes a signal too
			return become(codes.OK, c, dying)
		}
		return become(codes.OK, dying)
	}
	if c.State == None {
		return refuse(codes.NotFound)
	}
	switch op.Kind {
	case Start:
		switch {
		case c.State != Created:
			return refuse(codes.FailedPrecondition)
		case c.Program == Missing:
			return become(codes.Unknown, c.exited(CodeAbsent))
		}
		return become(codes.OK, Container{State: Running, Program: c.Program})
	case Exec:
		return w.exec(op, c)
	case Update:
		switch {
		case op.Flaw != Fine:
			return refuse(codes.InvalidArgument)
		case c.State == Exited:
			return refuse(codes.FailedPrecondition)
		}
		return refuse(codes.OK)
	}
	return refuse(codes.OK) // Status
}

// exec changes nothing. In a program that is about to end it can go any way.
func (w World) exec(op Op, c Container) []Outcome {
	if c.State != Running {
		return []Outcome{{codes.FailedPrecondition, w}}
	}
	code := codes.OK
	switch op.Flaw {
	case NoProgram:
		code = codes.Unknown
	case TooLong:
		code = codes.DeadlineExceeded
	}
	outcomes := []Outcome{{code, w}}
	if c.alone() != nil {
		for _, other := range []codes.Code{codes.OK, codes.Unknown, codes.FailedPrecondition} {
			outcomes = append(outcomes, Outcome{other, w})
		}
	}
	return outcomes
}

func fine(worlds []World) (outcomes []Outcome) {
	for _, w := range worlds {
		outcomes = append(outcomes, Outcome{codes.OK, w})
	}
	return outcomes
}

// Begun gives all worlds that a call can leave behind, or pass through, that
// was cut off.
func (w World) Begun(op Op) []World {
	worlds := []World{w}
	for _, o := range w.Do(op) {
		worlds = append(worlds, o.After)
	}
	p := w.Pods[op.Pod]
	c := p.Containers[op.Slot]
	switch op.Kind {
	case Start:
		if op.Disturbed && c.State == Created {
			worlds = append(worlds, w.withContainer(op.Pod, op.Slot, c.exited(CodeBroken)),
				w.withContainer(op.Pod, op.Slot, c.exited(CodeKilled)))
		}
	case Stop:
		if c.State != Running {
			break
		}
		if op.Grace {
			worlds = append(worlds, w.withContainer(op.Pod, op.Slot, c.asked(op.Pod)))
		}
		c.Program = Dying
		worlds = append(worlds, w.withContainer(op.Pod, op.Slot, c))
	case Remove:
		for _, c := range c.killed() {
			worlds = append(worlds, w.withContainer(op.Pod, op.Slot, c))
		}
	case StopPod, RemovePod:
		if p.State == Absent {
			break
		}
		w.Pods[op.Pod].State = NotReady
		worlds = append(worlds, w.each(op.Pod, func(c Container) []Container {
			list := append([]Container{c}, c.killed()...)
			if op.Kind == RemovePod {
				list = append(list, Container{})
			}
			return list
		})...)
	}
	return worlds
}
