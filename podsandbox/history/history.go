// Package history remembers what was done to pods and containers, so that
// somebody who asks why can be told.
//
// An Entry is one thing that was done, or that happened, to a Subject: a pod or
// one of its containers. A Deed is an entry at work. A History keeps the latest
// entries of each pod, also of pods that are gone, within bounds. An Answer is
// what can be said about one subject from its entries and its present state.
//
// The package knows no container: it is told.
package history

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"syscall"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// Bounds of what is remembered: entries of one pod with its containers, of all
// pods, bytes of all of them in the file, and bytes of one text.
const (
	mostOfPod = 64
	most      = 4096
	mostBytes = 2 << 20
	longest   = 2048
)

// Subject is what something is done to. A pod may be run more than once under
// its name; PodID is that of one time.
type Subject struct {
	Namespace   string `json:",omitempty"`
	Pod         string
	UID         string `json:",omitempty"`
	PodID       string `json:",omitempty"`
	Container   string `json:",omitempty"` // its name; empty for the pod itself
	ContainerID string `json:",omitempty"`
}

// pod is what entries of one pod have in common.
type pod struct{ namespace, name, uid string }

func (s Subject) pod() pod { return pod{s.Namespace, s.Pod, s.UID} }

// Same says that two subjects are the same pod, or containers of one name in it.
func (s Subject) Same(other Subject) bool {
	return s.pod() == other.pod() && s.Container == other.Container
}

// Entry is one thing that was done or happened.
type Entry struct {
	Number uint64 // the order of their beginning
	Subject
	What  string // "stop container"
	By    string `json:",omitempty"` // the call and who made it
	Began time.Time
	Ended time.Time `json:",omitzero"` // zero: it is at work, or was cut off
	// CutOff is an entry that was at work when its daemon ended.
	CutOff bool `json:",omitempty"`
	// Times is how often in a row it had this end, the first at First; such
	// entries are one.
	Times int       `json:",omitempty"`
	First time.Time `json:",omitzero"`

	Stages []Stage `json:",omitempty"`
	Doing  string  `json:",omitempty"` // at work: what now, for how long, and what it waits for
	Error  string  `json:",omitempty"` // as the caller got it
	Errno  string  `json:",omitempty"` // the kernel's name of the cause
	Exit   *Exit   `json:",omitempty"` // how a container ended

	Gone bool `json:",omitempty"` // in the file: forget this number, another entry counts it or it was nothing
}

// Stage is a part of an entry.
type Stage struct {
	Name string
	Took time.Duration
	For  string `json:",omitempty"` // what it had to wait for
}

// Exit is how a container ended.
type Exit struct {
	Code    int
	Reason  string
	Message string `json:",omitempty"`
}

// History is safe for concurrent use.
type History struct {
	log *slog.Logger

	mu      sync.Mutex
	number  uint64
	pods    map[pod]*past
	entries int              // of all pods
	bytes   int              // of these, about
	working map[uint64]*Deed // by number
	// unsaved are what the file does not have as they are; nil is one at work.
	unsaved map[uint64]*Entry

	file *file // nil: in memory only
}

// past are the entries of one pod, the oldest first.
type past struct {
	entries []Entry
	changed time.Time
}

// New makes a history that is in memory only.
func New() *History {
	return &History{log: slog.Default(), pods: map[pod]*past{}, working: map[uint64]*Deed{}, unsaved: map[uint64]*Entry{}}
}

// Deed is an entry at work. The methods of a nil Deed do nothing.
type Deed struct {
	h     *History
	doing func() string

	// Guarded by h.mu.
	entry   Entry
	since   time.Time // of the last stage
	written bool      // the file has it, as it was then
}

// Begin notes that something is being done. Doing, which may be nil, says what is
// going on at a moment.
func (h *History) Begin(ctx context.Context, about Subject, what string, doing func() string) *Deed {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.number++
	now := time.Now()
	d := &Deed{h: h, doing: doing, since: now, entry: Entry{Number: h.number, Subject: about, What: what, By: By(ctx), Began: now}}
	h.working[h.number] = d
	h.changedLocked(h.number, nil)
	return d
}

// About completes the subject with what is known only now.
func (d *Deed) About(s Subject) {
	if d == nil {
		return
	}
	d.h.mu.Lock()
	defer d.h.mu.Unlock()
	d.entry.Subject = s
}

// Stage says what is done from now on.
func (d *Deed) Stage(name string) {
	if d == nil {
		return
	}
	d.h.mu.Lock()
	defer d.h.mu.Unlock()
	d.measureLocked()
	d.entry.Stages = append(d.entry.Stages, Stage{Name: name})
	d.h.changedLocked(d.entry.Number, nil)
}

// Waits says what the stage has to wait for.
func (d *Deed) Waits(what string) {
	if d == nil {
		return
	}
	d.h.mu.Lock()
	defer d.h.mu.Unlock()
	if n := len(d.entry.Stages); n > 0 {
		d.entry.Stages[n-1].For = cut(what)
		d.h.changedLocked(d.entry.Number, nil)
	}
}

func (d *Deed) measureLocked() {
	now := time.Now()
	if n := len(d.entry.Stages); n > 0 {
		d.entry.Stages[n-1].Took = now.Sub(d.since)
	}
	d.since = now
}

// End notes the result.
func (d *Deed) End(err error) {
	if d == nil {
		return
	}
	d.h.mu.Lock()
	defer d.h.mu.Unlock()
	if _, working := d.h.working[d.entry.Number]; !working {
		return // it was forgotten
	}
	d.measureLocked()
	delete(d.h.working, d.entry.Number)
	e := d.entry
	e.Ended = time.Now()
	if err != nil {
		e.Error, e.Errno = cut(err.Error()), errno(err)
	}
	d.h.addLocked(e)
}

