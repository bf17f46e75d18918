// Package spawn makes processes.
//
// An Op is one system call. A Program is the list of them that turns a new
// process into a container's program: pure data, made from a spec without
// looking at disk or kernel. An Image is a program laid out in memory with
// the descriptors it needs. Run clones a process that executes an image and
// nothing else: no Go code runs between clone and execve, so the cost is that
// of the system calls, whatever the size of our binary or heap.
//
// The package knows nothing of files on the host, of cgroups or of logs.
package spawn

import (
	"fmt"
	"strings"
	"syscall"
)

// Program is a list of operations, and how to clone the process that runs it.
type Program struct {
	// Flags are the CLONE_NEW* flags of the first process.
	Flags uint64
	// Copy gives the first process a copy of our memory in place of sharing
	// it. Needed where someone inside could trace it before its execve.
	Copy bool
	// Files names the descriptors that the program expects, in this order.
	Files []string
	Ops   []Op
}

// Op is one system call of the new process. Without tolerance an error ends
// the process and is reported with What.
type Op struct {
	What string
	Nr   uintptr
	Args []Arg
	// Save keeps the result under a name for the arguments of later ones.
	Save string
	// Tolerate lists errors (at most four) that count as done.
	Tolerate []syscall.Errno
	// SkipOK and SkipTolerated say how many of the next operations to leave
	// out after success and after a tolerated error.
	SkipOK, SkipTolerated int
	// Fork marks a clone: the new process goes on with the next operation,
	// the old one ends.
	Fork bool
}

// Arg is an argument of a system call; exactly one kind is set.
type Arg struct {
	kind  argKind
	value uint64
	name  string   // saved result or file
	data  []byte   // bytes passed by address
	list  []string // argv or envp, or the filter of a sock_fprog
}

type argKind uint8

const (
	constant argKind = iota
	saved
	file
	buffer
	vector
	filter
	fdMessage
	forkedPID
)

// Num is a plain number.
func Num[T ~int | ~uint | ~int32 | ~uint32 | ~int64 | ~uint64 | ~uintptr](n T) Arg {
	return Arg{value: uint64(n)}
}

// Saved is the result that an earlier operation saved.
func Saved(name string) Arg { return Arg{kind: saved, name: name} }

// File is the number of one of the program's files.
func File(name string) Arg { return Arg{kind: file, name: name} }

// Text is the address of a C string.
func Text(s string) Arg { return Arg{kind: buffer, data: append([]byte(s), 0)} }

// Bytes is the address of a structure.
func Bytes(b []byte) Arg { return Arg{kind: buffer, data: b} }

// Vector is the address of a list of strings as execve(2) takes it.
func Vector(list []string) Arg { return Arg{kind: vector, list: list} }

// Filter is the address of a struct sock_fprog with this program.
func Filter(insns []byte) Arg { return Arg{kind: filter, data: insns} }

// FDMessage is the address of a struct msghdr that carries one descriptor,
// the saved result of that name, as sendmsg(2) takes it.
func FDMessage(name string) Arg { return Arg{kind: fdMessage, name: name} }

// forked is the address at which Run looks for the second process.
func forked() Arg { return Arg{kind: forkedPID} }

// String lists the program, one operation a line: the form of golden files.
func (p Program) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "clone %s", flagNames(p.Flags))
	if p.Copy {
		b.WriteString(" copy")
	}
	fmt.Fprintf(&b, "\nfiles %s\n", strings.Join(p.Files, " "))
	for i, op := range p.Ops {
		fmt.Fprintf(&b, "%3d %s\n", i, op)
	}
	return b.String()
}

func (o Op) String() string {
	var b strings.Builder
	if o.Save != "" {
		fmt.Fprintf(&b, "%s = ", o.Save)
	}
	args := make([]string, len(o.Args))
	for i, a := range o.Args {
		args[i] = a.String()
	}
	fmt.Fprintf(&b, "%s(%s)", callName(o.Nr), strings.Join(args, ", "))
	for _, errno := range o.Tolerate {
		fmt.Fprintf(&b, " ?%s", errnoName(errno))
	}
	if o.SkipOK > 0 {
		fmt.Fprintf(&b, " ok:+%d", o.SkipOK)
	}
	if o.SkipTolerated > 0 {
		fmt.Fprintf(&b, " tolerated:+%d", o.SkipTolerated)
	}
	if o.Fork {
		b.WriteString(" fork")
	}
	return fmt.Sprintf("%-90s # %s", b.String(), o.What)
}

func (a Arg) String() string {
	switch a.kind {
	case saved:
		return a.name
	case file:
		return "<" + a.name + ">"
	case buffer:
		if n := len(a.data); n > 0 && a.data[n-1] == 0 && printable(a.data[:n-1]) {
			return fmt.Sprintf("%q", a.data[:n-1])
		}
		return fmt.Sprintf("{%x}", a.data)
	case vector:
		return fmt.Sprintf("%q", a.list)
	case forkedPID:
		return "&forked"
	case filter:
		return fmt.Sprintf("filter of %d", len(a.data)/8)
	case fdMessage:
		return "message with " + a.name
	}
	if int64(a.value) < 10 && int64(a.value) > -4096 {
		return fmt.Sprint(int64(a.value))
	}
	return fmt.Sprintf("%#x", a.value)
}

func printable(b []byte) bool {
	for _, c := range b {
		if c < ' ' || c > '~' {
			return false
		}
	}
	return true
}
