package main

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"time"
)

// idle measures what pods that do nothing cost: 1, half of count, and count.
func idle(t *table, all []*subject, count int) error {
	for _, s := range all {
		if err := s.idle(t, count); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	return nil
}

func (s *subject) idle(t *table, count int) error {
	mounts, err := s.mountCount()
	if err != nil {
		return err
	}
	first, err := s.memory(t, 0)
	if err != nil {
		return err
	}
	var pods []*pod
	var last float64
	for _, goal := range []int{1, count / 2, count} {
		if pods, err = s.grow(pods, goal); err != nil {
			return err
		}
		time.Sleep(time.Second) // let the last goroutines and their garbage go
		if last, err = s.memory(t, goal); err != nil {
			return err
		}
	}
	t.note("memory, growth for each pod", s.name, (last-first)/float64(count), "kB")
	mountsWith, err := s.mountCount()
	if err != nil {
		return err
	}
	t.note(fmt.Sprintf("new lines in the daemon's mount table, %d pods", count), s.name, mountsWith-mounts, "")
	if err := s.ask(t, count); err != nil {
		return err
	}
	if err := s.rest(t, count); err != nil {
		return err
	}
	if err := s.restart(t, count); err != nil {
		return err
	}
	return s.shrink(pods)
}

// grow starts pods until there are so many.
func (s *subject) grow(pods []*pod, goal int) ([]*pod, error) {
	for len(pods) < goal {
		p, _, err := s.start(newTable())
		if err != nil {
			return pods, fmt.Errorf("pod %d of %d: %w", len(pods), goal, err)
		}
		pods = append(pods, p)
	}
	return pods, nil
}

func (s *subject) shrink(pods []*pod) error {
	for _, p := range pods {
		if _, err := s.end(newTable(), p); err != nil {
			return err
		}
	}
	return nil
}

// memory is of all processes but the pods' own programs, in kB.
func (s *subject) memory(t *table, pods int) (float64, error) {
	processes, err := s.place.Processes()
	if err != nil {
		return 0, err
	}
	var sum float64
	var count int
	for _, p := range processes {
		if !slices.Equal(p.Args, command) {
			sum += p.PSS
			count++
		}
	}
	if count == 0 {
		return 0, fmt.Errorf("the place has no process")
	}
	t.note(fmt.Sprintf("memory with %d pods", pods), s.name, sum/1024, "MiB")
	t.note(fmt.Sprintf("processes with %d pods, their own programs left out", pods), s.name, float64(count), "")
	return sum, nil
}

func (s *subject) mountCount() (float64, error) {
	table, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", s.daemon.Pid()))
	return float64(bytes.Count(table, []byte("\n"))), err
}
