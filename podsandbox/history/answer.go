package history

import (
	"fmt"
	"slices"
	"strings"
	"syscall"
	"time"

	"cri-mini/internal/signalname"
)

// What is done and happens, as entries name it where answers depend on it.
const (
	RunPod          = "run pod"
	StopPod         = "stop pod"
	RemovePod       = "remove pod"
	CreateContainer = "create container"
	StartContainer  = "start container"
	StopContainer   = "stop container"
	RemoveContainer = "remove container"
	UpdateContainer = "update container"
	Ended           = "ended"

	// Killed is the stage of a stop that has used force.
	Killed = "waiting for its end after the kill"
)

// Present is how a subject is now, for one that exists.
type Present struct {
	Subject
	State    string // "created", "running", "exited"; of a pod "ready", "not ready"
	Created  time.Time
	Started  time.Time
	Finished time.Time
	Exit     *Exit
}

// Answer is why something is as it is. Of a pod it has those of its containers.
type Answer struct {
	Subject
	State      string    // of Present, or "gone", or "never made"
	Since      time.Time `json:",omitzero"`
	Because    []string  // sentences for people
	Entries    []Entry
	Containers []Answer `json:",omitempty"`
}

// Explain makes an answer of what is and what was. Now is nil for what does not
// exist; the entries, in order, are those of the subject alone.
func Explain(about Subject, now *Present, entries []Entry) Answer {
	a := Answer{Subject: about, Entries: entries}
	switch {
	case now == nil:
		a.explainGone()
	case about.Container == "":
		a.explainPod(now)
	default:
		a.explainContainer(now)
	}
	for _, e := range entries {
		if e.Doing != "" {
			a.add("now: %s%s: %s", e.What, by(e), e.Doing)
		}
	}
	return a
}

func (a *Answer) add(format string, args ...any) {
	a.Because = append(a.Because, fmt.Sprintf(format, args...))
}

// last finds the latest entry of a kind.
func last(entries []Entry, what ...string) *Entry {
	for i := len(entries) - 1; i >= 0; i-- {
		if slices.Contains(what, entries[i].What) {
			return &entries[i]
		}
	}
	return nil
}

func (a *Answer) explainPod(now *Present) {
	a.State, a.Since = now.State, now.Created
	if now.State == "ready" {
		return
	}
	stop := last(a.Entries, StopPod)
	if stop == nil {
		a.add("it was stopped before the time that is remembered")
		return
	}
	a.Since = stop.Began
	// What is no deed of ours is the cause of one.
	for _, e := range a.Entries {
		if e.PodID == now.PodID && e.isEvent() {
			a.add("%s", e.What)
		}
	}
	if !stop.Ended.IsZero() || stop.CutOff {
		a.add("%s", stop.words("it was stopped"))
	}
}

// isEvent says that an entry is something that happened to a pod.
func (e Entry) isEvent() bool {
	return e.Container == "" && e.Began.Equal(e.Ended) && len(e.Stages) == 0
}

func (a *Answer) explainContainer(now *Present) {
	a.State, a.Since = now.State, now.Created
	switch now.State {
	case "created":
		start := last(a.Entries, StartContainer)
		if start == nil || start.ContainerID != now.ContainerID {
			a.add("it was created, and nobody has asked for its start")
		} else if start.Error != "" {
			a.add("%s", start.words("its start did not succeed"))
		}
	case "running":
		a.Since = now.Started
		if stop := last(a.Entries, StopContainer); stop != nil && stop.ContainerID == now.ContainerID && stop.CutOff {
			a.add("%s", stop.words("its stop was begun"))
		}
	case "exited":
		a.Since = now.Finished
		a.explainExit(now.ContainerID, now.Finished, *now.Exit)
	}
}

// explainExit says how a container ended, and who wanted it.
func (a *Answer) explainExit(id string, at time.Time, x Exit) {
	signal := ""
	if x.Code > 128 && x.Code <= 128+64 {
		signal = signalname.Name(syscall.Signal(x.Code - 128))
	}
	switch {
	case x.Reason == "StartError" || x.Reason == "ContainerCannotRun":
		a.add("it could not be started: %s", x.Message)
		return
	case x.Reason == "Unknown":
		a.add("how it ended is not known: %s", x.Message)
		return
	case x.Message != "":
		a.add("%s", x.Message)
	case x.Reason == "OOMKilled":
		a.add("it reached its limit of memory, and the kernel killed it (OOMKilled, exit code %d)", x.Code)
	case signal != "":
		a.add("%s ended it (exit code %d)", signal, x.Code)
	default:
		a.add("its program ended with exit code %d", x.Code)
	}
	if stop := a.stopAt(id, at); stop != nil {
		a.add("it was asked to end%s, %s before", by(*stop), round(at.Sub(stop.Began)))
		if n := len(stop.Stages); n > 1 && stop.Stages[n-1].Name == Killed {
			a.add("it still ran after %s, and was killed", stop.Stages[n-2].Name)
		}
		return
	}
	switch start := last(a.Entries, StartContainer); {
	case start == nil || start.ContainerID != id: // its time is not remembered
	case signal != "" && x.Reason != "OOMKilled":
		a.add("no call asked for that: the signal came from the program itself, from another process, or from the kernel")
	case x.Reason != "OOMKilled":
		a.add("no call asked for that: it ended by itself")
	}
}

