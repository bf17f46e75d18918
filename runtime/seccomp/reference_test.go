package seccomp

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"cri-mini/internal/testtool"
)

// reference is testdata/reference.c, built.
func reference(t *testing.T) string {
	t.Helper()
	gcc := testtool.Need(t, "gcc", "gcc")
	if _, err := os.Stat("/usr/include/seccomp.h"); err != nil {
		t.Skip(&testtool.Missing{Tool: "seccomp.h", Package: "libseccomp-dev"})
	}
	program := filepath.Join(t.TempDir(), "reference")
	if out, err := exec.Command(gcc, "-O1", "-Wall", "-o", program, "testdata/reference.c", "-lseccomp").CombinedOutput(); err != nil {
		t.Fatalf("gcc: %v\n%s", err, out)
	}
	return program
}

var referenceNames = map[*arch]string{amd64: "x86_64", i386: "x86", arm64: "aarch64", arm: "arm"}

// referenceNumbers asks libseccomp for all names of our table.
func referenceNumbers(t *testing.T, program string) map[*arch]map[string]int32 {
	t.Helper()
	var ask strings.Builder
	ask.WriteString("names\n")
	for _, name := range referenceNames {
		for _, row := range syscallTable {
			fmt.Fprintf(&ask, "%s %s\n", name, row.name)
		}
	}
	cmd := exec.Command(program)
	cmd.Stdin = strings.NewReader(ask.String())
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	all := map[*arch]map[string]int32{}
	for a, arch := range referenceNames {
		all[a] = map[string]int32{}
		for line := range strings.Lines(string(out)) {
			var one, name string
			var number int32
			if _, err := fmt.Sscan(line, &one, &name, &number); err != nil {
				t.Fatalf("%q: %v", line, err)
			}
			if one == arch {
				all[a][name] = number
			}
		}
	}
	return all
}

const unknownName = -1 // what libseccomp answers to a name that it has never heard of

func TestNamesHaveTheNumbersOfLibseccomp(t *testing.T) {
	program := reference(t)
	for a, known := range referenceNumbers(t, program) {
		compared := 0
		for _, row := range syscallTable {
			theirs, ours := known[row.name], row.numbers[a.column]
			switch {
			case theirs == unknownName: // newer than that libseccomp
			case theirs < 0 && ours < 0: // both say: not on this architecture
			case a == arm && row.name == "sync_file_range2": // Linux has two names for it, libseccomp one
			case theirs != ours && !(a == i386 && theirs < 0): // muxed ones have numbers of their own
				t.Errorf("%s %s: %d, libseccomp says %d", a.name, row.name, ours, theirs)
			default:
				compared++
			}
		}
		t.Logf("%s: %d names agree", a.name, compared)
	}
}

// errRefused is a profile that libseccomp does not take, or takes wrongly: 2.5.4
// forgets to load the number of the call when the first name that it looks at
// does not exist on the architecture.
var errRefused = errors.New("libseccomp refuses the profile")

var operatorNames = map[operator]string{eq: "eq", ne: "ne", lt: "lt", le: "le", gt: "gt", ge: "ge"}

// compileReference has libseccomp compile what we compile, rule by rule as
// runc hands them over.
func compileReference(t *testing.T, program string, p *Profile, m machine) (code []unix.SockFilter, err error) {
	t.Helper()
	fallback, err := answer("", p.source.DefaultAction, "", p.source.DefaultErrnoRet)
	if err != nil {
		t.Fatal(err)
	}
	rules, err := p.rules(m, kernel{6, 18})
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	fmt.Fprintf(&text, "profile %#x", fallback)
	for _, a := range m.arches(p.wanted(m)) {
		text.WriteString(" " + referenceNames[a])
	}
	text.WriteString("\n")
	for _, r := range rules {
		if r.answer == fallback {
			continue
		}
		for _, name := range r.names {
			if r.when == nil {
				fmt.Fprintf(&text, "rule %#x %s 0\n", r.answer, name)
			}
			for _, when := range r.when {
				fmt.Fprintf(&text, "rule %#x %s %d", r.answer, name, len(when))
				for _, c := range when {
					if c.mask != allBits {
						fmt.Fprintf(&text, " %d masked %#x %#x", c.index, c.mask, c.value)
					} else {
						fmt.Fprintf(&text, " %d %s %#x 0", c.index, operatorNames[c.op], c.value)
					}
				}
				text.WriteString("\n")
			}
		}
	}
	var out, complaints bytes.Buffer
	cmd := exec.Command(program)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(text.String()), &out, &complaints
	if err := cmd.Run(); err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) && exit.ExitCode() == 2 {
			return nil, fmt.Errorf("%w: %s", errRefused, complaints.String())
		}
		t.Fatalf("reference: %v: %s", err, complaints.String())
	}
	code = make([]unix.SockFilter, out.Len()/8)
	if err := binary.Read(&out, binary.NativeEndian, code); err != nil {
		t.Fatal(err)
	}
	loads := 0
	for _, f := range code {
		if f.Code == unix.BPF_LD|unix.BPF_W|unix.BPF_ABS && f.K == offsetNumber {
			loads++
		}
	}
	if loads < len(m.arches(p.wanted(m))) {
		return nil, fmt.Errorf("%w: number not loaded", errRefused)
	}
	return code, nil
}

