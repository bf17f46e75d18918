package seccomp

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"cri-mini/internal/testtool"
)

// The tests below have this binary run again as a process under a filter.
const (
	envProfile = "SECCOMP_TEST_PROFILE" // "default", or a document
	envCalls   = "SECCOMP_TEST_CALLS"   // number,arg,arg;...
	envThen    = "SECCOMP_TEST_THEN"    // or a program to execute
)

func becomeConfined() {
	text := os.Getenv(envProfile)
	if text == "" {
		return
	}
	runtime.LockOSThread()
	p := Default(usualCaps)
	if text != "default" {
		var err error
		if p, err = Parse([]byte(text)); err != nil {
			fail(err)
		}
	}
	code, err := Compile(p)
	if err != nil {
		fail(err)
	}
	if err := install(code, p.Flags()); err != nil {
		fail(err)
	}
	if then := os.Getenv(envThen); then != "" {
		fail(unix.Exec(strings.Fields(then)[0], strings.Fields(then), nil))
	}
	for _, text := range strings.Split(os.Getenv(envCalls), ";") {
		var n [3]uint64
		for i, word := range strings.Split(text, ",") {
			n[i], _ = strconv.ParseUint(word, 0, 64)
		}
		_, _, errno := unix.RawSyscall(uintptr(n[0]), uintptr(n[1]), uintptr(n[2]), 0)
		fmt.Printf("%s=%d ", text, errno)
	}
	os.Exit(0)
}

func fail(err error) {
	fmt.Println(err)
	os.Exit(1)
}

func install(code []unix.SockFilter, flags uint) error {
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	prog := unix.SockFprog{Len: uint16(len(code)), Filter: &code[0]}
	_, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, uintptr(flags), uintptr(unsafe.Pointer(&prog)))
	if errno != 0 {
		return errno
	}
	return nil
}

// confined runs the calls, or a program, under a profile.
func confined(t *testing.T, profile, calls, then string) (string, error) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = []string{envProfile + "=" + profile, envCalls + "=" + calls, envThen + "=" + then}
	out, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

func diedOf(err error, sig syscall.Signal) bool {
	var exit *exec.ExitError
	return errors.As(err, &exit) && exit.Sys().(syscall.WaitStatus).Signal() == sig
}

func TestKernelEnforcesTheDefaultProfile(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		t.Skip("kernel feature missing: the system calls of amd64")
	}
	calls := []string{
		fmt.Sprintf("%d=0", unix.SYS_GETPID),
		fmt.Sprintf("%d=%d", unix.SYS_MOUNT, unix.EPERM),
		fmt.Sprintf("%d,%d=%d", unix.SYS_UNSHARE, unix.CLONE_NEWUSER, unix.EPERM),
		fmt.Sprintf("%d=%d", unix.SYS_CLONE3, unix.ENOSYS),
		fmt.Sprintf("%d,%d,%d=0", unix.SYS_SOCKET, unix.AF_INET, unix.SOCK_STREAM),
		fmt.Sprintf("%d,%d,%d=%d", unix.SYS_SOCKET, unix.AF_VSOCK, unix.SOCK_STREAM, unix.EPERM),
		fmt.Sprintf("%d,%d,%d=%d", unix.SYS_SOCKET, unix.AF_ALG, unix.SOCK_SEQPACKET, unix.EPERM),
		fmt.Sprintf("%d,%#x=0", unix.SYS_PERSONALITY, 0xffffffff),
		fmt.Sprintf("%d,4=%d", unix.SYS_PERSONALITY, unix.EPERM),
		fmt.Sprintf("%d=%d", unix.SYS_IO_URING_SETUP, unix.EPERM),
		fmt.Sprintf("%#x=%d", x32|unix.SYS_GETPID, unix.ENOSYS),
		fmt.Sprintf("%d=%d", 600, unix.ENOSYS),
	}
	var ask []string
	for _, c := range calls {
		ask = append(ask, c[:strings.LastIndex(c, "=")])
	}
	got, err := confined(t, "default", strings.Join(ask, ";"), "")
	if want := strings.Join(calls, " "); err != nil || got != want {
		t.Fatalf("%v\ngot  %s\nwant %s", err, got, want)
	}
	status, err := confined(t, "default", "", "/bin/grep ^Seccomp: /proc/self/status")
	if err != nil || status != "Seccomp:\t2" {
		t.Fatalf("status of the process: %q, %v", status, err)
	}
}

