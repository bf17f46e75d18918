package cgroup

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Stats is what a group and all below it used up to Time. A part is nil where
// the machine does not measure it.
type Stats struct {
	Time   time.Time
	CPU    CPUStats
	Memory *MemoryStats
	Swap   *SwapStats
	Pids   *PidsStats
	IO     *IOStats

	CPUPressure, MemoryPressure, IOPressure *Pressure
}

// CPUStats counts since the group was made.
type CPUStats struct {
	UsageNanos, UserNanos, SystemNanos uint64
	Periods, Throttled, ThrottledNanos uint64
}

// MemoryStats is in bytes. WorkingSet is what would be hard to take away: all
// but the page cache that was not used lately; kubelets evict by it.
type MemoryStats struct {
	Usage, WorkingSet, RSS      uint64
	Limit                       uint64 // 0: none
	PageFaults, MajorPageFaults uint64
}

// SwapStats is in bytes.
type SwapStats struct {
	Usage, Limit uint64
	Limited      bool // else Limit means nothing: 0 is a limit here
}

// PidsStats counts threads, as the kernel's limit does.
type PidsStats struct {
	Current, Limit uint64 // Limit 0: none
}

// IOStats sums all devices.
type IOStats struct {
	ReadBytes, WriteBytes, Reads, Writes uint64
}

// Pressure is how long work stood still for want of a resource: some of it, or
// all of it at once.
type Pressure struct{ Some, Full PressureTime }

// PressureTime is in percent of the last 10, 60 and 300 seconds, and in total.
type PressureTime struct {
	Avg10, Avg60, Avg300 float64
	TotalNanos           uint64
}

// Stats reads what the group used. The library's reader answers 0 for what it
// could not read, which looks like a container that was reset; it also takes
// twice as long where there is a memory controller.
func (g *Group) Stats() (Stats, error) {
	s := Stats{Time: time.Now()}
	for _, read := range []func(*Stats) error{g.cpuStats, g.memoryStats, g.swapStats, g.pidsStats, g.ioStats} {
		if err := read(&s); err != nil {
			return Stats{}, fmt.Errorf("stats of cgroup %s: %w", g.Path, err)
		}
	}
	s.CPUPressure = g.pressure("cpu.pressure")
	s.MemoryPressure = g.pressure("memory.pressure")
	s.IOPressure = g.pressure("io.pressure")
	return s, nil
}

// OOMKills counts the processes that the kernel killed here or below for want
// of memory. Without a memory controller it never does.
func (g *Group) OOMKills() (uint64, error) {
	n, err := g.value("memory.events", "oom_kill")
	if missing(err) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("cgroup %s: %w", g.Path, err)
	}
	return n, nil
}

// missing is the error of a file that the machine's controllers do not have.
func missing(err error) bool { return errors.Is(err, unix.ENOENT) }

func (g *Group) cpuStats(s *Stats) error {
	text, err := readFile(g.file("cpu.stat"))
	if err != nil {
		return err // every group has it, controller or not
	}
	eachKey(text, func(key string, n uint64) {
		switch key {
		case "usage_usec":
			s.CPU.UsageNanos = n * 1000
		case "user_usec":
			s.CPU.UserNanos = n * 1000
		case "system_usec":
			s.CPU.SystemNanos = n * 1000
		case "nr_periods":
			s.CPU.Periods = n
		case "nr_throttled":
			s.CPU.Throttled = n
		case "throttled_usec":
			s.CPU.ThrottledNanos = n * 1000
		}
	})
	return nil
}

func (g *Group) memoryStats(s *Stats) error {
	usage, _, err := g.number("memory.current")
	if missing(err) {
		return nil
	}
	if err != nil {
		return err
	}
	m := &MemoryStats{Usage: usage, WorkingSet: usage}
	if m.Limit, _, err = g.number("memory.max"); err != nil {
		return err
	}
	text, err := readFile(g.file("memory.stat"))
	if err != nil {
		return err
	}
	eachKey(text, func(key string, n uint64) {
		switch key {
		case "anon":
			m.RSS = n
		case "inactive_file": // read after usage, so it may be the larger one
			m.WorkingSet = usage - min(n, usage)
		case "pgfault":
			m.PageFaults = n
		case "pgmajfault":
			m.MajorPageFaults = n
		}
	})
	s.Memory = m
	return nil
}

func (g *Group) swapStats(s *Stats) error {
	usage, _, err := g.number("memory.swap.current")
	if missing(err) {
		return nil
	}
	if err != nil {
		return err
	}
	limit, limited, err := g.number("memory.swap.max")
	s.Swap = &SwapStats{Usage: usage, Limit: limit, Limited: limited}
	return err
}

func (g *Group) pidsStats(s *Stats) error {
	current, _, err := g.number("pids.current")
	if missing(err) {
		return nil
	}
	if err != nil {
		return err
	}
	limit, _, err := g.number("pids.max")
	s.Pids = &PidsStats{Current: current, Limit: limit}
	return err
}

func (g *Group) ioStats(s *Stats) error {
	text, err := readFile(g.file("io.stat"))
	if missing(err) {
		return nil
	}
	if err != nil {
		return err
	}
	s.IO = &IOStats{}
	for word := range strings.FieldsSeq(text) {
		key, value, _ := strings.Cut(word, "=")
		n, err := strconv.ParseUint(value, 10, 64)
		if err != nil {
			continue // the device, or a key whose value is no count
		}
		switch key {
		case "rbytes":
			s.IO.ReadBytes += n
		case "wbytes":
			s.IO.WriteBytes += n
		case "rios":
			s.IO.Reads += n
		case "wios":
			s.IO.Writes += n
		}
	}
	return nil
}

// pressure is nil where the kernel does not account it: without PSI there is
// no file, with PSI switched off at boot reading fails.
func (g *Group) pressure(file string) *Pressure {
	text, err := readFile(g.file(file))
	if err != nil {
		return nil
	}
	var p Pressure
	for line := range strings.SplitSeq(text, "\n") {
		kind, rest, _ := strings.Cut(line, " ")
		t := &p.Some
		if kind == "full" {
			t = &p.Full
		}
		for word := range strings.FieldsSeq(rest) {
			key, value, _ := strings.Cut(word, "=")
			switch key {
			case "avg10":
				t.Avg10, _ = strconv.ParseFloat(value, 64)
			case "avg60":
				t.Avg60, _ = strconv.ParseFloat(value, 64)
			case "avg300":
				t.Avg300, _ = strconv.ParseFloat(value, 64)
			case "total":
				micros, _ := strconv.ParseUint(value, 10, 64)
				t.TotalNanos = micros * 1000
			}
		}
	}
	return &p
}

// number reads a file of one value; "max" is no number.
func (g *Group) number(file string) (n uint64, limited bool, err error) {
	text, err := g.read(file)
	if err != nil || text == noLimit {
		return 0, false, err
	}
	n, err = strconv.ParseUint(text, 10, 64)
	if err != nil {
		return 0, false, fmt.Errorf("%s: %w", file, err)
	}
	return n, true, nil
}

// value reads one key of a file of "key number" lines; 0 without the key.
func (g *Group) value(file, key string) (uint64, error) {
	text, err := readFile(g.file(file))
	var found uint64
	eachKey(text, func(k string, n uint64) {
		if k == key {
			found = n
		}
	})
	return found, err
}

func eachKey(text string, visit func(key string, n uint64)) {
	for line := range strings.SplitSeq(text, "\n") {
		key, value, _ := strings.Cut(line, " ")
		if n, err := strconv.ParseUint(value, 10, 64); err == nil {
			visit(key, n)
		}
	}
}