// stopAt finds who was stopping the container when it ended, or else had begun
// to and was cut off.
func (a *Answer) stopAt(id string, at time.Time) (found *Entry) {
	for i := range a.Entries {
		e := &a.Entries[i]
		stops := e.What == StopContainer || e.What == RemoveContainer
		if stops && e.ContainerID == id && !e.Began.After(at) && (e.Ended.IsZero() || !e.Ended.Before(at)) &&
			(found == nil || found.CutOff) {
			found = e
		}
	}
	return found
}

// explainGone is for what does not exist: it was removed, or never came to be.
func (a *Answer) explainGone() {
	make, remove := RunPod, RemovePod
	if a.Container != "" {
		make, remove = CreateContainer, RemoveContainer
	}
	a.State = "never made"
	if e := last(a.Entries, make, remove); e != nil {
		a.Since = e.Began
		switch {
		case e.Doing != "" && e.What == make:
			a.State = "being made"
		case e.What == remove && !e.CutOff:
			a.State, a.Since = "gone", e.Ended
			a.add("%s", e.words("it was removed"))
		case e.What == remove:
			a.State = "gone"
			a.add("%s", e.words("its removal was begun"))
		case e.Error != "" || e.CutOff:
			a.add("%s", e.words("its creation did not succeed"))
		case !e.Ended.IsZero():
			a.State = "gone" // with its pod, or its removal is not remembered
		}
	}
	if e := last(a.Entries, Ended); e != nil && e.Exit != nil {
		a.explainExit(e.ContainerID, e.Began, *e.Exit)
	}
}

// words tell of an entry after what it comes to.
func (e Entry) words(what string) string {
	text := what
	if e.Times > 1 {
		text += fmt.Sprintf(", %d times in a row", e.Times)
	}
	text += by(e)
	switch {
	case e.CutOff && len(e.Stages) > 0:
		text += ", and was cut off by the end of the daemon while " + e.Stages[len(e.Stages)-1].Name
	case e.CutOff:
		text += ", and was cut off by the end of the daemon"
	case e.Error != "":
		text += ": " + e.Error
		if e.Errno != "" {
			text += " [" + e.Errno + "]"
		}
	}
	return text
}

func by(e Entry) string {
	if e.By == "" {
		return ""
	}
	return " (" + e.By + ")"
}

// Line is an entry for people, without its time.
func (e Entry) Line() string {
	var b strings.Builder
	b.WriteString(e.What)
	if e.Container != "" {
		b.WriteString(" " + e.Container)
	}
	if e.Exit != nil {
		fmt.Fprintf(&b, ": exit code %d, %s", e.Exit.Code, e.Exit.Reason)
	}
	b.WriteString(by(e))
	if e.Times > 1 {
		fmt.Fprintf(&b, ", %d times since %s", e.Times, e.First.Local().Format(time.DateTime))
	}
	switch {
	case e.Doing != "":
		return b.String() + ": " + e.Doing
	case e.CutOff:
		b.WriteString(" was cut off by the end of the daemon")
	case !e.Began.Equal(e.Ended):
		fmt.Fprintf(&b, " took %s", round(e.Ended.Sub(e.Began)))
	}
	var stages []string
	for i, s := range e.Stages {
		text := fmt.Sprintf("%s %s", s.Name, round(s.Took))
		cutOff := e.CutOff && i == len(e.Stages)-1
		if cutOff {
			text = s.Name
		}
		if s.Took < time.Millisecond && !cutOff {
			continue
		}
		if s.For != "" {
			text += fmt.Sprintf(" (%s)", s.For)
		}
		stages = append(stages, text)
	}
	if len(stages) > 0 {
		b.WriteString(": " + strings.Join(stages, ", "))
	}
	if e.Error != "" {
		b.WriteString("\n" + e.Error)
		if e.Errno != "" {
			b.WriteString(" [" + e.Errno + "]")
		}
	}
	return b.String()
}

// round is as exact as a person needs it.
func round(d time.Duration) time.Duration {
	switch {
	case d >= time.Minute:
		return d.Round(time.Second)
	case d >= time.Second:
		return d.Round(100 * time.Millisecond)
	case d >= time.Millisecond:
		return d.Round(100 * time.Microsecond)
	}
	return d.Round(time.Microsecond)
}