func TestKernelComparesArguments(t *testing.T) {
	rule := func(op string, value, two uint64) string {
		return fmt.Sprintf(`{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["getpriority"],"action":"SCMP_ACT_ERRNO","errnoRet":99,
			"args":[{"index":1,"value":%d,"valueTwo":%d,"op":"SCMP_CMP_%s"}]}]}`, value, two, op)
	}
	for _, c := range []struct {
		profile string
		arg     uint64
		denied  bool
	}{
		{rule("EQ", 1<<32, 0), 1 << 32, true}, {rule("EQ", 1<<32, 0), 0, false},
		{rule("NE", 0, 0), 0, false}, {rule("NE", 0, 0), 1 << 40, true},
		{rule("GT", 0xffffffff, 0), 0xffffffff, false}, {rule("GT", 0xffffffff, 0), 1 << 32, true},
		{rule("LE", 1<<32, 0), 1 << 32, true}, {rule("LE", 1<<32, 0), 1<<32 + 1, false},
		{rule("MASKED_EQ", 1<<33|1, 1<<33), 1<<33 | 4, true}, {rule("MASKED_EQ", 1<<33|1, 1<<33), 1<<33 | 5, false},
	} {
		ask := fmt.Sprintf("%d,0,%#x", unix.SYS_GETPRIORITY, c.arg)
		got, err := confined(t, c.profile, ask, "")
		if denied := got == ask+"=99"; err != nil || denied != c.denied {
			t.Errorf("%s with %#x: %q, %v; want denied %v", c.profile, c.arg, got, err, c.denied)
		}
	}
}

func TestKernelKillsWhereTheProfileSaysSo(t *testing.T) {
	out, err := confined(t, `{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["getppid"],"action":"SCMP_ACT_KILL_PROCESS"}]}`,
		fmt.Sprint(unix.SYS_GETPPID), "")
	if !diedOf(err, unix.SIGSYS) {
		t.Fatalf("process said %q and ended with %v, want SIGSYS", out, err)
	}
}

func TestKernelFiltersCallsOf32Bits(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		t.Skip("kernel feature missing: calls of 32 bits in every process, as on amd64")
	}
	gcc := testtool.Need(t, "gcc", "gcc")
	program := filepath.Join(t.TempDir(), "compat")
	if out, err := exec.Command(gcc, "-O1", "-o", program, "testdata/compat.c").CombinedOutput(); err != nil {
		t.Fatalf("gcc: %v\n%s", err, out)
	}
	// getpid, mount, socket(AF_INET, SOCK_STREAM), socket(AF_ALG, ...)
	const calls = " 20 0 0 21 0 0 359 2 1 359 38 5"
	if out, err := exec.Command(program, "20", "0", "0").Output(); err != nil || string(out) != "20=0 " {
		t.Skipf("kernel feature missing: calls of 32 bits (%q, %v)", out, err)
	}
	got, err := confined(t, "default", "", program+calls)
	if want := "20=0 21=-1 359=0 359=-1"; err != nil || got != want {
		t.Errorf("default profile: %q, %v; want %q", got, err, want)
	}
	// A profile of one architecture: the other way is closed.
	got, err = confined(t, `{"defaultAction":"SCMP_ACT_ALLOW"}`, "", program+calls)
	if !diedOf(err, unix.SIGSYS) {
		t.Errorf("profile without i386: %q, %v; want SIGSYS", got, err)
	}
	// socketcall(SYS_SOCKET) where socket is forbidden.
	got, err = confined(t, `{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86"],"syscalls":[{"names":["socket"],"action":"SCMP_ACT_ERRNO"}]}`,
		"", program+" 102 1 0 359 2 1")
	if want := "102=-1 359=-1"; err != nil || got != want {
		t.Errorf("socket forbidden: %q, %v; want %q", got, err, want)
	}
}

// BenchmarkInstall has a new thread for each filter, for filters pile up. The
// time of the call alone is in ns/install.
func BenchmarkInstall(b *testing.B) {
	for name, p := range map[string]*Profile{"default": Default(usualCaps), "empty": parse(b, `{"defaultAction":"SCMP_ACT_ALLOW"}`)} {
		b.Run(name, func(b *testing.B) {
			code, err := Compile(p)
			if err != nil {
				b.Fatal(err)
			}
			var total, least time.Duration
			for b.Loop() {
				took := make(chan time.Duration)
				go func() {
					runtime.LockOSThread() // and never unlock: the thread ends with us
					begin := time.Now()
					err = install(code, p.Flags())
					took <- time.Since(begin)
				}()
				one := <-took
				if err != nil {
					b.Fatal(err)
				}
				total += one
				if least == 0 || one < least {
					least = one
				}
			}
			b.ReportMetric(float64(total.Nanoseconds())/float64(b.N), "ns/install")
			b.ReportMetric(float64(least.Nanoseconds()), "ns/least")
			b.ReportMetric(float64(len(code)), "instructions")
		})
	}
}
