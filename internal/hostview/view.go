// Package hostview shows a process as the host's kernel sees it.
//
// A View is what /proc and the cgroup file system say of one process at one
// moment. The package asks nobody else: what a runtime claims to have done and
// what the kernel has can be compared.
package hostview

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"cri-mini/runtime/capability"
)

// View is one process.
type View struct {
	PID          int
	Command      []string
	User         string // real, effective, saved and file system uid
	Group        string
	Namespaces   []Namespace
	UIDMap       []string // inside, outside, count; none in the host's user namespace
	GIDMap       []string
	Capabilities []Set
	Seccomp      string
	NoNewPrivs   bool
	Cgroup       Cgroup
	Mounts       []Mount
	Nsenter      string // a command that enters the process's namespaces

	first bool // process of its PID namespace
}

// Namespace is one of the process's namespaces.
type Namespace struct {
	Kind   string // as in /proc/PID/ns
	ID     string // what the link says: equal ids are the same namespace
	Shared string // "host", "pod", or empty
}

// Set is one of the sets of capabilities(7).
type Set struct {
	Name  string
	Names []string
}

// Of looks at a process. podPID is the pod's own process, 0 without one.
func Of(pid, podPID int) (*View, error) {
	v := &View{PID: pid}
	dir := filepath.Join("/proc", strconv.Itoa(pid))
	command, err := os.ReadFile(filepath.Join(dir, "cmdline"))
	if err != nil {
		return nil, gone(pid, err)
	}
	v.Command = strings.Split(strings.TrimSuffix(string(command), "\x00"), "\x00")
	for _, look := range []func(dir string) error{
		v.status,
		func(dir string) error { return v.namespaces(dir, podPID) },
		v.idMaps,
		v.mounts,
		v.cgroup,
	} {
		if err := look(dir); err != nil {
			return nil, gone(pid, err)
		}
	}
	v.Nsenter = nsenter(pid, v.Namespaces)
	return v, nil
}

func gone(pid int, err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("process %d has ended", pid)
	}
	return err
}

// status reads the lines of /proc/PID/status that concern rights.
func (v *View) status(dir string) error {
	text, err := os.ReadFile(filepath.Join(dir, "status"))
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(text)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		value = strings.Join(strings.Fields(value), " ")
		switch key {
		case "Uid":
			v.User = value
		case "Gid":
			v.Group = value
		case "NSpid": // in each namespace, the innermost last
			v.first = strings.HasSuffix(value, " 1") || value == "1"
		case "NoNewPrivs":
			v.NoNewPrivs = value == "1"
		case "Seccomp":
			v.Seccomp = map[string]string{"0": "none", "1": "strict", "2": "filter"}[value]
		case "CapBnd", "CapEff", "CapPrm", "CapInh", "CapAmb":
			bits, err := strconv.ParseUint(value, 16, 64)
			if err != nil {
				return fmt.Errorf("%s: %w", key, err)
			}
			v.Capabilities = append(v.Capabilities, Set{setNames[key], capability.Names(bits)})
		}
	}
	return nil
}

var setNames = map[string]string{
	"CapBnd": "bounding", "CapEff": "effective", "CapPrm": "permitted", "CapInh": "inheritable", "CapAmb": "ambient",
}

func (v *View) idMaps(dir string) error {
	for name, to := range map[string]*[]string{"uid_map": &v.UIDMap, "gid_map": &v.GIDMap} {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return err
		}
		for line := range strings.Lines(string(text)) {
			*to = append(*to, strings.Join(strings.Fields(line), " "))
		}
	}
	return nil
}
