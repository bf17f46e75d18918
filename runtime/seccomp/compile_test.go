package seccomp

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	profiles "github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"cri-mini/internal/leakcheck"
)

func TestMain(m *testing.M) {
	becomeConfined()
	leakcheck.Main(m)
}

var usualCaps = []string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID", "CAP_SETUID",
	"CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE",
}

func parse(t testing.TB, text string) *Profile {
	t.Helper()
	p, err := Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// compileChecked compiles and has the program agree with judge on all
// interesting calls.
func compileChecked(t testing.TB, p *Profile, m machine) []unix.SockFilter {
	t.Helper()
	code, err := p.compile(m, kernel{6, 18})
	if err != nil {
		t.Fatal(err)
	}
	decide := judge(p, m)
	for _, c := range interesting(p, m) {
		if got, want := run(t, code, c), decide(c); got != want {
			t.Fatalf("%s: %s answers %#x, want %#x", m.name, c, got, want)
		}
	}
	return code
}

func TestDefaultProfileDecidesEveryCallAsItsRulesSay(t *testing.T) {
	for _, m := range machines {
		for _, caps := range [][]string{nil, usualCaps, {"CAP_SYS_ADMIN"}, {"SYS_PTRACE", "sys_time", "CAP_BPF", "CAP_SYS_NICE"}} {
			code := compileChecked(t, Default(caps), m)
			t.Logf("%s with %d capabilities: %d instructions", m.name, len(caps), len(code))
			if len(code) > 300 {
				t.Errorf("%s: %d instructions, want at most 300", m.name, len(code))
			}
		}
	}
}

func TestDefaultProfileOnKeyCalls(t *testing.T) {
	const allow, eperm = unix.SECCOMP_RET_ALLOW, unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)
	m := machines["amd64"]
	plain, err := Default(usualCaps).compile(m, kernel{6, 18})
	if err != nil {
		t.Fatal(err)
	}
	admin, err := Default([]string{"SYS_ADMIN"}).compile(m, kernel{6, 18})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name  string
		arch  *arch
		args  [6]uint64
		plain uint32
		admin uint32
	}{
		{"read", amd64, [6]uint64{}, allow, allow},
		{"mount", amd64, [6]uint64{}, eperm, allow},
		{"umount2", i386, [6]uint64{}, eperm, allow},
		{"chroot", amd64, [6]uint64{}, allow, eperm}, // only the usual list has SYS_CHROOT
		{"clone", amd64, [6]uint64{unix.CLONE_VM | unix.CLONE_FS}, allow, allow},
		{"clone", amd64, [6]uint64{unix.CLONE_NEWUSER}, eperm, allow},
		{"clone", i386, [6]uint64{unix.CLONE_NEWNET}, eperm, allow},
		{"clone3", amd64, [6]uint64{}, missing, allow}, // so that libraries fall back to clone
		{"unshare", amd64, [6]uint64{}, eperm, allow},
		{"socket", amd64, [6]uint64{unix.AF_INET}, allow, allow},
		{"socket", amd64, [6]uint64{unix.AF_INET | 1<<32}, eperm, eperm},
		{"socket", amd64, [6]uint64{unix.AF_VSOCK}, eperm, eperm},
		{"socket", amd64, [6]uint64{unix.AF_ALG}, eperm, eperm},
		{"socket", i386, [6]uint64{unix.AF_ALG}, eperm, eperm},
		{"io_uring_setup", amd64, [6]uint64{}, eperm, eperm},
		{"keyctl", amd64, [6]uint64{}, eperm, eperm},
		{"personality", amd64, [6]uint64{0xffffffff}, allow, allow},
		{"personality", amd64, [6]uint64{1}, eperm, eperm},
	} {
		row, ok := numbers(c.name)
		if !ok {
			t.Fatalf("no number for %s", c.name)
		}
		made := call{uint32(row.numbers[c.arch.column]), c.arch.audit, c.args}
		if got := run(t, plain, made); got != c.plain {
			t.Errorf("%s %s %#x: %#x, want %#x", c.arch.name, c.name, c.args, got, c.plain)
		}
		if got := run(t, admin, made); got != c.admin {
			t.Errorf("%s %s %#x with SYS_ADMIN: %#x, want %#x", c.arch.name, c.name, c.args, got, c.admin)
		}
	}
	for _, c := range []call{
		{number: 500, arch: amd64.audit}, {number: 100000, arch: i386.audit},
		{number: x32 | 1, arch: amd64.audit}, {number: 0xffffffff, arch: amd64.audit},
	} {
		if got := run(t, plain, c); got != missing {
			t.Errorf("%s: %#x, want ENOSYS", c, got)
		}
	}
	if got := run(t, plain, call{number: 1, arch: arm64.audit}); got != unix.SECCOMP_RET_KILL_PROCESS {
		t.Errorf("a call of another architecture: %#x, want the process killed", got)
	}
}

