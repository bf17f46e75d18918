package seccomp

import (
	"fmt"
	"testing"

	"golang.org/x/sys/unix"
)

// call is what the kernel shows to a program.
type call struct {
	number, arch uint32
	args         [6]uint64
}

func (c call) String() string {
	return fmt.Sprintf("call %d (%#x) of %#x with %#x", c.number, c.number, c.arch, c.args)
}

func (c call) word(offset uint32) uint32 {
	switch {
	case offset == offsetNumber:
		return c.number
	case offset == offsetArch:
		return c.arch
	case offset >= offsetArgs && offset < offsetArgs+48 && offset%4 == 0:
		arg := c.args[(offset-offsetArgs)/8]
		return uint32(arg >> (8 * ((offset - offsetArgs) % 8)))
	}
	panic(fmt.Sprintf("load from %d", offset))
}

// run is the kernel's machine for classic BPF, as far as seccomp uses it.
func run(t testing.TB, code []unix.SockFilter, c call) uint32 {
	var a uint32
	for pc := 0; pc < len(code); pc++ {
		f := code[pc]
		test := func(yes bool) {
			if yes {
				pc += int(f.Jt)
			} else {
				pc += int(f.Jf)
			}
		}
		switch f.Code {
		case unix.BPF_LD | unix.BPF_W | unix.BPF_ABS:
			a = c.word(f.K)
		case unix.BPF_ALU | unix.BPF_AND | unix.BPF_K:
			a &= f.K
		case unix.BPF_JMP | unix.BPF_JA:
			pc += int(f.K)
		case unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K:
			test(a == f.K)
		case unix.BPF_JMP | unix.BPF_JGT | unix.BPF_K:
			test(a > f.K)
		case unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K:
			test(a >= f.K)
		case unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K:
			test(a&f.K != 0)
		case unix.BPF_RET | unix.BPF_K:
			return f.K
		default:
			t.Fatalf("instruction %d: %+v", pc, f)
		}
	}
	t.Fatal("the program does not return")
	return 0
}

// judge decides calls in the plainest way, from the list of rules, as the
// comments in choice.go say it.
func judge(p *Profile, m machine) func(call) uint32 {
	rules, err := p.rules(m, kernel{6, 18})
	if err != nil {
		panic(err)
	}
	fallback, err := answer("", p.source.DefaultAction, "", p.source.DefaultErrnoRet)
	if err != nil {
		panic(err)
	}
	byArch := map[uint32]func(call) uint32{}
	for _, a := range m.arches(p.wanted(m)) {
		byArch[a.audit] = judgeArch(a, rules, fallback)
	}
	return func(c call) uint32 {
		if decide := byArch[c.arch]; decide != nil {
			return decide(c)
		}
		return unix.SECCOMP_RET_KILL_PROCESS
	}
}

func judgeArch(a *arch, rules []rule, fallback uint32) func(call) uint32 {
	newest := uint32(0)
	mine := make([]map[uint32]bool, len(rules)) // numbers of each rule
	for i, r := range rules {
		mine[i] = map[uint32]bool{}
		for _, name := range r.names {
			if row, ok := numbers(name); ok && row.numbers[a.column] >= 0 {
				n := uint32(row.numbers[a.column])
				mine[i][n] = true
				if n < a.foreign {
					newest = max(newest, n)
				}
			}
		}
	}
	return func(c call) uint32 {
		if a == amd64 && c.number >= x32 {
			return missing
		}
		if a.bits == 32 {
			for i := range c.args {
				c.args[i] = uint64(uint32(c.args[i]))
			}
		}
		decided, result := false, fallback
		for i, r := range rules {
			if r.answer == fallback {
				continue
			}
			if mine[i][c.number] && always(a, r) {
				return r.answer
			}
			if !decided && (mine[i][c.number] && matches(a, r, c) || a == i386 && behindMux(r, c)) {
				decided, result = true, r.answer
			}
		}
		if !decided && c.number > newest && (a.foreign == nothing || c.number < a.foreign) && !permissive(fallback) {
			return missing
		}
		return result
	}
}

func behindMux(r rule, c call) bool {
	if c.number != 102 && c.number != 117 || r.when != nil && permissive(r.answer) {
		return false
	}
	for _, name := range r.names {
		if mux, ok := muxed[name]; ok && mux.number == c.number && c.args[0]&mux.mask == mux.call {
			return true
		}
	}
	return false
}

func always(a *arch, r rule) bool {
	if r.when == nil {
		return true
	}
	for _, when := range r.when {
		empty := true
		for _, c := range when {
			empty = empty && (c.mask == 0 || a.bits == 32 && uint32(c.mask) == 0)
		}
		if empty {
			return true
		}
	}
	return false
}

func matches(a *arch, r rule, c call) bool {
	for _, when := range r.when {
		all := true
		for _, one := range when {
			arg, mask, value := c.args[one.index], one.mask, one.value
			if a.bits == 32 {
				mask, value = uint64(uint32(mask)), uint64(uint32(value))
			}
			arg &= mask
			switch one.op {
			case eq:
				all = all && arg == value
			case ne:
				all = all && arg != value
			case lt:
				all = all && arg < value
			case le:
				all = all && arg <= value
			case gt:
				all = all && arg > value
			case ge:
				all = all && arg >= value
			}
		}
		if all {
			return true
		}
	}
	return false
}

// interesting are calls that tell programs for the profile apart: every
// number, and arguments on both sides of all values that a rule compares.
func interesting(p *Profile, m machine) []call {
	var calls []call
	rules, err := p.rules(m, kernel{6, 18})
	if err != nil {
		panic(err)
	}
	for _, a := range []*arch{m.native, m.compat} {
		for n := range uint32(700) {
			calls = append(calls, call{number: n, arch: a.audit})
		}
		for n := range uint32(16) {
			calls = append(calls, call{number: armPrivate + n, arch: a.audit}, call{number: x32 + n, arch: a.audit},
				call{number: ^n, arch: a.audit}, call{number: 1<<31 + n, arch: a.audit})
		}
		for _, r := range rules {
			for _, name := range r.names {
				row, ok := numbers(name)
				if !ok || row.numbers[a.column] < 0 {
					continue
				}
				for _, args := range arguments(r.when) {
					calls = append(calls, call{uint32(row.numbers[a.column]), a.audit, args})
				}
			}
		}
		if a == i386 {
			for n := range uint64(26) {
				for _, number := range []uint32{102, 117} {
					calls = append(calls, call{number, a.audit, [6]uint64{n}}, call{number, a.audit, [6]uint64{0x10000 + n, 1, 2, 3}})
				}
			}
		}
	}
	return append(calls, call{number: 1, arch: 0x12345}, call{number: 1})
}

func arguments(when [][]condition) [][6]uint64 {
	var all [][6]uint64
	var base [6]uint64
	for _, conj := range when {
		for _, c := range conj {
			base[c.index] = c.value
		}
	}
	all = append(all, base)
	for _, conj := range when {
		for _, c := range conj {
			base[c.index] = c.value
		}
		for _, c := range conj {
			for _, v := range []uint64{c.value, c.value - 1, c.value + 1, c.value ^ 1<<32, c.value ^ 1<<63, c.value | ^c.mask, c.value ^ (c.mask & -c.mask), 0, allBits, uint64(uint32(c.value))} {
				changed := base
				changed[c.index] = v
				all = append(all, changed)
			}
		}
	}
	return all
}
