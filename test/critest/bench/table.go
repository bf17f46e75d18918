package main

import (
	"fmt"
	"io"
	"slices"
	"sync"
	"time"
)

// table collects durations by name, in the order in which names first appear.
type table struct {
	mu      sync.Mutex // guards what follows; the rate has many writers
	order   []string
	samples map[string][]time.Duration
	numbers []number
}

// number is a result that is not a duration.
type number struct {
	Name  string
	Value float64
	Unit  string
}

// row is a name with its percentiles, in microseconds.
type row struct {
	Name               string
	Count              int
	Min, P50, P90, P99 float64
}

func newTable() *table { return &table{samples: map[string][]time.Duration{}} }

func (t *table) add(name string, d time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, known := t.samples[name]; !known {
		t.order = append(t.order, name)
	}
	t.samples[name] = append(t.samples[name], d)
}

func (t *table) note(name string, value float64, unit string) {
	t.numbers = append(t.numbers, number{name, value, unit})
}

// time runs a step and adds what it took.
func (t *table) time(name string, step func() error) (time.Duration, error) {
	start := time.Now()
	if err := step(); err != nil {
		return 0, fmt.Errorf("%s: %w", name, err)
	}
	took := time.Since(start)
	t.add(name, took)
	return took, nil
}

func (t *table) rows() []row {
	var rows []row
	for _, name := range t.order {
		samples := slices.Sorted(slices.Values(t.samples[name]))
		at := func(percent int) float64 {
			return float64(samples[min(len(samples)*percent/100, len(samples)-1)].Nanoseconds()) / 1000
		}
		rows = append(rows, row{name, len(samples), at(0), at(50), at(90), at(99)})
	}
	return rows
}

func (t *table) print(w io.Writer) {
	fmt.Fprintf(w, "\n%-44s %10s %10s %10s %10s   microseconds\n", "", "min", "p50", "p90", "p99")
	for _, r := range t.rows() {
		fmt.Fprintf(w, "%-44s %10.0f %10.0f %10.0f %10.0f\n", r.Name, r.Min, r.P50, r.P90, r.P99)
	}
	fmt.Fprintln(w)
	for _, n := range t.numbers {
		fmt.Fprintf(w, "%-44s %10.1f %s\n", n.Name, n.Value, n.Unit)
	}
}
