package cgroup

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/containerd/cgroups/v3/cgroup2"

	"cri-mini/runtime/spec"
)

// The parsers of the kernel's files. Keys that are not known are left out: each
// kernel has more of them.

func parseCPU(text string, c *spec.CPU) {
	var b spec.Bandwidth
	eachKey(text, func(key string, n uint64) {
		switch key {
		case "usage_usec":
			c.Nanos = n * 1000
		case "user_usec":
			c.UserNanos = n * 1000
		case "system_usec":
			c.SystemNanos = n * 1000
		case "nr_periods": // is there only with the controller
			b.Periods = n
			c.Bandwidth = &b
		case "nr_throttled":
			b.Throttled = n
		case "throttled_usec":
			b.ThrottledNanos = n * 1000
		}
	})
}

func parseMemory(text string, m *spec.Memory) {
	m.WorkingSet = m.Usage
	eachKey(text, func(key string, n uint64) {
		switch key {
		case "anon":
			m.RSS = n
		case "file":
			m.Cache = n
		case "file_mapped":
			m.MappedFile = n
		case "kernel":
			m.Kernel = &n
		case "inactive_file": // read after usage, so it may be the larger one
			m.WorkingSet = m.Usage - min(n, m.Usage)
		case "pgfault":
			m.PageFaults = n
		case "pgmajfault":
			m.MajorPageFaults = n
		}
	})
}

func parseMemoryEvents(text string, m *spec.Memory) {
	eachKey(text, func(key string, n uint64) {
		switch key {
		case "max":
			m.LimitHits = n
		case "oom_kill":
			m.OOMKills = n
		}
	})
}

// parseIO reads lines of "major:minor key=value key=value". A device without
// any traffic may come alone in its line.
func parseIO(text string) []spec.DeviceIO {
	list := []spec.DeviceIO{} // not nil: it is measured
	for line := range strings.SplitSeq(text, "\n") {
		device, rest, _ := strings.Cut(line, " ")
		major, minor, ok := parseDevice(device)
		if !ok {
			continue
		}
		d := spec.DeviceIO{Major: major, Minor: minor}
		for word := range strings.FieldsSeq(rest) {
			key, value, _ := strings.Cut(word, "=")
			n, err := strconv.ParseUint(value, 10, 64)
			if err != nil {
				continue // a key whose value is no count
			}
			switch key {
			case "rbytes":
				d.ReadBytes = n
			case "wbytes":
				d.WriteBytes = n
			case "rios":
				d.Reads = n
			case "wios":
				d.Writes = n
			}
		}
		list = append(list, d)
	}
	return list
}

func parseDevice(text string) (major, minor uint32, ok bool) {
	a, b, _ := strings.Cut(text, ":")
	first, err1 := strconv.ParseUint(a, 10, 32)
	second, err2 := strconv.ParseUint(b, 10, 32)
	return uint32(first), uint32(second), err1 == nil && err2 == nil
}

func parsePressure(text string) *spec.Pressure {
	var p spec.Pressure
	for line := range strings.SplitSeq(text, "\n") {
		kind, rest, _ := strings.Cut(line, " ")
		var t *spec.PressureTime
		switch kind {
		case "some":
			t = &p.Some
		case "full":
			t = &p.Full
		default:
			continue
		}
		for word := range strings.FieldsSeq(rest) {
			key, value, _ := strings.Cut(word, "=")
			switch key {
			case "avg10":
				t.Avg10 = percent(value)
			case "avg60":
				t.Avg60 = percent(value)
			case "avg300":
				t.Avg300 = percent(value)
			case "total":
				micros, _ := strconv.ParseUint(value, 10, 64)
				t.Nanos = micros * 1000
			}
		}
	}
	return &p
}

// percent takes only what the kernel can mean: no "NaN" or "Inf" gets into an
// answer.
func percent(text string) float64 {
	n, err := strconv.ParseFloat(text, 64)
	if err != nil || !(n >= 0 && n <= 100) {
		return 0
	}
	return n
}

// parseNumber reads a file of one value; "max" is no number.
func parseNumber(file, text string) (n uint64, limited bool, err error) {
	text = strings.TrimSpace(text)
	if text == noLimit {
		return 0, false, nil
	}
	n, err = strconv.ParseUint(text, 10, 64)
	if err != nil {
		return 0, false, fmt.Errorf("%s: %w", file, err)
	}
	return n, true, nil
}

// parseMax reads cpu.max, "quota period".
func parseMax(text string) (quota, period uint64, err error) {
	first, second, _ := strings.Cut(strings.TrimSpace(text), " ")
	if quota, _, err = parseNumber("cpu.max", first); err == nil {
		period, _, err = parseNumber("cpu.max", second)
	}
	return quota, period, err
}

// sharesOf turns a weight back into shares. Several shares have one weight:
// those that were asked for are the answer as long as they can be.
func sharesOf(weight, asked uint64) uint64 {
	if asked != 0 && cgroup2.ConvertCPUSharesToCgroupV2Value(asked) == weight {
		return asked
	}
	const least, most = 2, 262144
	low, high := uint64(least), uint64(most)
	for low < high {
		middle := (low + high) / 2
		if cgroup2.ConvertCPUSharesToCgroupV2Value(middle) < weight {
			low = middle + 1
		} else {
			high = middle
		}
	}
	return low
}

func eachKey(text string, visit func(key string, n uint64)) {
	for line := range strings.SplitSeq(text, "\n") {
		key, value, _ := strings.Cut(line, " ")
		if n, err := strconv.ParseUint(value, 10, 64); err == nil {
			visit(key, n)
		}
	}
}
