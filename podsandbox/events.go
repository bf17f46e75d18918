package podsandbox

import (
	"context"
	"fmt"
	"sync"
	"time"

	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Event tells that a pod or container took a step in its life, and how its pod
// is thereafter: nothing in it is older than the step.
type Event struct {
	ID         string // of the container, or of the pod
	Type       criapi.ContainerEventType
	At         time.Time // later than that of every event before
	Sandbox    SandboxStatus
	Containers []ContainerStatus
}

// maxEvents wait for a subscriber at most.
const maxEvents = 1024

// step is how far a pod or container is in its life. Each has an event.
type step int

const (
	unborn step = iota
	created
	started
	stopped
	deleted
)

func (s step) event() criapi.ContainerEventType { return criapi.ContainerEventType(s - created) }

// events tells subscribers what happens. No event is made where something
// happens: its state is looked at after each change, and the steps that were
// not told are told. So they come in order, each once, whoever was faster.
//
// The lock comes before Pods.mu: state cannot be told in another order than it
// is looked at.
type events struct {
	mu          sync.Mutex
	subscribers map[*Subscription]bool
	last        time.Time
}

// Subscription is one reader of events. It costs no goroutine. A reader who is
// slow, like one who is new, gets the present state of everything as events.
type Subscription struct {
	pods *Pods
	wake chan struct{}

	// Guarded by events.mu.
	stale  bool    // it missed something: begin with the present state
	replay []Event // the present state when it was asked for
	queue  []Event // what happened since
}

// Subscribe begins a subscription. The caller closes it.
func (p *Pods) Subscribe() *Subscription {
	s := &Subscription{pods: p, wake: make(chan struct{}, 1), stale: true}
	p.events.mu.Lock()
	defer p.events.mu.Unlock()
	if p.events.subscribers == nil {
		p.events.subscribers = map[*Subscription]bool{}
	}
	p.events.subscribers[s] = true
	return s
}

// Close ends the subscription.
func (s *Subscription) Close() {
	s.pods.events.mu.Lock()
	defer s.pods.events.mu.Unlock()
	delete(s.pods.events.subscribers, s)
}

// Next waits for an event.
func (s *Subscription) Next(ctx context.Context) (Event, error) {
	for {
		if ctx.Err() != nil {
			return Event{}, fmt.Errorf("events: %w", context.Cause(ctx))
		}
		if e, ok := s.take(); ok {
			return e, nil
		}
		select {
		case <-s.wake:
		case <-ctx.Done():
		case <-s.pods.ctx.Done():
			return Event{}, fmt.Errorf("events: %w", errGoingDown)
		}
	}
}

func (s *Subscription) take() (e Event, ok bool) {
	s.pods.events.mu.Lock()
	defer s.pods.events.mu.Unlock()
	if s.stale {
		s.replay, s.stale = s.pods.present(), false
	}
	from := &s.replay
	if len(*from) == 0 {
		from = &s.queue
	}
	if len(*from) == 0 {
		return Event{}, false
	}
	e, *from = (*from)[0], (*from)[1:]
	return e, true
}

// put adds an event. The caller holds events.mu.
func (s *Subscription) put(e Event) {
	switch {
	case s.stale: // what it will begin with has this in it
	case len(s.queue) == maxEvents:
		s.stale, s.replay, s.queue = true, nil, nil
	default:
		s.queue = append(s.queue, e)
	}
	select {
	case s.wake <- struct{}{}:
	default: // it is awake
	}
}

// now is a moment later than all before. The caller holds mu.
func (e *events) now() time.Time {
	now := time.Now().Round(0) // the clock on the wall may be set back
	if !now.After(e.last) {
		now = e.last.Add(1)
	}
	e.last = now
	return now
}

// present is everything as events that say how it is: one for each pod and each
// container. What is not in it is gone. The caller holds events.mu.
func (p *Pods) present() []Event {
	var all []Event
	for _, s := range p.Sandboxes() {
		// Other subscribers hear of what was not told yet.
		p.tellPodLocked(s)
		containers := s.byAge()
		for _, c := range containers {
			p.tellContainerLocked(c)
		}
		view := s.view()
		add := func(id string, told step) {
			if told == unborn || told == deleted {
				return
			}
			e := view
			e.ID, e.Type, e.At = id, told.event(), p.events.now()
			all = append(all, e)
		}
		add(s.ID, s.told)
		for _, c := range containers {
			add(c.ID, c.told)
		}
	}
	return all
}
