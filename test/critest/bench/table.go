package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"
)

// table collects durations and numbers by their name and by whose they are, in
// the order in which names first appear.
type table struct {
	mu       sync.Mutex // guards what follows; a rate has many writers
	order    []string
	subjects []string
	samples  map[string]map[string][]time.Duration
	numbers  []number
}

// number is a result that is not a duration.
type number struct {
	Name, Subject string
	Value         float64
	Unit          string
}

// row is a name with its percentiles, in microseconds.
type row struct {
	Name, Subject           string
	Count                   int
	Min, P50, P90, P95, P99 float64
}

func newTable() *table { return &table{samples: map[string]map[string][]time.Duration{}} }

func (t *table) add(name, subject string, d time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, known := t.samples[name]; !known {
		t.order = append(t.order, name)
		t.samples[name] = map[string][]time.Duration{}
	}
	t.know(subject)
	t.samples[name][subject] = append(t.samples[name][subject], d)
}

func (t *table) note(name, subject string, value float64, unit string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.know(subject)
	t.numbers = append(t.numbers, number{name, subject, value, unit})
}

func (t *table) know(subject string) {
	if !slices.Contains(t.subjects, subject) {
		t.subjects = append(t.subjects, subject)
	}
}

// time runs a step and adds what it took.
func (t *table) time(name, subject string, step func() error) (time.Duration, error) {
	start := time.Now()
	if err := step(); err != nil {
		return 0, fmt.Errorf("%s: %s: %w", subject, name, err)
	}
	took := time.Since(start)
	t.add(name, subject, took)
	return took, nil
}

func percentile(samples []time.Duration, percent int) float64 {
	sorted := slices.Sorted(slices.Values(samples))
	return float64(sorted[min(len(sorted)*percent/100, len(sorted)-1)].Nanoseconds()) / 1000
}

func (t *table) rows() []row {
	var rows []row
	for _, name := range t.order {
		for _, subject := range t.subjects {
			if s := t.samples[name][subject]; len(s) > 0 {
				rows = append(rows, row{name, subject, len(s), percentile(s, 0), percentile(s, 50), percentile(s, 90), percentile(s, 95), percentile(s, 99)})
			}
		}
	}
	return rows
}

// print writes Markdown: times first, then numbers. A ratio is of the column to
// its left to that of our own.
func (t *table) print(w io.Writer) {
	if len(t.order) > 0 {
		t.head(w, "ms: least / p25 / p50 / p95 (ratio of p50)")
	}
	for _, name := range t.order {
		fmt.Fprintf(w, "| %s |", name)
		mine := t.samples[name][own]
		for _, subject := range t.subjects {
			s := t.samples[name][subject]
			if len(s) == 0 {
				fmt.Fprint(w, " |")
				continue
			}
			fmt.Fprintf(w, " %.2f / %.2f / %.2f / %.2f%s |", percentile(s, 0)/1000, percentile(s, 25)/1000, percentile(s, 50)/1000, percentile(s, 95)/1000, ratio(subject, percentile(s, 50), len(mine), func() float64 { return percentile(mine, 50) }))
		}
		fmt.Fprintln(w)
	}
	if len(t.numbers) > 0 {
		t.head(w, "numbers (ratio)")
	}
	for i, n := range t.numbers {
		same := func(o number) bool { return o.Name == n.Name }
		if slices.IndexFunc(t.numbers, same) != i {
			continue // its row has been written
		}
		fmt.Fprintf(w, "| %s |", strings.TrimSuffix(n.Name+", "+n.Unit, ", "))
		mine := slices.IndexFunc(t.numbers, func(o number) bool { return same(o) && o.Subject == own })
		for _, subject := range t.subjects {
			at := slices.IndexFunc(t.numbers, func(o number) bool { return same(o) && o.Subject == subject })
			if at < 0 {
				fmt.Fprint(w, " |")
				continue
			}
			value := t.numbers[at].Value
			fmt.Fprintf(w, " %.4g%s |", value, ratio(subject, value, mine+1, func() float64 { return t.numbers[mine].Value }))
		}
		fmt.Fprintln(w)
	}
}

func (t *table) head(w io.Writer, title string) {
	fmt.Fprintf(w, "\n| %s | %s |\n|---|%s\n", title, strings.Join(t.subjects, " | "), strings.Repeat("---|", len(t.subjects)))
}

// ratio is of another's value to ours, where there are both.
func ratio(subject string, value float64, known int, mine func() float64) string {
	if subject == own || known == 0 || mine() == 0 {
		return ""
	}
	return fmt.Sprintf(" (%.3g)", value/mine())
}
