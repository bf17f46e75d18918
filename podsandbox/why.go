package podsandbox

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"cri-mini/podsandbox/history"
)

// initEnded is what happened to a pod that stops without a call.
const initEnded = "the first process of its PID namespace ended, and the kernel ended all others in it"

func (s *Sandbox) subject() history.Subject {
	m := s.config.GetMetadata()
	return history.Subject{Namespace: m.GetNamespace(), Pod: m.GetName(), UID: m.GetUid(), PodID: s.ID}
}

func (c *Container) subject() history.Subject {
	about := c.Sandbox.subject()
	about.Container, about.ContainerID = c.config.GetMetadata().GetName(), c.ID
	return about
}

// order is one operation with the whole pod.
func (s *Sandbox) order(what string) order {
	return order{key: what + " " + s.ID, what: what, about: s.subject()}
}

// order is one operation with the container.
func (c *Container) order(what string) order {
	return order{key: what + " " + c.ID, what: what, about: c.subject()}
}

// work is a call on the container that is no operation.
func (c *Container) work(ctx context.Context, what string) *work {
	return c.Sandbox.pods.work(ctx, what+" "+c.ID, what, c.subject())
}

// happened remembers what nobody asked for.
func (s *Sandbox) happened(what string) {
	s.pods.opt.History.Note(context.Background(), s.subject(), what, time.Now(), nil)
}

func (e end) exit() *history.Exit {
	return &history.Exit{Code: e.Code, Reason: e.Reason, Message: e.Message}
}

// present is the pod for an answer.
func (s *Sandbox) present() *history.Present {
	now := &history.Present{Subject: s.subject(), State: "ready", Created: s.created}
	if !s.ready() {
		now.State = "not ready"
	}
	return now
}

// present is the container for an answer.
func (c *Container) present() *history.Present {
	status := c.Status()
	now := &history.Present{Subject: c.subject(), State: "created", Created: status.Created, Started: status.Started, Finished: status.Finished}
	switch {
	case !status.Finished.IsZero():
		now.State = "exited"
		now.Exit = &history.Exit{Code: int(status.ExitCode), Reason: status.Reason, Message: status.Message}
	case !status.Started.IsZero():
		now.State = "running"
	}
	return now
}

// Why explains the pod, without its containers.
func (s *Sandbox) Why() history.Answer {
	return s.pods.explain(s.subject(), s.present())
}

// Why explains the container.
func (c *Container) Why() history.Answer {
	return c.Sandbox.pods.explain(c.subject(), c.present())
}

func (p *Pods) explain(about history.Subject, now *history.Present) history.Answer {
	return history.Explain(about, now, p.opt.History.Of(about.Same))
}

// Why explains the pod or container that a word means: a name, a pod's name
// after its namespace and a slash, or the beginning of an id. It also knows what
// has been gone for a while.
func (p *Pods) Why(word string) (history.Answer, error) {
	present, past := p.subjects()
	found := meant(word, present)
	if len(found) == 0 {
		found = meant(word, past)
	}
	switch {
	case word == "" || len(found) == 0:
		return history.Answer{}, fmt.Errorf("pod or container %q: %w, and not remembered either", word, ErrNotFound)
	case len(found) > 1:
		return history.Answer{}, fmt.Errorf("pod or container %q: %w: %s", word, ErrAmbiguous, names(found))
	}
	return p.why(found[0], append(present, past...)), nil
}

// meant are the subjects that a word means, in the strongest sense that it has.
func meant(word string, all []history.Subject) (found []history.Subject) {
	for _, fits := range []func(history.Subject) bool{
		func(s history.Subject) bool {
			return s.Container == "" && (s.Pod == word || s.Namespace+"/"+s.Pod == word)
		},
		func(s history.Subject) bool { return s.Container == word },
		func(s history.Subject) bool { return s.Container == "" && strings.HasPrefix(s.PodID, word) },
		func(s history.Subject) bool { return s.Container != "" && strings.HasPrefix(s.ContainerID, word) },
	} {
		if found = matching(all, fits); len(found) > 0 {
			return found
		}
	}
	return nil
}

// matching are the subjects that fit, of what is one thing the latest.
func matching(all []history.Subject, fits func(history.Subject) bool) []history.Subject {
	var found []history.Subject
	for _, s := range all {
		if fits(s) && !slices.ContainsFunc(found, s.Same) {
			found = append(found, s)
		}
	}
	return found
}

func names(found []history.Subject) string {
	var list []string
	for i, s := range found {
		if i == 10 {
			list = append(list, fmt.Sprintf("and %d more", len(found)-i))
			break
		}
		text := fmt.Sprintf("pod %s/%s %s", s.Namespace, s.Pod, s.PodID)
		if s.Container != "" {
			text = fmt.Sprintf("container %s %s of %s", s.Container, s.ContainerID, text)
		}
		list = append(list, text)
	}
	return strings.Join(list, ", ")
}

// subjects are all that can be explained: what exists, and what is remembered.
// The youngest come first.
func (p *Pods) subjects() (present, past []history.Subject) {
	for _, s := range p.Sandboxes() {
		present = append(present, s.subject())
	}
	for _, c := range p.Containers() {
		present = append(present, c.subject())
	}
	slices.Reverse(present)
	seen := map[history.Subject]bool{}
	entries := p.opt.History.Of(func(history.Subject) bool { return true })
	for _, e := range slices.Backward(entries) {
		if !seen[e.Subject] {
			seen[e.Subject] = true
			past = append(past, e.Subject)
		}
	}
	return present, past
}

func (p *Pods) why(about history.Subject, all []history.Subject) history.Answer {
	if about.Container != "" {
		return p.whyContainer(about)
	}
	var now *history.Present
	if s, err := p.Sandbox(about.PodID); err == nil {
		now = s.present()
	}
	answer := p.explain(about, now)
	inside := matching(all, func(s history.Subject) bool {
		pod := s
		pod.Container = ""
		return s.Container != "" && about.Same(pod)
	})
	for _, s := range inside {
		answer.Containers = append(answer.Containers, p.whyContainer(s))
	}
	return answer
}

func (p *Pods) whyContainer(about history.Subject) history.Answer {
	c, err := p.Container(about.ContainerID)
	if err != nil {
		return p.explain(about, nil)
	}
	return c.Why()
}
