// Package capability decides which Linux capabilities a container gets.
//
// A set is a uint64 with one bit for each capability. Sets are the five sets
// of a process. Resolve is the only decision; the package applies nothing.
package capability

import (
	"fmt"
	"strings"
	"sync"

	"github.com/moby/sys/capability"
	"golang.org/x/sys/unix"
)

// Sets are the five capability sets of a process about to run a program.
type Sets struct {
	Bounding, Effective, Permitted, Inheritable, Ambient uint64
}

// all is the word that stands for every capability in a request.
const all = "ALL"

// Default is what a container gets that asks for nothing, the same 14 as with
// the other runtimes.
const Default uint64 = 1<<unix.CAP_CHOWN |
	1<<unix.CAP_DAC_OVERRIDE |
	1<<unix.CAP_FSETID |
	1<<unix.CAP_FOWNER |
	1<<unix.CAP_MKNOD |
	1<<unix.CAP_NET_RAW |
	1<<unix.CAP_SETGID |
	1<<unix.CAP_SETUID |
	1<<unix.CAP_SETFCAP |
	1<<unix.CAP_SETPCAP |
	1<<unix.CAP_NET_BIND_SERVICE |
	1<<unix.CAP_SYS_CHROOT |
	1<<unix.CAP_KILL |
	1<<unix.CAP_AUDIT_WRITE

var bits = func() map[string]uint64 {
	m := make(map[string]uint64)
	for _, c := range capability.ListKnown() {
		m[strings.ToUpper(c.String())] = 1 << uint(c)
	}
	return m
}()

// Parse gives the bit of one name, with or without CAP_, in any case.
func Parse(name string) (uint64, error) {
	bit, ok := bits[strings.TrimPrefix(strings.ToUpper(name), "CAP_")]
	if !ok {
		return 0, fmt.Errorf("capability %q: unknown name", name)
	}
	return bit, nil
}

// Names lists the names of a set with CAP_ in front, in the kernel's order.
func Names(set uint64) []string {
	var names []string
	for _, c := range capability.ListKnown() {
		if set&(1<<uint(c)) != 0 {
			names = append(names, "CAP_"+strings.ToUpper(c.String()))
		}
	}
	return names
}

// Kernel is the set of all capabilities the running kernel has. It is what a
// process has in a new user namespace, whoever made that.
var Kernel = sync.OnceValues(func() (uint64, error) {
	last, err := capability.LastCap()
	if err != nil {
		return 0, fmt.Errorf("last capability of the kernel: %w", err)
	}
	return 1<<(uint(last)+1) - 1, nil
})

// Own is the set this process can hand on: a runtime that was itself started
// with less (in a container, under a service manager) cannot give more.
var Own = sync.OnceValues(func() (uint64, error) {
	self, err := capability.NewPid2(0)
	if err != nil {
		return 0, err
	}
	if err := self.Load(); err != nil {
		return 0, fmt.Errorf("own capabilities: %w", err)
	}
	var set uint64
	for _, c := range capability.ListKnown() {
		if self.Get(capability.PERMITTED, c) && self.Get(capability.BOUNDING, c) {
			set |= 1 << uint(c)
		}
	}
	return set, nil
})

// Resolve decides the sets of a container without a user namespace of its own.
func Resolve(add, drop, ambient []string, privileged bool) (Sets, error) {
	own, err := Own()
	if err != nil {
		return Sets{}, err
	}
	return ResolveWithin(own, add, drop, ambient, privileged)
}

// ResolveWithin is Resolve with a stated upper limit; for a container in a new
// user namespace that is Kernel.
//
// ALL means all of the limit. A drop of ALL is done before the named adds, any
// other drop after them. Privileged means all, whatever is added or dropped,
// but wrong names are still refused.
//
// The inheritable set is empty unless ambient capabilities are asked for.
// Runtimes used to fill it from add, and a program with file capabilities in
// the image then gained them for an ordinary user across execve
// (CVE-2022-24769 and its like): permission that add never promised. Ambient
// needs it, for the kernel keeps ambient within inheritable.
func ResolveWithin(limit uint64, add, drop, ambient []string, privileged bool) (Sets, error) {
	plus, err := parseList("add_capabilities", add, limit)
	if err != nil {
		return Sets{}, err
	}
	minus, err := parseList("drop_capabilities", drop, ^uint64(0))
	if err != nil {
		return Sets{}, err
	}
	lasting, err := parseList("add_ambient_capabilities", ambient, limit)
	if err != nil {
		return Sets{}, err
	}
	if lasting.all {
		lasting.named = limit
	}

	set := Default & limit
	if plus.all || privileged {
		set = limit
	}
	if !privileged {
		if minus.all {
			set = 0
		}
		set = (set | plus.named | lasting.named) &^ minus.named
	}
	keep := lasting.named & set
	return Sets{Bounding: set, Effective: set, Permitted: set, Inheritable: keep, Ambient: keep}, nil
}

// Error is a capability that cannot be had.
type Error struct {
	Field  string // the list, as the interface calls it: add_capabilities
	Name   string // as asked
	Reason string
}

func (e *Error) Error() string { return fmt.Sprintf("%s %q: %s", e.Field, e.Name, e.Reason) }

// list is what one field of a request names.
type list struct {
	named uint64 // without ALL
	all   bool
}

// parseList refuses a capability outside of limit: silently giving less than
// was asked for would show only much later, inside the program.
func parseList(field string, names []string, limit uint64) (list, error) {
	var l list
	for _, name := range names {
		if strings.EqualFold(name, all) {
			l.all = true
			continue
		}
		bit, err := Parse(name)
		if err != nil {
			return list{}, &Error{Field: field, Name: name, Reason: "unknown capability"}
		}
		if bit&limit == 0 {
			return list{}, &Error{Field: field, Name: name, Reason: "neither the kernel nor this runtime has it"}
		}
		l.named |= bit
	}
	return l, nil
}
