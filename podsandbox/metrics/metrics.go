// Package metrics turns what containers and pods used into the metrics that a
// kubelet publishes, under the names by which cAdvisor made them known.
//
// A Descriptor is a name with its help and the keys of its labels. A Metric is
// one value of it. There is one table of all of them. The package is pure: it
// measures nothing and knows no CRI. What was not measured is no metric; there
// are no made-up zeros.
package metrics

import (
	"slices"
	"time"

	"cri-mini/runtime/spec"
)

// Kind tells how values of a metric are to be compared.
type Kind int

const (
	Counter Kind = iota // only grows
	Gauge
)

// Descriptor says what a metric is.
type Descriptor struct {
	Name, Help string
	Labels     []string // keys, in the order of the values
}

// Metric is one value.
type Metric struct {
	Name   string
	Kind   Kind
	Labels []string // values
	Value  uint64
	At     time.Time // when it was measured; zero: now
}

// Identity is what every metric is labelled with.
type Identity struct {
	Container string // empty for what belongs to the whole pod
	ID        string
	Image     string
	Namespace string
	Pod       string
}

// keys are the labels that every metric has.
var keys = []string{"container", "id", "image", "namespace", "pod"}

func (i Identity) values() []string {
	return []string{i.Container, i.ID, i.Image, i.Namespace, i.Pod}
}

// Container is a running container with what was measured of it; a pointer is
// nil when that was not.
type Container struct {
	Identity
	Started, Seen time.Time

	Usage    spec.Stats
	Inside   *spec.Inside
	Writable *spec.DiskUsage
	Disk     *spec.FileSystem // that the writable layer is on
	// HugetlbPeaks are the highest uses seen, by page size.
	HugetlbPeaks map[string]uint64
}

// Pod is a pod with its network.
type Pod struct {
	Identity
	Interfaces []spec.Interface
}

// row is one line of a table: a metric of a thing of type T.
type row[T any] struct {
	name, help string
	kind       Kind
	labels     []string // keys besides those that every metric has
	of         func(*T) []value
}

// value is one value with its own labels.
type value struct {
	n      uint64
	at     time.Time
	labels []string
}

// Descriptors lists all metrics there can be, ordered by name.
func Descriptors() []Descriptor {
	list := describe(nil, ofContainers)
	list = describe(list, ofPods)
	slices.SortFunc(list, func(a, b Descriptor) int {
		if a.Name < b.Name {
			return -1
		}
		return 1
	})
	return list
}

func describe[T any](list []Descriptor, table []row[T]) []Descriptor {
	for _, r := range table {
		list = append(list, Descriptor{r.name, r.help, slices.Concat(keys, r.labels)})
	}
	return list
}

// OfContainer gives the metrics of a container.
func OfContainer(c Container) []Metric { return all(c.values(), &c, ofContainers) }

// OfPod gives the metrics of a pod that are not those of its containers.
func OfPod(p Pod) []Metric { return all(p.values(), &p, ofPods) }

func all[T any](base []string, thing *T, table []row[T]) []Metric {
	list := make([]Metric, 0, len(table))
	for _, r := range table {
		for _, v := range r.of(thing) {
			labels := base
			if len(v.labels) > 0 {
				labels = slices.Concat(base, v.labels)
			}
			list = append(list, Metric{Name: r.name, Kind: r.kind, Labels: labels, Value: v.n, At: v.at})
		}
	}
	return list
}

func one(n uint64, labels ...string) []value { return []value{{n: n, labels: labels}} }

func perhaps(n *uint64) []value {
	if n == nil {
		return nil
	}
	return one(*n)
}

// seconds are whole ones: the CRI carries no fractions.
func seconds(nanos uint64) uint64 { return nanos / uint64(time.Second) }
