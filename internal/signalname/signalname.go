// Package signalname translates between the names of signals and their
// numbers: the names of signal(7), of an image's StopSignal and of the CRI's
// Signal enum, which spells SIGRTMIN+1 as SIGNAL_SIGRTMINPLUS1.
package signalname

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"syscall"
)

// The real-time signals as a C library counts them: the kernel starts at 32,
// glibc and musl keep the first two or three for themselves, and every peer
// and `kill -l` calls 34 SIGRTMIN.
const (
	rtMin = 34
	rtMax = 64
)

var numbers = map[string]syscall.Signal{
	"ABRT": syscall.SIGABRT, "ALRM": syscall.SIGALRM, "BUS": syscall.SIGBUS,
	"CHLD": syscall.SIGCHLD, "CONT": syscall.SIGCONT, "FPE": syscall.SIGFPE,
	"HUP": syscall.SIGHUP, "ILL": syscall.SIGILL, "INT": syscall.SIGINT,
	"IO": syscall.SIGIO, "KILL": syscall.SIGKILL, "PIPE": syscall.SIGPIPE,
	"PROF": syscall.SIGPROF, "PWR": syscall.SIGPWR, "QUIT": syscall.SIGQUIT,
	"SEGV": syscall.SIGSEGV, "STKFLT": syscall.SIGSTKFLT, "STOP": syscall.SIGSTOP,
	"SYS": syscall.SIGSYS, "TERM": syscall.SIGTERM, "TRAP": syscall.SIGTRAP,
	"TSTP": syscall.SIGTSTP, "TTIN": syscall.SIGTTIN, "TTOU": syscall.SIGTTOU,
	"URG": syscall.SIGURG, "USR1": syscall.SIGUSR1, "USR2": syscall.SIGUSR2,
	"VTALRM": syscall.SIGVTALRM, "WINCH": syscall.SIGWINCH,
	"XCPU": syscall.SIGXCPU, "XFSZ": syscall.SIGXFSZ,
}

// aliases are second names; Name never answers them.
var aliases = map[string]syscall.Signal{
	"CLD": syscall.SIGCHLD, "IOT": syscall.SIGABRT, "POLL": syscall.SIGIO,
}

var names = func() map[syscall.Signal]string {
	m := make(map[syscall.Signal]string, len(numbers))
	for name, n := range numbers {
		m[n] = name
	}
	return m
}()

// Parse accepts "SIGTERM", "term", "15", "SIGRTMIN+3", "RTMAX-1".
func Parse(s string) (syscall.Signal, error) {
	unknown := fmt.Errorf("signal %q: unknown name or number", s)
	if s != "" && strings.Trim(s, "0123456789") == "" {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 || n > rtMax {
			return 0, unknown
		}
		return syscall.Signal(n), nil
	}
	name := strings.TrimPrefix(strings.ToUpper(s), "SIG")
	if n, ok := numbers[name]; ok {
		return n, nil
	}
	if n, ok := aliases[name]; ok {
		return n, nil
	}
	if n, ok := realTime(name); ok {
		return n, nil
	}
	return 0, unknown
}

func realTime(name string) (syscall.Signal, bool) {
	base, sign := rtMin, 1
	rest, ok := strings.CutPrefix(name, "RTMIN")
	if !ok {
		base, sign = rtMax, -1
		if rest, ok = strings.CutPrefix(name, "RTMAX"); !ok {
			return 0, false
		}
	}
	if rest == "" {
		return syscall.Signal(base), true
	}
	if rest[0] != "-+"[(sign+1)/2] || strings.Trim(rest[1:], "0123456789") != "" {
		return 0, false
	}
	distance, err := strconv.Atoi(rest[1:])
	if err != nil || distance > rtMax-rtMin {
		return 0, false
	}
	return syscall.Signal(base + sign*distance), true
}

// Name is the name of signal(7): "SIGTERM", "SIGRTMIN+3", "SIGRTMAX-1". The
// real-time signals are counted from the nearer end, as the CRI does. A number
// without a name, such as the C library's own 32, comes back as digits.
func Name(n syscall.Signal) string {
	if name, ok := names[n]; ok {
		return "SIG" + name
	}
	switch {
	case n == rtMin:
		return "SIGRTMIN"
	case n == rtMax:
		return "SIGRTMAX"
	case n > rtMin && n <= rtMin+15:
		return "SIGRTMIN+" + strconv.Itoa(int(n)-rtMin)
	case n > rtMin+15 && n < rtMax:
		return "SIGRTMAX-" + strconv.Itoa(rtMax-int(n))
	}
	return strconv.Itoa(int(n))
}

const (
	criPrefix  = "SIGNAL_"
	criDefault = "SIGNAL_RUNTIME_DEFAULT"
)

var (
	toCRI   = strings.NewReplacer("+", "PLUS", "-", "MINUS")
	fromCRI = strings.NewReplacer("PLUS", "+", "MINUS", "-")
)

// FromCRI translates the name of a value of the CRI's Signal enum, which is
// what its String method gives. The runtime's default is 0.
func FromCRI(enum string) (syscall.Signal, error) {
	if enum == criDefault {
		return 0, nil
	}
	name, ok := strings.CutPrefix(enum, criPrefix+"SIG")
	if !ok {
		return 0, errors.New("not a value of the CRI") // the caller names it
	}
	return Parse(fromCRI.Replace(name))
}

// CRI is the name to look up in the CRI's Signal_value. The CRI has no value
// for some numbers, such as 32: those become the runtime's default.
func CRI(n syscall.Signal) string {
	name := Name(n)
	if !strings.HasPrefix(name, "SIG") {
		return criDefault
	}
	return criPrefix + toCRI.Replace(name)
}
