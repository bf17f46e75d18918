package podsandbox

import "slices"

// tell is called after every change of a pod's state, without any lock of less
// rank than that of events.
func (s *Sandbox) tell() {
	p := s.pods
	p.events.mu.Lock()
	defer p.events.mu.Unlock()
	p.tellPodLocked(s)
}

// tell is called after every change of a container's state, as that of its pod.
func (c *Container) tell() {
	p := c.Sandbox.pods
	p.events.mu.Lock()
	defer p.events.mu.Unlock()
	p.tellContainerLocked(c)
}

func (p *Pods) tellPodLocked(s *Sandbox) {
	s.mu.Lock()
	now := started // it exists only once it runs
	switch {
	case s.removed:
		now = deleted
	case s.stopped:
		now = stopped
	}
	s.mu.Unlock()
	p.advance(s, s.ID, &s.told, now, true)
}

func (p *Pods) tellContainerLocked(c *Container) {
	c.mu.Lock()
	now, ran := created, c.started.PID != 0
	switch {
	case c.removed:
		now = deleted
	case c.ended != nil && !c.starting: // its start is told first
		now = stopped
	case ran:
		now = started
	}
	c.mu.Unlock()
	p.advance(c.Sandbox, c.ID, &c.told, now, ran)
}

// advance tells the steps after told up to now; that of a start only of what
// ran, and of what is gone only that.
func (p *Pods) advance(s *Sandbox, id string, told *step, now step, ran bool) {
	for *told < now {
		*told++
		if *told == started && !ran || now == deleted && *told != now {
			continue
		}
		if len(p.events.subscribers) == 0 {
			continue
		}
		e := s.view()
		e.ID, e.Type, e.At = id, told.event(), p.events.now()
		for subscriber := range p.events.subscribers {
			subscriber.put(e)
		}
	}
}

// view is the pod with its containers, the oldest first.
func (s *Sandbox) view() Event {
	e := Event{Sandbox: s.Status()}
	for _, c := range s.byAge() {
		e.Containers = append(e.Containers, c.Status())
	}
	return e
}

func (s *Sandbox) byAge() []*Container {
	list := s.Containers()
	slices.SortFunc(list, func(a, b *Container) int { return byAge(a.created, b.created, a.ID, b.ID) })
	return list
}
