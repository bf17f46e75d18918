package seccomp

import "golang.org/x/sys/unix"

// program is classic BPF being written from its end to its beginning, because
// its jumps only go forward: what is jumped to has been written before.
type program struct {
	code    []unix.SockFilter // last instruction first
	answers map[uint32]label
}

// label is a place in code.
type label int

// reach is the longest conditional jump.
const reach = 255

// What the kernel hands to the program, struct seccomp_data. The machines we
// know are little-endian.
const (
	offsetNumber = 0
	offsetArch   = 4
	offsetArgs   = 16
)

func low(arg uint32) uint32  { return offsetArgs + 8*arg }
func high(arg uint32) uint32 { return offsetArgs + 8*arg + 4 }

func (p *program) push(f unix.SockFilter) label {
	p.code = append(p.code, f)
	return label(len(p.code) - 1)
}

// distance is how many instructions a jump written now would skip.
func (p *program) distance(to label) int { return len(p.code) - 1 - int(to) }

// answer returns from the program. One near copy of the instruction serves
// all; a far one is cheaper written again than reached over a second jump.
func (p *program) answer(value uint32) label {
	if at, ok := p.answers[value]; ok && p.distance(at) < reach-8 {
		return at
	}
	at := p.push(unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: value})
	p.answers[value] = at
	return at
}

// jump compares what was loaded with k.
func (p *program) jump(op uint16, k uint32, yes, no label) label {
	if yes == no {
		return yes
	}
	for p.distance(yes) > reach || p.distance(no) > reach {
		far := &yes
		if p.distance(yes) <= reach {
			far = &no
		}
		*far = p.skip(*far)
	}
	return p.push(unix.SockFilter{
		Code: unix.BPF_JMP | unix.BPF_K | op, Jt: uint8(p.distance(yes)), Jf: uint8(p.distance(no)), K: k,
	})
}

func (p *program) skip(to label) label {
	return p.push(unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JA, K: uint32(p.distance(to))})
}

// load fetches a word and goes on at next.
func (p *program) load(offset uint32, next label) label {
	return p.then(unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: offset}, next)
}

func (p *program) then(f unix.SockFilter, next label) label {
	if p.distance(next) > 0 {
		p.skip(next)
	}
	return p.push(f)
}

// part is a range of loaded values up to the next part, and what to do there.
// Parts that do the same have the same key.
type part struct {
	first uint32
	key   any
	write func() label
}

// search writes a search by halves. The first part begins at 0.
func (p *program) search(parts []part) label {
	if len(parts) == 1 {
		return parts[0].write()
	}
	if exception(parts) {
		rule, one := parts[0].write(), parts[1].write()
		return p.jump(unix.BPF_JEQ, parts[1].first, one, rule)
	}
	middle := len(parts) / 2
	if len(parts) > 3 && exception(parts[middle-1:middle+2]) {
		middle-- // keep it whole
	}
	above := p.search(parts[middle:])
	below := p.search(parts[:middle])
	return p.jump(unix.BPF_JGE, parts[middle].first, above, below)
}

// exception is a single value in a range that is otherwise one.
func exception(parts []part) bool {
	return len(parts) == 3 && parts[0].key == parts[2].key && parts[1].first+1 == parts[2].first
}

// finish turns the program around.
func (p *program) finish() []unix.SockFilter {
	out := make([]unix.SockFilter, len(p.code))
	for i, f := range p.code {
		out[len(out)-1-i] = f
	}
	return out
}
