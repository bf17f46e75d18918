// Package model says how a node answers the calls of the container runtime
// interface, in as few words as possible, to be compared with a real one.
//
// A World is what one client has on the node: a few pods with their containers
// and one image. An Op is a call. May is the set of worlds that fit all that
// the client heard so far: calls that were cut off make it larger, answers and
// lists make it smaller, and when it is empty the node did what no node may do.
// The package knows no node and no time.
package model

import (
	"fmt"

	"google.golang.org/grpc/codes"
)

// Pods is how many pods a World has, Slots how many names of containers each.
// The containers of the pod SharedPID are not the first in their PID namespace,
// so that a signal that they do not expect ends them.
const (
	Pods      = 2
	Slots     = 3
	SharedPID = 1
)

// PodState is the state of a pod.
type PodState uint8

// The states of a pod.
const (
	Absent PodState = iota
	Ready
	NotReady
)

// ContainerState is the state of a container.
type ContainerState uint8

// The states of a container.
const (
	None ContainerState = iota
	Created
	Running
	Exited
)

// Program is what a container runs, or what has become of it.
type Program uint8

// The programs.
const (
	Sleeps  Program = iota // until it is killed
	Obeys                  // sleeps, and ends with CodeAsked when asked to
	Ends                   // at once, with CodeEnds
	Missing                // is not there
	Asked                  // Obeys, and was perhaps asked
	Hurried                // Ends, and was perhaps asked to before
	Dying                  // was sent SIGKILL
)

// How programs end.
const (
	CodeAsked      = 3
	CodeEnds       = 7
	CodeTerminated = 128 + 15
	CodeKilled     = 128 + 9
	CodeAbsent     = 127
	CodeBroken     = 128 // the node could not start it
)

// Container is one name of a container. The zero value: there is none.
type Container struct {
	State   ContainerState
	Program Program
	Code    uint8 // when it has exited
}

// Pod is one name of a pod. The zero value: there is none.
type Pod struct {
	State      PodState
	Containers [Slots]Container
}

// World is what a client has. It can be compared.
type World struct {
	Image bool // the image of all containers is there
	Pods  [Pods]Pod
}

// Outcome is one way a call can end.
type Outcome struct {
	Code  codes.Code
	After World
}

func (w World) with(pod int, p Pod) World {
	w.Pods[pod] = p
	return w
}

func (w World) withContainer(pod, slot int, c Container) World {
	w.Pods[pod].Containers[slot] = c
	return w
}

// exited is how a container looks after its end.
func (c Container) exited(code uint8) Container {
	return Container{State: Exited, Code: code}
}

// alone is what can happen to a container without any call.
func (c Container) alone() []Container {
	if c.State != Running {
		return nil
	}
	switch c.Program {
	case Ends:
		return []Container{c.exited(CodeEnds)}
	case Asked:
		return []Container{c.exited(CodeAsked), c.exited(CodeTerminated)}
	case Hurried:
		return []Container{c.exited(CodeEnds), c.exited(CodeTerminated)}
	case Dying:
		return []Container{c.exited(CodeKilled)}
	}
	return nil
}

// killed are the ways a container ends that is killed, or that is stopped
// before it was started.
func (c Container) killed() []Container {
	if c.State == None || c.State == Exited {
		return []Container{c}
	}
	return append(c.alone(), c.exited(CodeKilled))
}

// asked is a running container that was sent its stop signal.
func (c Container) asked(pod int) Container {
	if c.State == Running && (c.Program == Obeys || c.Program == Sleeps && pod == SharedPID) {
		c.Program = Asked
	}
	if c.State == Running && c.Program == Ends && pod == SharedPID {
		c.Program = Hurried
	}
	return c
}

// each gives the worlds in which every container of a pod became one of what
// change gives for it.
func (w World) each(pod int, change func(Container) []Container) []World {
	worlds := []World{w}
	for slot := range Slots {
		var next []World
		for _, w := range worlds {
			for _, c := range change(w.Pods[pod].Containers[slot]) {
				next = append(next, w.withContainer(pod, slot, c))
			}
		}
		worlds = next
	}
	return worlds
}

// alone gives the worlds that w can become by itself, one step further.
func (w World) alone() (worlds []World) {
	for pod := range Pods {
		for slot := range Slots {
			for _, c := range w.Pods[pod].Containers[slot].alone() {
				worlds = append(worlds, w.withContainer(pod, slot, c))
			}
		}
	}
	return worlds
}

func (w World) String() string {
	text := "image absent"
	if w.Image {
		text = "image present"
	}
	for i, p := range w.Pods {
		text += fmt.Sprintf("; pod %d %s", i, [...]string{"absent", "ready", "not ready"}[p.State])
		for _, c := range p.Containers {
			text += " " + c.String()
		}
	}
	return text
}

func (c Container) String() string {
	program := [...]string{"sleeps", "obeys", "ends", "missing", "asked", "hurried", "dying"}[c.Program]
	switch c.State {
	case None:
		return "-"
	case Created:
		return "created(" + program + ")"
	case Running:
		return "running(" + program + ")"
	}
	return fmt.Sprintf("exited(%d)", c.Code)
}
