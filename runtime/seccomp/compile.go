package seccomp

import (
	"crypto/sha256"
	"fmt"
	"runtime"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// maxInstructions is the kernel's BPF_MAXINSNS.
const maxInstructions = 4096

// cache keeps compiled programs: nearly all containers of a node share very
// few. It is emptied when full, which a node with more profiles can afford.
var cache = struct {
	sync.Mutex
	programs map[cacheKey][]unix.SockFilter
}{programs: map[cacheKey][]unix.SockFilter{}}

type cacheKey struct {
	digest [sha256.Size]byte // all zero: the default profile
	caps   string
}

const cacheSize = 64

// Compile makes the program for this machine. The result is shared: do not
// change it.
func Compile(p *Profile) ([]unix.SockFilter, error) {
	key := cacheKey{p.digest, strings.Join(p.caps, ",")}
	cache.Lock()
	defer cache.Unlock()
	if code, ok := cache.programs[key]; ok {
		return code, nil
	}
	m, ok := machines[runtime.GOARCH]
	if !ok {
		return nil, fmt.Errorf("seccomp: no table of system calls for %s", runtime.GOARCH)
	}
	k, err := running()
	if err != nil {
		return nil, err
	}
	code, err := p.compile(m, k)
	if err != nil {
		return nil, err
	}
	if len(cache.programs) == cacheSize {
		clear(cache.programs)
	}
	cache.programs[key] = code
	return code, nil
}

// running is the version of the kernel we run on, which only profiles ask for.
var running = sync.OnceValues(func() (kernel, error) {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return kernel{}, fmt.Errorf("uname: %w", err)
	}
	release := unix.ByteSliceToString(name.Release[:])
	var k kernel
	if _, err := fmt.Sscanf(release, "%d.%d", &k.major, &k.minor); err != nil {
		return kernel{}, fmt.Errorf("kernel release %q: %w", release, err)
	}
	return k, nil
})

// compile writes:
//
//	which architecture?  none of ours: the process ends
//	for each: a search by halves for the number, and at its end an answer or
//	          comparisons of arguments
//
// The process ends and not only the thread that made the call (libseccomp's
// choice): a program that lost a thread hangs.
func (p *Profile) compile(m machine, k kernel) ([]unix.SockFilter, error) {
	fallback, err := answer("defaultAction", p.source.DefaultAction, "defaultErrnoRet", p.source.DefaultErrnoRet)
	if err != nil {
		return nil, err
	}
	rules, err := p.rules(m, k)
	if err != nil {
		return nil, err
	}
	out := &program{answers: map[uint32]label{}}
	next := out.answer(unix.SECCOMP_RET_KILL_PROCESS)
	arches := m.arches(p.wanted(m))
	for i := len(arches) - 1; i >= 0; i-- { // the native one is asked for first
		a := arches[i]
		calls := out.load(offsetNumber, out.search(out.parts(a, a.spans(rules, fallback), fallback)))
		next = out.jump(unix.BPF_JEQ, a.audit, calls, next)
	}
	out.load(offsetArch, next)
	if n := len(out.code); n > maxInstructions {
		return nil, fmt.Errorf("seccomp profile: compiles to %d instructions, the kernel takes %d", n, maxInstructions)
	}
	return out.finish(), nil
}

func (p *program) parts(a *arch, spans []span, fallback uint32) []part {
	parts := make([]part, 0, len(spans))
	for _, s := range spans {
		key := any(s.choice)
		if s.choice.alternatives == nil {
			key = s.choice.answer
		}
		parts = append(parts, part{s.first, key, func() label { return p.choice(a, s.choice, fallback) }})
	}
	return parts
}
