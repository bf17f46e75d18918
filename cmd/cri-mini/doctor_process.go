package main

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"cri-mini/internal/config"
)

// processChecks look at daemon and monitor.
func processChecks(daemon, monitor int, c config.Config) []check {
	parent := check{Name: "monitor", Value: fmt.Sprintf("process %d", monitor)}
	switch same, err := sameProgram(daemon, monitor); {
	case err != nil:
		parent.wrong(err.Error(), "the daemon starts another one; if it does not, see its log")
	case !same:
		parent.notice("it runs another version of this program than the daemon", "restart the daemon, which has the monitor execute its program; if that does not help, see its log")
	default:
		parent.Value += ", the daemon's version"
	}
	return []check{{Name: "daemon", Value: fmt.Sprintf("process %d", daemon)}, descriptors("daemon", daemon, c), parent, descriptors("monitor", monitor, c)}
}

// monitorAlone asks for the monitor while no daemon runs.
func monitorAlone(c config.Config) check {
	one := check{Name: "monitor", Value: "is there"}
	conn, err := net.Dial("unix", filepath.Join(c.State, "monitor.sock"))
	if err != nil {
		one.Value = "does not run"
		one.notice("containers that ran with it are not watched: "+err.Error(), "the daemon starts one")
		return one
	}
	conn.Close()
	return one
}

// sameProgram compares the files that two processes run. Replaced by an update,
// both are still there.
func sameProgram(a, b int) (bool, error) {
	first, err := digestOf(a)
	if err != nil {
		return false, err
	}
	second, err := digestOf(b)
	return bytes.Equal(first, second), err
}

func digestOf(pid int) ([]byte, error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/exe", pid))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	h := sha256.New()
	_, err = io.Copy(h, f)
	return h.Sum(nil), err
}

// descriptors are open files, of which each running container costs both a few.
func descriptors(name string, pid int, c config.Config) check {
	one := check{Name: "descriptors of the " + name}
	open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		one.wrong(err.Error(), "")
		return one
	}
	limit, err := openFiles(pid)
	if err != nil {
		one.wrong(err.Error(), "")
		return one
	}
	one.Value = fmt.Sprintf("%d of %d", len(open), limit)
	if limit < 20*uint64(len(open)) && limit < 65536 {
		one.notice("few are left for more pods", "raise LimitNOFILE of its service")
	}
	if name == "daemon" && c.OpenFiles > limit {
		one.notice(fmt.Sprintf("containers get %d and not open-files %d: the daemon itself may have no more", limit, c.OpenFiles), "raise LimitNOFILE of its service")
	}
	return one
}

func openFiles(pid int) (uint64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "Max open files"); ok {
			return strconv.ParseUint(strings.Fields(rest)[1], 10, 64)
		}
	}
	return 0, fmt.Errorf("/proc/%d/limits names no open files", pid)
}
