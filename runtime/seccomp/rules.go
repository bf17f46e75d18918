package seccomp

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	profiles "github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// rule is one entry of a profile whose conditions on the container hold.
type rule struct {
	names  []string
	answer uint32        // what the program returns
	when   [][]condition // any of these, all parts of which hold; nil: always
}

// condition compares one argument: (argument & mask) op value. Only eq uses
// another mask than all bits.
type condition struct {
	index uint32
	op    operator
	mask  uint64
	value uint64
}

type operator int

const (
	eq operator = iota
	ne
	lt
	le
	gt
	ge
)

const allBits = ^uint64(0)

var operators = map[specs.LinuxSeccompOperator]operator{
	specs.OpEqualTo: eq, specs.OpNotEqual: ne, specs.OpLessThan: lt, specs.OpLessEqual: le,
	specs.OpGreaterThan: gt, specs.OpGreaterEqual: ge, specs.OpMaskedEqual: eq,
}

var actions = map[specs.LinuxSeccompAction]uint32{
	specs.ActAllow:       unix.SECCOMP_RET_ALLOW,
	specs.ActLog:         unix.SECCOMP_RET_LOG,
	specs.ActErrno:       unix.SECCOMP_RET_ERRNO,
	specs.ActTrace:       unix.SECCOMP_RET_TRACE,
	specs.ActTrap:        unix.SECCOMP_RET_TRAP,
	specs.ActKill:        unix.SECCOMP_RET_KILL_THREAD,
	specs.ActKillThread:  unix.SECCOMP_RET_KILL_THREAD,
	specs.ActKillProcess: unix.SECCOMP_RET_KILL_PROCESS,
}

// check goes through a whole profile, also through the rules that do not hold
// on this machine: they will be wrong on another.
func check(p *profiles.Seccomp) error {
	if p.ListenerPath != "" || p.ListenerMetadata != "" {
		return fmt.Errorf("listenerPath %q: notifications are not supported", p.ListenerPath)
	}
	if _, err := answer("defaultAction", p.DefaultAction, "defaultErrnoRet", p.DefaultErrnoRet); err != nil {
		return err
	}
	if len(p.Architectures) > 0 && len(p.ArchMap) > 0 {
		return errors.New("architectures and archMap: both are given")
	}
	for _, a := range p.Architectures {
		if err := checkArch("architectures", a); err != nil {
			return err
		}
	}
	for _, a := range p.ArchMap {
		for _, name := range append([]specs.Arch{a.Arch}, a.SubArches...) {
			if err := checkArch("archMap", name); err != nil {
				return err
			}
		}
	}
	for _, f := range p.Flags {
		if _, ok := knownFlags[f]; !ok {
			return fmt.Errorf("flags %q: unknown flag", f)
		}
	}
	for i, call := range p.Syscalls {
		if call == nil {
			return fmt.Errorf("syscalls[%d]: null", i)
		}
		if _, err := translate(call); err != nil {
			return fmt.Errorf("syscalls[%d].%w", i, err)
		}
	}
	return nil
}

// answer is the return value for an action. EPERM is the error of actions
// that carry one and do not name it.
func answer(field string, action specs.LinuxSeccompAction, errnoField string, errno *uint) (uint32, error) {
	if action == specs.ActNotify {
		return 0, fmt.Errorf("%s %q: notifications are not supported", field, action)
	}
	value, ok := actions[action]
	if !ok {
		return 0, fmt.Errorf("%s %q: unknown action", field, action)
	}
	var most uint
	switch action {
	case specs.ActErrno:
		most = 4095 // the kernel cuts off what is above
	case specs.ActTrace:
		most = unix.SECCOMP_RET_DATA
	default:
		if errno != nil {
			return 0, fmt.Errorf("%s %d: action %s returns no error", errnoField, *errno, action)
		}
		return value, nil
	}
	if errno == nil {
		return value | uint32(unix.EPERM), nil
	}
	if *errno > most {
		return 0, fmt.Errorf("%s %d: above %d", errnoField, *errno, most)
	}
	return value | uint32(*errno), nil
}

