package executor

import (
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"cri-mini/runtime/spec"
)

// How late a sleep may end is inherited from whoever starts a program, and is
// not ours to change.
func TestProgramsSleepAsPreciselyAsTheKernelLetsThem(t *testing.T) {
	runtime.LockOSThread() // and never unlock: the thread has another slack
	if err := unix.Prctl(unix.PR_SET_TIMERSLACK, 7_000_000, 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	n := newNode(t, spec.Sandbox{})
	if got := n.run("a", "cat /proc/self/timerslack_ns", nil); got != "50000" {
		t.Errorf("the slack of a container is %s ns, want 50000", got)
	}
}
