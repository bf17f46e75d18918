package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// curve is how long pods took to start, by how many there were before.
type curve struct {
	name  string
	times []time.Duration
}

// scale starts pods that stay, and draws how long each took.
func (o *options) scale(t *table, all []*subject) error {
	const peerPods = 100 // at most, of others
	var curves []curve
	for _, s := range all {
		goal := o.crowd
		if !s.ours() {
			goal = min(goal, peerPods)
		}
		c, err := s.crowd(t, goal)
		if err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		curves = append(curves, c)
	}
	path := filepath.Join(o.output, "scale.svg")
	fmt.Println("plot written to", path)
	return os.WriteFile(path, []byte(plot(curves)), 0o644)
}

func (s *subject) crowd(t *table, goal int) (curve, error) {
	c := curve{name: s.name}
	slab, err := slabSize()
	if err != nil {
		return c, err
	}
	before, err := s.memory(t, 0)
	if err != nil {
		return c, err
	}
	var pods []*pod
	all := newTable()
	for len(pods) < goal {
		p, took, err := s.start(all)
		if err != nil {
			return c, fmt.Errorf("pod %d: %w", len(pods), err)
		}
		pods = append(pods, p)
		c.times = append(c.times, took)
		all.add(podStart, s.name, took)
	}
	for first := 0; first < goal; first += max(goal/5, 1) {
		for _, name := range all.order {
			t.note(fmt.Sprintf("%s with %d pods there", name, first), s.name, percentile(all.samples[name][s.name][first:min(first+50, goal)], 50)/1000, "ms")
		}
	}
	time.Sleep(time.Second)
	after, err := s.memory(t, goal)
	if err != nil {
		return c, err
	}
	slabAfter, err := slabSize()
	if err != nil {
		return c, err
	}
	t.note("growth for each pod of a crowd", s.name, (after-before)/float64(goal), "kB")
	t.note("growth of the kernel's slabs for each pod of a crowd", s.name, (slabAfter-slab)/float64(goal), "kB")
	for _, step := range []func(*table, int) error{s.ask, s.rest, s.restart} {
		if err := step(t, goal); err != nil {
			return c, err
		}
	}
	return c, s.shrink(pods)
}

// slabSize is of the whole machine, in kB.
func slabSize() (float64, error) {
	text, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		var size float64
		if n, _ := fmt.Sscanf(line, "Slab: %f kB", &size); n == 1 {
			return size, nil
		}
	}
	return 0, fmt.Errorf("/proc/meminfo: has no Slab")
}