//lint:file-ignore SA1019 profiles of old still name one call with name.

func translate(call *profiles.Syscall) (rule, error) {
	var r rule
	var err error
	switch {
	case call.Name != "" && len(call.Names) > 0:
		return r, fmt.Errorf("name %q: names is given too", call.Name)
	case call.Name != "":
		r.names = []string{call.Name}
	case len(call.Names) == 0:
		return r, errors.New("names: empty")
	default:
		r.names = call.Names
	}
	if r.answer, err = answer("action", call.Action, "errnoRet", call.ErrnoRet); err != nil {
		return r, err
	}
	r.when, err = conditions(call.Args)
	return r, err
}

// conditions of one rule must all hold, unless two are about the same
// argument: then any of the list is enough. That is runc's oldest behaviour,
// which profiles have come to rely on.
func conditions(args []specs.LinuxSeccompArg) ([][]condition, error) {
	if len(args) == 0 {
		return nil, nil
	}
	var all []condition
	var seen [6]bool
	anyOf := false
	for i, a := range args {
		if a.Index >= uint(len(seen)) {
			return nil, fmt.Errorf("args[%d].index %d: a call has 6 arguments", i, a.Index)
		}
		op, ok := operators[a.Op]
		if !ok {
			return nil, fmt.Errorf("args[%d].op %q: unknown operator", i, a.Op)
		}
		c := condition{index: uint32(a.Index), op: op, mask: allBits, value: a.Value}
		if a.Op == specs.OpMaskedEqual {
			c.mask, c.value = a.Value, a.ValueTwo&a.Value
		}
		anyOf = anyOf || seen[a.Index]
		seen[a.Index] = true
		all = append(all, c)
	}
	if !anyOf {
		return [][]condition{all}, nil
	}
	var each [][]condition
	for _, c := range all {
		each = append(each, []condition{c})
	}
	return each, nil
}

// kernel is a version as profiles compare them.
type kernel struct{ major, minor uint64 }

// rules are those of the profile that hold for this container and machine.
func (p *Profile) rules(m machine, k kernel) ([]rule, error) {
	var all []rule
	for i, call := range p.source.Syscalls {
		if !p.holds(call, m, k) {
			continue
		}
		r, err := translate(call)
		if err != nil {
			return nil, fmt.Errorf("syscalls[%d].%w", i, err)
		}
		all = append(all, r)
	}
	return all, nil
}

// holds: a rule is included when all it asks for is there (any one of several
// architectures), and excluded when anything of the list is.
func (p *Profile) holds(call *profiles.Syscall, m machine, k kernel) bool {
	has := func(c string) bool { return slices.Contains(p.caps, strings.ToUpper(c)) }
	lacks := func(c string) bool { return !has(c) }
	if in := call.Includes; in != nil {
		if len(in.Arches) > 0 && !slices.Contains(in.Arches, m.name) ||
			slices.ContainsFunc(in.Caps, lacks) ||
			in.MinKernel != nil && !k.atLeast(*in.MinKernel) {
			return false
		}
	}
	if ex := call.Excludes; ex != nil {
		if slices.Contains(ex.Arches, m.name) ||
			slices.ContainsFunc(ex.Caps, has) ||
			ex.MinKernel != nil && k.atLeast(*ex.MinKernel) {
			return false
		}
	}
	return true
}

func (k kernel) atLeast(min profiles.KernelVersion) bool {
	return k.major > min.Kernel || k.major == min.Kernel && k.minor >= min.Major
}

// wanted are the architectures of the profile: a list, or for each native one
// the others that come with it.
func (p *Profile) wanted(m machine) []specs.Arch {
	for _, a := range p.source.ArchMap {
		if a.Arch == m.native.name {
			return a.SubArches
		}
	}
	return p.source.Architectures
}