func TestRulesMeanWhatTheyMeanElsewhere(t *testing.T) {
	const other, denied = unix.SECCOMP_RET_ERRNO | 5, unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)
	const allow = unix.SECCOMP_RET_ALLOW
	for name, c := range map[string]struct {
		defaults string
		rules    string
		args     [6]uint64
		want     uint32
	}{
		"all conditions of a rule":      {"ALLOW", `{"names":["mmap"],"action":"SCMP_ACT_ERRNO","args":[{"index":0,"value":1,"op":"SCMP_CMP_EQ"},{"index":2,"value":3,"op":"SCMP_CMP_EQ"}]}`, [6]uint64{1, 0, 4}, allow},
		"both hold":                     {"ALLOW", `{"names":["mmap"],"action":"SCMP_ACT_ERRNO","args":[{"index":0,"value":1,"op":"SCMP_CMP_EQ"},{"index":2,"value":3,"op":"SCMP_CMP_EQ"}]}`, [6]uint64{1, 0, 3}, denied},
		"same index twice is any":       {"ALLOW", `{"names":["mmap"],"action":"SCMP_ACT_ERRNO","args":[{"index":0,"value":1,"op":"SCMP_CMP_EQ"},{"index":0,"value":3,"op":"SCMP_CMP_EQ"}]}`, [6]uint64{3}, denied},
		"any of several rules":          {"ALLOW", `{"names":["mmap"],"action":"SCMP_ACT_ERRNO","args":[{"index":0,"value":1,"op":"SCMP_CMP_EQ"}]},{"names":["mmap"],"action":"SCMP_ACT_ERRNO","args":[{"index":1,"value":7,"op":"SCMP_CMP_GE"}]}`, [6]uint64{0, 8}, denied},
		"masked":                        {"ALLOW", `{"names":["mmap"],"action":"SCMP_ACT_ERRNO","args":[{"index":0,"value":6,"valueTwo":4,"op":"SCMP_CMP_MASKED_EQ"}]}`, [6]uint64{1<<40 | 5}, denied},
		"masked, other bits":            {"ALLOW", `{"names":["mmap"],"action":"SCMP_ACT_ERRNO","args":[{"index":0,"value":6,"valueTwo":4,"op":"SCMP_CMP_MASKED_EQ"}]}`, [6]uint64{6}, allow},
		"upper half counts":             {"ALLOW", `{"names":["mmap"],"action":"SCMP_ACT_ERRNO","args":[{"index":0,"value":4294967296,"op":"SCMP_CMP_GT"}]}`, [6]uint64{1 << 33}, denied},
		"without conditions first":      {"ERRNO", `{"names":["mmap"],"action":"SCMP_ACT_ALLOW"},{"names":["mmap"],"action":"SCMP_ACT_KILL","args":[{"index":0,"value":0,"op":"SCMP_CMP_EQ"}]}`, [6]uint64{}, allow},
		"without conditions last":       {"ERRNO", `{"names":["mmap"],"action":"SCMP_ACT_KILL","args":[{"index":0,"value":0,"op":"SCMP_CMP_EQ"}]},{"names":["mmap"],"action":"SCMP_ACT_ALLOW"}`, [6]uint64{}, allow},
		"first of two":                  {"ERRNO", `{"names":["mmap"],"action":"SCMP_ACT_ALLOW"},{"names":["mmap"],"action":"SCMP_ACT_KILL"}`, [6]uint64{}, allow},
		"repeating the default is none": {"ERRNO", `{"names":["mmap"],"action":"SCMP_ACT_ERRNO"},{"names":["mmap"],"action":"SCMP_ACT_ALLOW"}`, [6]uint64{}, allow},
		"own error":                     {"ALLOW", `{"names":["mmap"],"action":"SCMP_ACT_ERRNO","errnoRet":5}`, [6]uint64{}, other},
		"old spelling":                  {"ALLOW", `{"name":"mmap","action":"SCMP_ACT_TRAP","comment":"x"}`, [6]uint64{}, unix.SECCOMP_RET_TRAP},
		"kill":                          {"ALLOW", `{"names":["mmap"],"action":"SCMP_ACT_KILL"}`, [6]uint64{}, unix.SECCOMP_RET_KILL_THREAD},
		"kill process":                  {"ALLOW", `{"names":["mmap"],"action":"SCMP_ACT_KILL_PROCESS"}`, [6]uint64{}, unix.SECCOMP_RET_KILL_PROCESS},
		"log":                           {"ERRNO", `{"names":["mmap"],"action":"SCMP_ACT_LOG"}`, [6]uint64{}, unix.SECCOMP_RET_LOG},
		"trace":                         {"ERRNO", `{"names":["mmap"],"action":"SCMP_ACT_TRACE","errnoRet":9}`, [6]uint64{}, unix.SECCOMP_RET_TRACE | 9},
		"unknown name":                  {"ALLOW", `{"names":["not_yet_a_call","mmap"],"action":"SCMP_ACT_ERRNO"}`, [6]uint64{}, denied},
		"excluded by arch":              {"ALLOW", `{"names":["mmap"],"action":"SCMP_ACT_ERRNO","excludes":{"arches":["amd64"]}}`, [6]uint64{}, allow},
		"included by arch":              {"ALLOW", `{"names":["mmap"],"action":"SCMP_ACT_ERRNO","includes":{"arches":["arm64","amd64"]}}`, [6]uint64{}, denied},
		"needs a newer kernel":          {"ALLOW", `{"names":["mmap"],"action":"SCMP_ACT_ERRNO","includes":{"minKernel":"6.19"}}`, [6]uint64{}, allow},
		"kernel is new enough":          {"ALLOW", `{"names":["mmap"],"action":"SCMP_ACT_ERRNO","includes":{"minKernel":"6.18"}}`, [6]uint64{}, denied},
		"excluded by kernel":            {"ALLOW", `{"names":["mmap"],"action":"SCMP_ACT_ERRNO","excludes":{"minKernel":"5.1"}}`, [6]uint64{}, allow},
		"needs both capabilities":       {"ALLOW", `{"names":["mmap"],"action":"SCMP_ACT_ERRNO","includes":{"caps":["CAP_KILL","CAP_BPF"]}}`, [6]uint64{}, allow},
		"has the capability":            {"ALLOW", `{"names":["mmap"],"action":"SCMP_ACT_ERRNO","includes":{"caps":["CAP_KILL"]}}`, [6]uint64{}, denied},
		"excluded by any capability":    {"ALLOW", `{"names":["mmap"],"action":"SCMP_ACT_ERRNO","excludes":{"caps":["CAP_BPF","CAP_KILL"]}}`, [6]uint64{}, allow},
	} {
		p := parse(t, `{"defaultAction":"SCMP_ACT_`+c.defaults+`","syscalls":[`+c.rules+`]}`).For([]string{"KILL"})
		code := compileChecked(t, p, machines["amd64"])
		if got := run(t, code, call{unix.SYS_MMAP, amd64.audit, c.args}); got != c.want {
			t.Errorf("%s: %#x, want %#x", name, got, c.want)
		}
	}
}

