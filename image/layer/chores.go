package layer

import "sync"

// chores is work that nobody waits for, done one after another. There is a
// goroutine only while there is work.
type chores struct {
	mu    sync.Mutex
	queue []func()
	done  chan struct{} // closed when the queue has run empty; nil when nothing runs
}

func (c *chores) add(chore func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.queue = append(c.queue, chore)
	if c.done == nil {
		c.done = make(chan struct{})
		go c.run()
	}
}

func (c *chores) run() {
	for {
		c.mu.Lock()
		if len(c.queue) == 0 {
			close(c.done)
			c.done = nil
			c.mu.Unlock()
			return
		}
		chore := c.queue[0]
		c.queue = c.queue[1:]
		c.mu.Unlock()
		chore()
	}
}

func (c *chores) wait() {
	c.mu.Lock()
	done := c.done
	c.mu.Unlock()
	if done != nil {
		<-done
	}
}
