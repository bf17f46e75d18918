package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// step is one call of a pod's life.
type step struct {
	name string
	do   func(*pod, context.Context) error
}

var birth = []step{
	{"RunPodSandbox", (*pod).run},
	{"CreateContainer", (*pod).create},
	{"StartContainer", (*pod).start},
}

var death = []step{
	{"StopContainer (at once)", (*pod).stopContainer},
	{"RemoveContainer", (*pod).removeContainer},
	{"StopPodSandbox", (*pod).stop},
	{"RemovePodSandbox", (*pod).remove},
}

// do runs steps and returns what all took together.
func (p *pod) do(t *table, steps []step) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var sum time.Duration
	for _, s := range steps {
		took, err := t.time(s.name, func() error { return s.do(p, ctx) })
		if err != nil {
			return sum, err
		}
		sum += took
	}
	return sum, nil
}

// lives runs pods one after the other.
func (c *client) lives(t *table, count int) error {
	for number := range count {
		p := c.newPod(number)
		took, err := p.do(t, birth)
		if err != nil {
			return err
		}
		t.add("= pod start", took)
		executed, err := p.untilExecuted(context.Background())
		if err != nil {
			return err
		}
		t.add("StartContainer to the first instruction", executed)
		if _, err := p.do(t, []step{{"ExecSync true", (*pod).exec}}); err != nil {
			return err
		}
		if took, err = p.do(t, death); err != nil {
			return err
		}
		t.add("= pod end", took)
	}
	return nil
}

// rate runs whole lives in parallel. Their calls wait for each other, so only
// the number per second is kept.
func (c *client) rate(t *table, count, jobs int) error {
	numbers := make(chan int)
	failed := make(chan error, jobs)
	var workers sync.WaitGroup
	start := time.Now()
	for range jobs {
		workers.Go(func() {
			for number := range numbers {
				p := c.newPod(number)
				_, born := p.do(newTable(), birth)
				_, died := p.do(newTable(), death)
				if err := errors.Join(born, died); err != nil {
					select {
					case failed <- err:
					default:
					}
				}
			}
		})
	}
	for number := range count {
		numbers <- number
	}
	close(numbers)
	workers.Wait()
	t.note(fmt.Sprintf("pods per second, %d at a time", jobs), float64(count)/time.Since(start).Seconds(), "")
	select {
	case err := <-failed:
		return fmt.Errorf("in parallel: %w", err)
	default:
		return nil
	}
}
