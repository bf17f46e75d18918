package cgroup

import (
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// DeviceRule allows access to device nodes. Without any rule for a device it
// is denied, also to a process that could make its node.
type DeviceRule struct {
	Type         byte   // 'c' or 'b'
	Major, Minor int64  // AnyNumber: all
	Access       string // of "rwm": read, write, make the node
}

// AnyNumber in a rule stands for every major or minor number.
const AnyNumber = -1

// defaultDevices are what every container may use. Nodes of any kind may be
// made, for installers and tar do it, but not opened.
var defaultDevices = []DeviceRule{
	{'c', AnyNumber, AnyNumber, "m"},
	{'b', AnyNumber, AnyNumber, "m"},
	{'c', 1, 3, "rwm"},           // null
	{'c', 1, 5, "rwm"},           // zero
	{'c', 1, 7, "rwm"},           // full
	{'c', 1, 8, "rwm"},           // random
	{'c', 1, 9, "rwm"},           // urandom
	{'c', 5, 0, "rwm"},           // tty
	{'c', 5, 1, "rwm"},           // console
	{'c', 5, 2, "rwm"},           // ptmx
	{'c', 136, AnyNumber, "rwm"}, // pts
}

// filterDevices attaches a program to the group that the kernel asks at each
// open and mknod. It belongs to the group and goes with it.
func (g *Group) filterDevices(extra []DeviceRule) error {
	prog, release, err := deviceProgram(append(slices.Clone(defaultDevices), extra...))
	if err != nil {
		return err
	}
	defer release()
	dir, err := unix.Open(g.dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("device filter: %w", err)
	}
	defer unix.Close(dir)
	err = link.RawAttachProgram(link.RawAttachProgramOptions{
		Target: dir, Program: prog, Attach: ebpf.AttachCGroupDevice,
		// Beside the filters of others above and here, all of which must agree.
		Flags: unix.BPF_F_ALLOW_MULTI,
	})
	if err != nil {
		return unsupported(err)
	}
	return nil
}

// unsupported is the answer to a bpf call that this kernel, or the rights of
// this process, do not allow. A container is never started without a filter.
func unsupported(err error) error {
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EINVAL) || errors.Is(err, ebpf.ErrNotSupported) {
		return &ErrUnsupported{Feature: "device filter of cgroup2 (BPF_PROG_TYPE_CGROUP_DEVICE)", Cause: err}
	}
	return fmt.Errorf("device filter: %w", err)
}

// defaultProgram is loaded once: the verifier's work is the dear part, and
// nearly all containers share the list without extra devices.
var defaultProgram struct {
	sync.Mutex
	loaded *ebpf.Program
}

// deviceProgram loads the program for the rules. Call release when it is
// attached.
func deviceProgram(rules []DeviceRule) (prog *ebpf.Program, release func(), err error) {
	shared := len(rules) == len(defaultDevices)
	if shared {
		defaultProgram.Lock()
		defer defaultProgram.Unlock()
		if defaultProgram.loaded != nil {
			return defaultProgram.loaded, func() {}, nil
		}
	}
	code, err := assemble(rules)
	if err != nil {
		return nil, nil, err
	}
	prog, err = ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "devices", Type: ebpf.CGroupDevice, Instructions: code, License: "Apache-2.0",
	})
	if err != nil {
		return nil, nil, unsupported(err)
	}
	if shared {
		defaultProgram.loaded = prog
		return prog, func() {}, nil
	}
	return prog, func() { prog.Close() }, nil
}
