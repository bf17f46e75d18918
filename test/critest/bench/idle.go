package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// idle measures what pods that do nothing cost.
func (c *client) idle(t *table, program string, count int) error {
	memory, err := privateMemory(program)
	if err != nil {
		return err
	}
	mounts, err := mountCount()
	if err != nil {
		return err
	}
	var pods []*pod
	for number := range count {
		p := c.newPod(number)
		if _, err := p.do(newTable(), birth); err != nil {
			return fmt.Errorf("idle pod %d: %w", number, err)
		}
		pods = append(pods, p)
	}
	time.Sleep(time.Second) // let the last goroutines and their garbage go
	memoryWith, err := privateMemory(program)
	if err != nil {
		return err
	}
	mountsWith, err := mountCount()
	if err != nil {
		return err
	}
	t.note("memory of our processes without pods", memory, "kB")
	t.note(fmt.Sprintf("memory of our processes with %d pods", count), memoryWith, "kB")
	t.note("growth for each pod", (memoryWith-memory)/float64(count), "kB")
	t.note(fmt.Sprintf("new lines in the host's mount table, %d pods", count), mountsWith-mounts, "")
	for _, p := range pods {
		if _, err := p.do(newTable(), death); err != nil {
			return err
		}
	}
	return nil
}

// privateMemory is the proportional share (Pss, in kB) of all processes that run the program,
// from its file or from a sealed copy in memory.
func privateMemory(program string) (float64, error) {
	processes, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return 0, err
	}
	var sum float64
	found := false
	for _, process := range processes {
		file, err := os.Readlink(filepath.Join(process, "exe"))
		if err != nil || file != program && !strings.HasPrefix(file, "/memfd:") {
			continue // it is another program, or has just ended
		}
		found = true
		rollup, err := os.ReadFile(filepath.Join(process, "smaps_rollup"))
		if err != nil {
			return 0, err
		}
		for line := range strings.Lines(string(rollup)) {
			var pss float64
			if n, _ := fmt.Sscanf(line, "Pss: %f kB", &pss); n == 1 {
				sum += pss
			}
		}
	}
	if !found {
		return 0, fmt.Errorf("no process runs %s", program)
	}
	return sum, nil
}

func mountCount() (float64, error) {
	table, err := os.ReadFile("/proc/self/mountinfo")
	return float64(bytes.Count(table, []byte("\n"))), err
}