func TestCallsNewerThanTheProfileAreMissing(t *testing.T) {
	newest := `"syscalls":[{"names":["read","openat2"],"action":"SCMP_ACT_ALLOW"}]}`
	for defaults, want := range map[string]uint32{
		"ERRNO": missing, "KILL": missing, "TRAP": missing,
		"ALLOW": unix.SECCOMP_RET_ALLOW, "LOG": unix.SECCOMP_RET_LOG, "TRACE": unix.SECCOMP_RET_TRACE | uint32(unix.EPERM),
	} {
		code := compileChecked(t, parse(t, `{"defaultAction":"SCMP_ACT_`+defaults+`",`+newest), machines["amd64"])
		if got := run(t, code, call{number: 438, arch: amd64.audit}); got != want { // openat2 is 437
			t.Errorf("default %s: a newer call gets %#x, want %#x", defaults, got, want)
		}
	}
}

func TestSocketcallIsNoWayAroundASocketRule(t *testing.T) {
	const denied = unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)
	m := machines["amd64"]
	deny := compileChecked(t, parse(t, `{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86"],"syscalls":[
		{"names":["connect","shmget"],"action":"SCMP_ACT_ERRNO"},
		{"names":["socket"],"action":"SCMP_ACT_ERRNO","args":[{"index":0,"value":38,"op":"SCMP_CMP_EQ"}]}]}`), m)
	allow := compileChecked(t, parse(t, `{"defaultAction":"SCMP_ACT_ERRNO","architectures":["SCMP_ARCH_X86"],"syscalls":[
		{"names":["socket"],"action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":1,"op":"SCMP_CMP_EQ"}]},
		{"names":["listen"],"action":"SCMP_ACT_ALLOW"},{"names":["futex"],"action":"SCMP_ACT_ALLOW"}]}`), m)
	for _, c := range []struct {
		code   []unix.SockFilter
		number uint32
		arg    uint64
		want   uint32
	}{
		{deny, 102, 3, denied}, {deny, 102, 4, unix.SECCOMP_RET_ALLOW}, {deny, 102, 1, denied},
		{deny, 117, 23, denied}, {deny, 117, 0x10017, denied}, {deny, 117, 24, unix.SECCOMP_RET_ALLOW},
		{allow, 102, 1, denied}, {allow, 102, 4, unix.SECCOMP_RET_ALLOW},
	} {
		if got := run(t, c.code, call{c.number, i386.audit, [6]uint64{c.arg}}); got != c.want {
			t.Errorf("call %d(%#x): %#x, want %#x", c.number, c.arg, got, c.want)
		}
	}
}

