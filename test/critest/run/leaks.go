package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"cri-mini/test/critest/internal/enclosure"
	"cri-mini/test/critest/internal/instance"
)

// snapshot is the kernel objects and files of this run's namespaces. Each is
// named by one line.
type snapshot map[string]bool

// takeSnapshot is made before the daemon starts.
func takeSnapshot(d *instance.Daemon) (snapshot, error) {
	s := snapshot{}
	for _, collect := range []func(snapshot, *instance.Daemon) error{mounts, devices, cgroups, processes, files} {
		if err := collect(s, d); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// leaks returns what is there now and was not before. The kernel frees
// namespaces with their devices, and cgroups, a moment after the last process.
func (before snapshot) leaks(d *instance.Daemon) ([]string, error) {
	for deadline := time.Now().Add(3 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		now, err := takeSnapshot(d)
		if err != nil {
			return nil, err
		}
		var left []string
		for thing := range now {
			if !before[thing] {
				left = append(left, thing)
			}
		}
		if len(left) == 0 || time.Now().After(deadline) {
			slices.Sort(left)
			return left, nil
		}
	}
}

func mounts(s snapshot, _ *instance.Daemon) error {
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(table)) {
		s["mount "+strings.TrimSpace(line)] = true
	}
	return nil
}

func devices(s snapshot, _ *instance.Daemon) error {
	entries, err := os.ReadDir("/sys/class/net")
	for _, entry := range entries {
		s["network device "+entry.Name()] = true
	}
	return err
}

func cgroups(s snapshot, _ *instance.Daemon) error {
	return walk(enclosure.CgroupRoot, func(path string, entry os.DirEntry) {
		if entry.IsDir() {
			s["cgroup "+path] = true
		}
	})
}

// processes lists all of the PID namespace: its other members are children of
// the daemon, or were.
func processes(s snapshot, _ *instance.Daemon) error {
	entries, err := os.ReadDir("/proc")
	for _, entry := range entries {
		pid, notPID := strconv.Atoi(entry.Name())
		if notPID != nil || pid == 1 || pid == os.Getpid() {
			continue
		}
		stat, _ := os.ReadFile(filepath.Join("/proc", entry.Name(), "stat"))
		if _, rest, _ := strings.Cut(string(stat), ") "); strings.HasPrefix(rest[min(1, len(rest)):], " 2 ") {
			continue // the kernel's, where no enclosure hides them
		}
		command, _ := os.ReadFile(filepath.Join("/proc", entry.Name(), "cmdline")) // empty when it has just ended
		s[fmt.Sprintf("process %d %q", pid, strings.ReplaceAll(string(command), "\x00", " "))] = true
	}
	return err
}

// files lists what may not outlive the pods. Images may: keeping them is what
// the root directory is for. So may locks, whose removal would be a race, and
// the monitor's last words.
func files(s snapshot, d *instance.Daemon) error {
	for _, dir := range []string{"/run/cri-mini", "/var/lib/cri-mini", "/etc/cri-mini", "/run/netns", d.Root(), d.State()} {
		err := walk(dir, func(path string, entry os.DirEntry) {
			inside, _ := filepath.Rel(d.Root(), path)
			if top, _, _ := strings.Cut(inside, "/"); !entry.IsDir() && !slices.Contains(mayStay, top) && !slices.Contains(mayStay, entry.Name()) {
				s["file "+path] = true
			}
		})
		if err != nil {
			return err
		}
	}
	return nil
}

var mayStay = []string{"images", "layers", "lock", "monitor.log"}

// walk calls visit for all below dir. What vanishes meanwhile is not there.
func walk(dir string, visit func(string, os.DirEntry)) error {
	return filepath.WalkDir(dir, func(path string, entry os.DirEntry, err error) error {
		if os.IsNotExist(err) {
			return nil
		}
		if err != nil {
			return err
		}
		visit(path, entry)
		return nil
	})
}
