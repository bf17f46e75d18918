package podsandbox

import (
	"cri-mini/runtime/spec"

	"cri-mini/internal/crashpoint"
)

// watchExits learns from the executor which containers and inits ended.
func (p *Pods) watchExits() {
	for {
		select {
		case exit, open := <-p.opt.Executor.Exits():
			if !open {
				return
			}
			crashpoint.Here("exit.heard")
			p.mu.RLock()
			c, s, made := p.containers[exit.ID], p.sandboxes[exit.ID], p.making[exit.ID]
			p.mu.RUnlock()
			switch { // none: it was removed meanwhile
			case c != nil:
				c.finish(ending(exit.Exit))
			case s != nil && s.initEnded():
				s.happened(initEnded)
				p.log.Warn("the init of a pod has ended; stopping the pod", "pod", s.ID)
				p.later("pod "+s.ID, s.stop)
			case made != nil:
				made.initEnded() // run sees it
			}
		case <-p.ctx.Done():
			return
		}
	}
}

// initEnded makes a pod whose reaping init is dead not ready: its PID namespace
// takes no process any more, and the kernel has killed all that were in it.
func (s *Sandbox) initEnded() (unexpected bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	unexpected = !s.stopping
	s.init, s.stopping = 0, true
	return unexpected
}

// beginMaking notes a pod that is not in the table yet, whose init may end
// already.
func (p *Pods) beginMaking(s *Sandbox) (done func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.making[s.ID] = s
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.making, s.ID)
	}
}

// ending names the reason of an exit as users know it from Kubernetes.
func ending(x spec.Exit) end {
	e := end{Exit: x, Reason: "Error"}
	switch {
	case x.Unknown:
		e.Code, e.Reason, e.Message = 255, "Unknown", "nobody saw the exit of the container"
		if x.OOMKilled { // which the control group tells, and its code nobody
			e.Reason, e.Message = "OOMKilled", "it reached its limit of memory, and the kernel killed it; nobody saw its exit code"
		}
	case x.OOMKilled:
		e.Reason = "OOMKilled"
	case x.Code == 0:
		e.Reason = "Completed"
	}
	return e
}