func TestHugeProfilesAreRefusedNotCutOff(t *testing.T) {
	var rules []string
	for i := range 3000 {
		rules = append(rules, fmt.Sprintf(`{"names":["mmap"],"action":"SCMP_ACT_ALLOW","args":[{"index":%d,"value":%d,"valueTwo":%d,"op":"SCMP_CMP_MASKED_EQ"}]}`, i%6, i|1, i))
	}
	p := parse(t, `{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[`+strings.Join(rules, ",")+`]}`)
	if _, err := Compile(p); err == nil || !strings.Contains(err.Error(), "the kernel takes 4096") {
		t.Fatalf("error %v", err)
	}
	p = parse(t, `{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[`+strings.Join(rules[:600], ",")+`]}`)
	compileChecked(t, p, machines["amd64"]) // far jumps
}

func TestCompiledProgramsAreShared(t *testing.T) {
	one, err := Compile(Default(usualCaps))
	if err != nil {
		t.Fatal(err)
	}
	two, err := Compile(Default(usualCaps))
	if err != nil || &one[0] != &two[0] {
		t.Fatalf("compiled twice, %v", err)
	}
	other, err := Compile(Default(nil))
	if err != nil || &one[0] == &other[0] {
		t.Fatalf("other capabilities got the same program, %v", err)
	}
}