// comparer knows where we differ from libseccomp on purpose.
type comparer struct {
	rules   []rule
	newest  map[uint32]uint32          // by architecture: the largest number of the profile
	unknown map[uint32]map[uint32]bool // calls that this libseccomp has no name for
	denying bool
}

func newComparer(t *testing.T, p *Profile, m machine, known map[*arch]map[string]int32) *comparer {
	c := &comparer{newest: map[uint32]uint32{}, unknown: map[uint32]map[uint32]bool{}}
	var err error
	if c.rules, err = p.rules(m, kernel{6, 18}); err != nil {
		t.Fatal(err)
	}
	fallback, _ := answer("", p.source.DefaultAction, "", p.source.DefaultErrnoRet)
	c.denying = !permissive(fallback)
	for _, a := range m.arches(p.wanted(m)) {
		c.unknown[a.audit] = map[uint32]bool{}
		_, c.newest[a.audit] = a.choices(c.rules, fallback)
		for name, number := range known[a] {
			alias := a == arm && number < 0 // see sync_file_range2 above
			if row, _ := numbers(name); (number == unknownName || alias) && row.numbers[a.column] >= 0 {
				c.unknown[a.audit][uint32(row.numbers[a.column])] = true
			}
		}
	}
	return c
}

// onPurpose is true for calls that need not be answered as libseccomp does.
func (c *comparer) onPurpose(made call) bool {
	newest, ours := c.newest[made.arch]
	private := made.arch == arm.audit && made.number >= armPrivate
	return !ours || // it ends the thread, we the process
		made.arch == amd64.audit && made.number >= x32 || // the same again
		c.denying && made.number > newest && !private || // ENOSYS, which runc adds by itself
		c.unknown[made.arch][made.number] ||
		made.arch == i386.audit && (made.number == 102 || made.number == 117) && c.muxDiffers(made)
}

// muxDiffers: conditions cannot be seen behind socketcall and ipc, the upper
// half of ipc's argument is no part of the number, and recvmmsg and sendmmsg
// can be called that way too.
func (c *comparer) muxDiffers(made call) bool {
	if made.number == 117 && made.args[0] > 0xffff || made.number == 102 && made.args[0] >= 19 {
		return true
	}
	for _, r := range c.rules {
		for _, name := range r.names {
			if mux, ok := muxed[name]; ok && mux.number == made.number && r.when != nil {
				return true
			}
		}
	}
	return false
}

func TestDefaultProfileDecidesEveryCallAsLibseccompDoes(t *testing.T) {
	program := reference(t)
	known := referenceNumbers(t, program)
	for _, m := range machines {
		for _, caps := range [][]string{nil, usualCaps, {"CAP_SYS_ADMIN", "CAP_BPF"}} {
			p := Default(caps)
			theirs, err := compileReference(t, program, p, m)
			if err != nil {
				t.Fatal(err)
			}
			compared, onPurpose := compare(t, p, m, theirs, known)
			t.Logf("%s, %d capabilities: %d calls agree, %d differ on purpose; libseccomp's program has %d instructions", m.name, len(caps), compared, onPurpose, len(theirs))
		}
	}
}

func compare(t *testing.T, p *Profile, m machine, theirs []unix.SockFilter, known map[*arch]map[string]int32) (compared, onPurpose int) {
	t.Helper()
	ours, err := p.compile(m, kernel{6, 18})
	if err != nil {
		t.Fatal(err)
	}
	c := newComparer(t, p, m, known)
	for _, made := range interesting(p, m) {
		if made.arch != amd64.audit && made.arch != arm64.audit {
			for i := range made.args { // as the kernel shows them
				made.args[i] = uint64(uint32(made.args[i]))
			}
		}
		got, want := run(t, ours, made), run(t, theirs, made)
		switch {
		case got == want:
			compared++
		case c.onPurpose(made):
			onPurpose++
		default:
			t.Errorf("%s: %s answers %#x, libseccomp %#x", m.name, made, got, want)
		}
	}
	return compared, onPurpose
}

func TestRandomProfilesDecideAsLibseccompDoes(t *testing.T) {
	program := reference(t)
	known := referenceNumbers(t, program)
	random := rand.New(rand.NewPCG(3, 4))
	taken, calls := 0, 0
	for range 150 {
		text := randomProfile(random, true)
		p := parse(t, text)
		for _, m := range machines {
			theirs, err := compileReference(t, program, p, m)
			if errors.Is(err, errRefused) {
				continue
			}
			compared, _ := compare(t, p, m, theirs, known)
			taken, calls = taken+1, calls+compared
			if t.Failed() {
				t.Fatal(text)
			}
		}
	}
	t.Logf("%d profiles, %d calls agree", taken, calls)
	if taken < 100 {
		t.Errorf("libseccomp took only %d profiles", taken)
	}
}
