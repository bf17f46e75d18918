package main

import (
	"context"
	"fmt"
	"slices"
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

var execution = []step{{"ExecSync true", (*pod).exec}}

var death = []step{
	{"StopContainer (at once)", (*pod).stopContainer},
	{"RemoveContainer", (*pod).removeContainer},
	{"StopPodSandbox", (*pod).stop},
	{"RemovePodSandbox", (*pod).remove},
}

// The halves of a life, which are the sums of their steps.
const (
	podStart = "**pod start**"
	podEnd   = "**pod end**"
)

// do runs steps and returns what all took together.
func (p *pod) do(t *table, subject string, steps []step) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var sum time.Duration
	for _, s := range steps {
		took, err := t.time(s.name, subject, func() error { return s.do(p, ctx) })
		if err != nil {
			return sum, err
		}
		sum += took
	}
	return sum, nil
}

// live runs one pod from its beginning to its end.
func (s *subject) live(t *table) error {
	p, took, err := s.start(t)
	if err != nil {
		return err
	}
	t.add(podStart, s.name, took)
	if s.ours() { // others stamp the start later
		executed, err := p.untilExecuted(context.Background())
		if err != nil {
			return err
		}
		t.add("StartContainer to the first instruction", s.name, executed)
	}
	if _, err := p.do(t, s.name, execution); err != nil {
		return err
	}
	if took, err = s.end(t, p); err != nil {
		return err
	}
	t.add(podEnd, s.name, took)
	return nil
}

// start makes a pod that runs, and tells how long that took.
func (s *subject) start(t *table) (*pod, time.Duration, error) {
	p, err := s.newPod()
	if err != nil {
		return nil, 0, err
	}
	took, err := p.do(t, s.name, birth)
	return p, took, err
}

func (s *subject) end(t *table, p *pod) (time.Duration, error) {
	took, err := p.do(t, s.name, death)
	if err != nil {
		return took, err
	}
	return took, p.forget()
}

// lives runs pods one after the other, each of another subject than the one
// before: what disturbs the machine disturbs all alike. A slow one gets fewer.
func lives(t *table, b *bare, all []*subject, count int) error {
	const slow = 4 // of that many turns a peer has one
	cpu, counts := map[string]time.Duration{}, map[string]int{}
	turn := func(name string, use func() (time.Duration, error), live func(*table) error) error {
		before, err := use()
		if err != nil {
			return err
		}
		if err := live(t); err != nil {
			return err
		}
		after, err := use()
		cpu[name] += after - before
		counts[name]++
		return err
	}
	for _, s := range all { // the first life pays for what is made once
		if err := s.live(newTable()); err != nil {
			return err
		}
	}
	for number := range count {
		if err := turn(floor, b.CPU, b.live); err != nil {
			return err
		}
		for i := range all { // the kernel still tidies up after the one before
			s := all[(i+number)%len(all)]
			if !s.ours() && number%slow != 0 {
				continue
			}
			if err := turn(s.name, s.place.CPU, s.live); err != nil {
				return err
			}
		}
	}
	for _, name := range append([]string{floor}, names(all)...) {
		t.note("processor time of a pod's life", name, cpu[name].Seconds()*1000/float64(counts[name]), "ms")
	}
	return nil
}

// crowded is lives in places that have pods already.
func crowded(t *table, b *bare, all []*subject, crowd, count int) error {
	var err error
	there := make([][]*pod, len(all))
	for i, s := range all {
		if there[i], err = s.grow(nil, crowd); err != nil {
			return err
		}
	}
	time.Sleep(time.Second) // the kernel still works for what was made last
	if err := lives(t, b, all, count); err != nil {
		return err
	}
	for i, s := range all {
		if err := s.shrink(there[i]); err != nil {
			return err
		}
	}
	return nil
}

func names(all []*subject) []string {
	var list []string
	for _, s := range all {
		list = append(list, s.name)
	}
	return list
}

// rates runs whole lives, so many at a time, in rounds of one subject after the
// other, and keeps the median of the rounds.
func rates(t *table, all []*subject, jobs int) error {
	const rounds = 3
	found := map[string][]float64{}
	for range rounds {
		for _, s := range all {
			count := 8 + 2*jobs
			if s.ours() {
				count *= 4
			}
			rate, err := s.rate(count, jobs)
			if err != nil {
				return fmt.Errorf("%s, %d at a time: %w", s.name, jobs, err)
			}
			found[s.name] = append(found[s.name], rate)
		}
	}
	for _, s := range all {
		slices.Sort(found[s.name])
		t.note(fmt.Sprintf("pods, %d at a time", jobs), s.name, found[s.name][rounds/2], "1/s")
	}
	return nil
}

// rate is in pods per second. Single calls wait for each other, so their times
// are not kept.
func (s *subject) rate(count, jobs int) (float64, error) {
	turns := make(chan bool)
	failed := make(chan error, jobs)
	var workers sync.WaitGroup
	start := time.Now()
	for range jobs {
		workers.Go(func() {
			for range turns {
				p, _, err := s.start(newTable())
				if err == nil {
					_, err = s.end(newTable(), p)
				}
				if err != nil {
					select {
					case failed <- err:
					default:
					}
				}
			}
		})
	}
	for range count {
		turns <- true
	}
	close(turns)
	workers.Wait()
	took := time.Since(start)
	select {
	case err := <-failed:
		return 0, err
	default:
		return float64(count) / took.Seconds(), nil
	}
}