func TestRandomProfilesDecideAsTheirRulesSay(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		text := randomProfile(random, false)
		for _, m := range machines {
			compileChecked(t, parse(t, text), m)
		}
	}
}

// randomProfile writes a profile. A plain one is of the kind that libseccomp
// gets right: where several rules of one call compare ranges, or have different
// actions, its answer is that of neither (seen with 2.5.4: "below 0x7fffffff"
// or "above 0x100000001" let 0x7fffffff through).
func randomProfile(random *rand.Rand, plain bool) string {
	p := profiles.Seccomp{LinuxSeccomp: specs.LinuxSeccomp{DefaultAction: specs.ActErrno}}
	action := specs.ActAllow
	if random.IntN(2) == 0 {
		p.DefaultAction, action = specs.ActAllow, specs.ActErrno
	}
	p.Architectures = []specs.Arch{specs.ArchX86, specs.ArchX86_64, specs.ArchARM, specs.ArchAARCH64}[:random.IntN(5)]
	values := []uint64{0, 1, 2, 3, 5, 0xff, 0x7fffffff, 0x80000000, 0xffffffff, 1 << 32, 1<<32 + 1, 1 << 63, allBits}
	ops := []specs.LinuxSeccompOperator{specs.OpEqualTo, specs.OpNotEqual, specs.OpLessThan, specs.OpLessEqual, specs.OpGreaterThan, specs.OpGreaterEqual, specs.OpMaskedEqual}
	add := func(names []string, args ...specs.LinuxSeccompArg) {
		s := &profiles.Syscall{LinuxSyscall: specs.LinuxSyscall{Names: names, Action: action, Args: args}}
		if !plain {
			s.Action = []specs.LinuxSeccompAction{specs.ActAllow, specs.ActErrno, specs.ActKill, specs.ActLog}[random.IntN(4)]
		}
		p.Syscalls = append(p.Syscalls, s)
	}
	next, order := 0, random.Perm(len(syscallTable))
	names := func(n int) (list []string) {
		for range n {
			if plain { // each call once
				next++
				list = append(list, syscallTable[order[next]].name)
			} else {
				list = append(list, syscallTable[random.IntN(len(syscallTable))].name)
			}
		}
		return list
	}
	for range random.IntN(30) {
		var args []specs.LinuxSeccompArg
		indexes := random.Perm(6)
		for i := range max(0, random.IntN(6)-2) {
			a := specs.LinuxSeccompArg{Index: uint(indexes[i]), Value: values[random.IntN(len(values))], ValueTwo: values[random.IntN(len(values))], Op: ops[random.IntN(len(ops))]}
			if !plain {
				a.Index = uint(random.IntN(6))
			}
			args = append(args, a)
		}
		add(names(1+random.IntN(8)), args...)
		if random.IntN(4) == 0 { // a list of values
			name := names(1)
			for range random.IntN(12) {
				add(name, specs.LinuxSeccompArg{Index: uint(indexes[0]), Value: values[random.IntN(len(values))], Op: specs.OpEqualTo})
			}
		}
	}
	text, err := json.Marshal(p)
	if err != nil {
		panic(err)
	}
	return string(text)
}

func BenchmarkCompileDefault(b *testing.B) {
	p, m := Default(usualCaps), machines["amd64"]
	for b.Loop() {
		if _, err := p.compile(m, kernel{6, 18}); err != nil {
			b.Fatal(err)
		}
	}
}
