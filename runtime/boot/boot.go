// Package boot is the other programs that our one binary can be, entered by
// executing it again through /proc/self/exe: the monitor, and the small init
// of pods that share a PID namespace.
//
// Its init function runs before those of the large packages, for its import
// path sorts before theirs and it needs next to nothing: a process that stays
// costs what it uses, not what the binary contains.
package boot

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"cri-mini/internal/crashpoint"
	"cri-mini/internal/timerslack"
	"cri-mini/runtime/monitor"
)

// Variable names the environment variable that selects the program.
const Variable = "_CRI_MINI_BOOT"

// Values of Variable.
const (
	Monitor = "monitor" // descriptor 3 is the listening socket
	Init    = "init"
	Hold    = "hold" // keeps its namespaces until its stdin ends
)

func init() {
	program, ok := syscall.Getenv(Variable)
	if !ok {
		return
	}
	switch program {
	case Monitor:
		setName("cri-mini: mon")
		const listener = 3
		// What the daemon's launcher forgot to close must not reach our
		// children; closing it here could hit what the runtime opened.
		unix.CloseRange(listener, ^uint(0)>>32, unix.CLOSE_RANGE_CLOEXEC)
		defaultSignals()
		timerslack.Relax() // without, it is slower
		err := crashpoint.WatchAsTold()
		if err == nil {
			err = monitor.RunOrTakeOver(listener)
		}
		if err != nil {
			unix.Write(2, []byte("monitor: "+err.Error()+"\n"))
			unix.Exit(1)
		}
		unix.Exit(0)
	case Init:
		setName("cri-mini: init")
		reapForever()
	case Hold:
		unix.Read(0, make([]byte, 1))
		unix.Exit(0)
	}
}

// setName is what ps shows as the command (at most 15 bytes).
func setName(name string) {
	text := append([]byte(name), 0)
	unix.Prctl(unix.PR_SET_NAME, uintptr(unsafe.Pointer(&text[0])), 0, 0, 0)
}

// defaultSignals undoes what whoever started us ignores: an ignored signal
// stays ignored in every container.
func defaultSignals() {
	for n := uintptr(1); n <= 64; n++ {
		var old sigaction
		syscall.RawSyscall6(unix.SYS_RT_SIGACTION, n, 0, uintptr(unsafe.Pointer(&old)), 8, 0, 0)
		if old.handler == sigIgnore {
			setSignal(n, sigDefault)
		}
	}
	// Only Quit ends the monitor. The programs it starts get these back.
	setSignal(uintptr(unix.SIGHUP), sigIgnore)
	setSignal(uintptr(unix.SIGINT), sigIgnore)
	setSignal(uintptr(unix.SIGTERM), sigIgnore)
}

// reapForever is the small init. With SIGCHLD ignored the kernel itself
// collects every process that is left to us; all there is to do is to live.
// What a container sends to process 1 must not end the pod. The kernel drops
// signals from inside for which process 1 has no handler, and Go's runtime has
// one for each, of which those of SIGSEGV and its like end the program: none
// stays. A fault of our own still ends us, and preemption by SIGURG, which the
// kernel then drops as well, is not missed where nothing is computed. So it
// does not matter that a container's user may be ours and may send us signals.
func reapForever() {
	for n := uintptr(1); n <= 64; n++ {
		setSignal(n, sigDefault)
	}
	setSignal(uintptr(unix.SIGCHLD), sigIgnore)
	for {
		unix.Pause()
	}
}

const (
	sigDefault = 0
	sigIgnore  = 1
)

// sigaction is the kernel's struct of rt_sigaction(2).
type sigaction struct {
	handler  uintptr
	flags    uint64
	restorer uintptr
	mask     uint64
}

func setSignal(n, handler uintptr) {
	action := sigaction{handler: handler}
	syscall.RawSyscall6(unix.SYS_RT_SIGACTION, n, uintptr(unsafe.Pointer(&action)), 0, 8, 0, 0)
}
