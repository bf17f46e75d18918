package timerslack

import (
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

var nanosleep = strconv.Itoa(unix.SYS_NANOSLEEP)

// The watcher is the one thread that sleeps by nanosleep while another is busy.
func TestWatcherIsTheRuntimesOwnAndSleepsLonger(t *testing.T) {
	if err := Relax(); err != nil {
		t.Fatal(err)
	}
	thread, err := watcher()
	if err != nil {
		t.Fatal(err)
	}
	if slack := read(t, "/proc/"+thread+"/timerslack_ns"); slack != "500000" {
		t.Errorf("its slack is %s ns, want 500000", slack)
	}
	for began := time.Now(); ; {
		call, _, _ := strings.Cut(read(t, "/proc/self/task/"+thread+"/syscall"), " ")
		if call == nanosleep {
			return
		}
		if time.Since(began) > time.Minute {
			t.Fatalf("it is in system call %s, never in %s", call, nanosleep)
		}
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(data))
}
