package place

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// CPU is what all processes of the place, those that have ended too, have used.
// Work that the kernel does for nobody, as when it clears away a network
// namespace, is in nobody's account.
func (p *Place) CPU() (time.Duration, error) {
	text, err := os.ReadFile(filepath.Join(p.group, "cpu.stat"))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		var used int64
		if n, _ := fmt.Sscanf(line, "usage_usec %d", &used); n == 1 {
			return time.Duration(used) * time.Microsecond, nil
		}
	}
	return 0, fmt.Errorf("%s/cpu.stat: has no usage_usec", p.group)
}

// Process is one that runs in a place.
type Process struct {
	Name string   // of its program's file
	Args []string // of its command line
	PSS  float64  // kB: its own memory and its part of what it shares
}

// Processes are those of the place, without its keeper. One that ends meanwhile
// is left out.
func (p *Place) Processes() ([]Process, error) {
	var found []Process
	err := filepath.WalkDir(p.group, func(path string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // a group that has just gone
		}
		if err != nil || entry.Name() != "cgroup.procs" {
			return err
		}
		pids, err := os.Open(path)
		if err != nil {
			return nil
		}
		defer pids.Close()
		for lines := bufio.NewScanner(pids); lines.Scan(); {
			if lines.Text() == fmt.Sprint(p.keeper.Process.Pid) {
				continue
			}
			if process, ok := look(lines.Text()); ok {
				found = append(found, process)
			}
		}
		return nil
	})
	return found, err
}

func look(pid string) (Process, bool) {
	dir := filepath.Join("/proc", pid)
	file, err := os.Readlink(filepath.Join(dir, "exe"))
	if err != nil {
		return Process{}, false
	}
	line, err := os.ReadFile(filepath.Join(dir, "cmdline"))
	if err != nil {
		return Process{}, false
	}
	rollup, err := os.ReadFile(filepath.Join(dir, "smaps_rollup"))
	if err != nil {
		return Process{}, false
	}
	process := Process{Name: filepath.Base(file), Args: strings.Split(string(bytes.TrimRight(line, "\x00")), "\x00")}
	for line := range strings.Lines(string(rollup)) {
		if n, _ := fmt.Sscanf(line, "Pss: %f kB", &process.PSS); n == 1 {
			return process, true
		}
	}
	return Process{}, false
}