// Forget takes back Begin: there was nothing to do.
func (d *Deed) Forget() {
	if d == nil {
		return
	}
	d.h.mu.Lock()
	defer d.h.mu.Unlock()
	delete(d.h.working, d.entry.Number)
	delete(d.h.unsaved, d.entry.Number)
	if d.written {
		d.h.goneLocked(d.entry.Number)
	}
}

// Note adds what happened at one moment.
func (h *History) Note(ctx context.Context, about Subject, what string, at time.Time, exit *Exit) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.number++
	if exit != nil {
		exit.Message = cut(exit.Message)
	}
	h.addLocked(Entry{Number: h.number, Subject: about, What: what, By: By(ctx), Began: at, Ended: at, Exit: exit})
}

func (h *History) addLocked(e Entry) {
	if p := h.pods[e.pod()]; p != nil && p.entries[len(p.entries)-1].repeatedBy(e) {
		last := &p.entries[len(p.entries)-1]
		e.Times, e.First = max(last.Times, 1)+1, last.First
		if e.First.IsZero() {
			e.First = last.Began
		}
		h.goneLocked(last.Number)
		h.bytes += e.size() - last.size()
		*last, p.changed = e, time.Now()
	} else {
		h.keepLocked(e)
	}
	h.changedLocked(e.Number, &e)
	h.boundLocked()
}

// keepLocked makes an entry the latest of its pod.
func (h *History) keepLocked(e Entry) {
	p := h.pods[e.pod()]
	if p == nil {
		p = &past{}
		h.pods[e.pod()] = p
	}
	p.changed = time.Now()
	p.entries = append(p.entries, e)
	h.entries++
	h.bytes += e.size()
	if len(p.entries) > mostOfPod {
		h.entries--
		h.bytes -= p.entries[0].size()
		p.entries = slices.Delete(p.entries, 0, 1)
	}
}

// size is about what an entry takes in the file, rather too much than too little.
func (e *Entry) size() int {
	n := 384 // names of fields, times and numbers
	for _, text := range []string{e.Namespace, e.Pod, e.UID, e.PodID, e.Container, e.ContainerID, e.What, e.By, e.Error, e.Errno} {
		n += encoded(text)
	}
	for _, s := range e.Stages {
		n += 64 + encoded(s.Name) + encoded(s.For)
	}
	if e.Exit != nil {
		n += 64 + encoded(e.Exit.Reason) + encoded(e.Exit.Message)
	}
	return n
}

// encoded counts what JSON may write as \u00xx with its six bytes.
func encoded(text string) (n int) {
	for _, r := range text {
		switch r {
		case '"', '\\', '<', '>', '&', '\u2028', '\u2029', utf8.RuneError:
			n += 6
		default:
			if r < ' ' {
				n += 6
			} else {
				n += utf8.RuneLen(r)
			}
		}
	}
	return n
}

// repeatedBy says that another entry tells nothing new.
func (e Entry) repeatedBy(next Entry) bool {
	return e.Same(next.Subject) && e.What == next.What && e.Error == next.Error && e.Exit == nil && next.Exit == nil && !e.CutOff
}

// boundLocked forgets the pods that nothing happened to for the longest time.
func (h *History) boundLocked() {
	if h.entries <= most && h.bytes <= mostBytes {
		return
	}
	order := make([]pod, 0, len(h.pods))
	for name := range h.pods {
		order = append(order, name)
	}
	slices.SortFunc(order, func(a, b pod) int { return h.pods[a].changed.Compare(h.pods[b].changed) })
	for _, name := range order {
		if h.entries <= most*9/10 && h.bytes <= mostBytes*9/10 {
			return
		}
		for _, e := range h.pods[name].entries {
			h.entries--
			h.bytes -= e.size()
		}
		delete(h.pods, name)
	}
}

// Of gives the entries that want is true for in the order of their beginning,
// those at work among them.
func (h *History) Of(want func(Subject) bool) []Entry {
	h.mu.Lock()
	var list []Entry
	for _, p := range h.pods {
		for _, e := range p.entries {
			if want(e.Subject) {
				list = append(list, e)
			}
		}
	}
	doing := map[uint64]func() string{}
	for n, d := range h.working {
		if want(d.entry.Subject) {
			list = append(list, d.snapshotLocked())
			doing[n] = d.doing
		}
	}
	h.mu.Unlock()
	// Not under the lock: to say what it does it asks others.
	for i := range list {
		if say := doing[list[i].Number]; say != nil {
			list[i].Doing = say()
		}
	}
	slices.SortFunc(list, byNumber)
	return list
}

// Sort puts entries in the order of their beginning.
func Sort(list []Entry) { slices.SortFunc(list, byNumber) }

// byNumber is the order of time that no clock disturbs.
func byNumber(a, b Entry) int { return cmp.Compare(a.Number, b.Number) }

func (d *Deed) snapshotLocked() Entry {
	e := d.entry
	e.Stages = slices.Clone(e.Stages)
	if n := len(e.Stages); n > 0 {
		e.Stages[n-1].Took = time.Since(d.since)
	}
	return e
}

func errno(err error) string {
	var n syscall.Errno
	if errors.As(err, &n) {
		return unix.ErrnoName(n)
	}
	return ""
}

func cut(text string) string {
	if len(text) > longest {
		return text[:longest] + "…"
	}
	return text
}

type byKey struct{}

// Asked gives a context for what who asked for.
func Asked(ctx context.Context, who string) context.Context {
	return context.WithValue(ctx, byKey{}, who)
}

// By tells who asked for what a context belongs to.
func By(ctx context.Context) string {
	who, _ := ctx.Value(byKey{}).(string)
	return who
}
