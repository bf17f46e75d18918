// Package leakcheck tells whether a test left kernel objects behind: open
// descriptors, mounts, network devices, and child processes of this process.
// It compares two snapshots and knows nothing of who made the objects.
package leakcheck

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Main runs the tests of a package and fails them when they leak. Call it
// from TestMain.
func Main(m *testing.M) { os.Exit(Run(m)) }

// Run is Main for a TestMain that has something to do afterwards: it returns
// the exit code.
func Run(m *testing.M) int {
	before := take()
	code := m.Run()
	if code == 0 {
		if left := settle(before); left != "" {
			fmt.Fprintf(os.Stderr, "FAIL: the tests of this package left behind:\n%s", left)
			return 1
		}
	}
	return code
}

// Check fails t when t, once finished, has left something behind.
func Check(t testing.TB) {
	t.Helper()
	before := take()
	t.Cleanup(func() {
		if left := settle(before); left != "" {
			t.Errorf("left behind:\n%s", left)
		}
	})
}

type snapshot map[string]bool

// settle waits a little, for the kernel frees namespaces and their devices
// after the last close, and returns what is there that was not there before.
func settle(before snapshot) string {
	var left string
	for range 50 {
		if left = compare(before, take()); left == "" {
			return ""
		}
		time.Sleep(40 * time.Millisecond)
	}
	return left
}

func compare(before, after snapshot) string {
	var left strings.Builder
	for thing := range after {
		if !before[thing] {
			fmt.Fprintf(&left, "  %s\n", thing)
		}
	}
	return left.String()
}

func take() snapshot {
	s := snapshot{}
	descriptors(s)
	mounts(s)
	devices(s)
	children(s)
	return s
}

func descriptors(s snapshot) {
	names, _ := filepath.Glob("/proc/self/fd/*")
	for _, name := range names {
		target, err := os.Readlink(name)
		if err != nil || strings.Contains(target, "[event") {
			continue // the glob's own descriptor, and the Go poller's
		}
		s["descriptor "+filepath.Base(name)+" "+target] = true
	}
}

func mounts(s snapshot) {
	table, _ := os.ReadFile("/proc/self/mountinfo")
	for _, line := range bytes.Split(table, []byte("\n")) {
		if len(line) > 0 {
			s["mount "+string(line)] = true
		}
	}
}

func devices(s snapshot) {
	entries, _ := os.ReadDir("/sys/class/net")
	for _, e := range entries {
		s["network device "+e.Name()] = true
	}
}

func children(s snapshot) {
	tasks, _ := filepath.Glob("/proc/self/task/*/children")
	for _, task := range tasks {
		list, _ := os.ReadFile(task)
		for _, pid := range strings.Fields(string(list)) {
			s["child process "+pid] = true
		}
	}
}
