package podsandbox

import "cri-mini/runtime/spec"

// watchExits learns from the executor which containers and inits ended.
func (p *Pods) watchExits() {
	for {
		select {
		case exit, open := <-p.opt.Executor.Exits():
			if !open {
				return
			}
			p.mu.RLock()
			c, s := p.containers[exit.ID], p.sandboxes[exit.ID]
			p.mu.RUnlock()
			switch { // neither: it was removed meanwhile
			case c != nil:
				c.finish(ending(exit.Exit))
			case s != nil:
				s.initEnded()
			}
		case <-p.ctx.Done():
			return
		}
	}
}

// initEnded ends a pod whose reaping init is dead: its PID namespace takes no
// process any more, and the kernel has killed all that were in it.
func (s *Sandbox) initEnded() {
	s.mu.Lock()
	s.init = 0
	expected := s.stopping
	s.stopping = true
	s.mu.Unlock()
	if expected {
		return
	}
	s.pods.log.Warn("the init of a pod has ended; stopping the pod", "pod", s.ID)
	s.pods.later("pod "+s.ID, s.stop)
}

// ending names the reason of an exit as users know it from Kubernetes.
func ending(x spec.Exit) end {
	e := end{Exit: x, Reason: "Error"}
	switch {
	case x.Unknown:
		e.Code, e.Reason, e.Message = 255, "Unknown", "nobody saw the exit of the container"
	case x.OOMKilled:
		e.Reason = "OOMKilled"
	case x.Code == 0:
		e.Reason = "Completed"
	}
	return e
}
