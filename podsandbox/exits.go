package podsandbox

import "cri-mini/runtime/spec"

// watchExits learns from the executor which containers ended.
func (p *Pods) watchExits() {
	for {
		select {
		case exit, open := <-p.opt.Executor.Exits():
			if !open {
				return
			}
			p.mu.RLock()
			c := p.containers[exit.ID]
			p.mu.RUnlock()
			if c != nil { // else it was removed meanwhile
				c.finish(ending(exit.Exit))
			}
		case <-p.ctx.Done():
			return
		}
	}
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
