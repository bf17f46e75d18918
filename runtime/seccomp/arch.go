package seccomp

import (
	"fmt"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

//go:generate go run ../../hack/syscalltable zsyscalls.go

// syscallRow is one name with its number on each architecture, in the order
// of the column constants.
type syscallRow struct {
	name    string
	numbers [4]int32
}

const (
	columnAMD64 = iota
	columnI386
	columnARM64
	columnARM
)

// arch is one way of making system calls. A machine has one of 64 bits and
// perhaps an older one of 32 beside it, with numbers of its own.
type arch struct {
	name   specs.Arch
	audit  uint32 // what the kernel calls it
	column int
	bits   int
	// foreign is where numbers begin that belong to something else, if any do:
	// x32 on amd64, the private calls of ARM.
	foreign uint32
}

var (
	amd64 = &arch{specs.ArchX86_64, unix.AUDIT_ARCH_X86_64, columnAMD64, 64, x32}
	i386  = &arch{specs.ArchX86, unix.AUDIT_ARCH_I386, columnI386, 32, nothing}
	arm64 = &arch{specs.ArchAARCH64, unix.AUDIT_ARCH_AARCH64, columnARM64, 64, nothing}
	arm   = &arch{specs.ArchARM, unix.AUDIT_ARCH_ARM, columnARM, 32, armPrivate}
)

const (
	// x32 marks calls of 64 bit programs with 32 bit pointers. They have the
	// audit value of amd64, so a filter must look for the bit or be passed by.
	x32        = 0x40000000
	armPrivate = 0xf0000
	nothing    = 0xffffffff
)

// machine is what profiles are resolved for.
type machine struct {
	name   string // as `includes` and `excludes` spell it
	native *arch
	compat *arch
}

var machines = map[string]machine{
	"amd64": {"amd64", amd64, i386},
	"arm64": {"arm64", arm64, arm},
}

// knownArches are all that a profile may name; the others are for machines
// that this runtime does not know, and a profile may be written for many.
var knownArches = []specs.Arch{
	specs.ArchX86, specs.ArchX86_64, specs.ArchX32, specs.ArchARM, specs.ArchAARCH64,
	specs.ArchMIPS, specs.ArchMIPS64, specs.ArchMIPS64N32, specs.ArchMIPSEL, specs.ArchMIPSEL64, specs.ArchMIPSEL64N32,
	specs.ArchPPC, specs.ArchPPC64, specs.ArchPPC64LE, specs.ArchS390, specs.ArchS390X,
	specs.ArchPARISC, specs.ArchPARISC64, specs.ArchRISCV64, specs.ArchLOONGARCH64,
	specs.ArchM68K, specs.ArchSH, specs.ArchSHEB,
}

// numbers finds a name. A call that this table does not know is newer than
// all it knows.
func numbers(name string) (syscallRow, bool) {
	i, ok := slices.BinarySearchFunc(syscallTable[:], name, func(r syscallRow, name string) int {
		return strings.Compare(r.name, name)
	})
	if !ok {
		return syscallRow{}, false
	}
	return syscallTable[i], true
}

// muxed are calls that i386 also has behind one number, with the real one in
// the first argument. A rule for "connect" that left socketcall alone could be
// walked around.
var muxed = func() map[string]muxCall {
	m := map[string]muxCall{}
	for i, name := range strings.Fields("socket bind connect listen accept getsockname getpeername socketpair send recv " +
		"sendto recvfrom shutdown setsockopt getsockopt sendmsg recvmsg accept4 recvmmsg sendmmsg") {
		m[name] = muxCall{102, uint64(i + 1), 0xffffffff}
	}
	// ipc takes only the lower half; the upper one is a version.
	for name, call := range map[string]uint64{
		"semop": 1, "semget": 2, "semctl": 3, "semtimedop": 4, "msgsnd": 11, "msgrcv": 12,
		"msgget": 13, "msgctl": 14, "shmat": 21, "shmdt": 22, "shmget": 23, "shmctl": 24,
	} {
		m[name] = muxCall{117, call, 0xffff}
	}
	return m
}()

type muxCall struct {
	number uint32
	call   uint64
	mask   uint64
}

// arches are those of the machine that the profile wants to judge; calls by
// another way end the program. The native one is always there. With no list
// at all it is the only one, as in the specification.
func (m machine) arches(wanted []specs.Arch) []*arch {
	if slices.Contains(wanted, m.compat.name) {
		return []*arch{m.native, m.compat}
	}
	return []*arch{m.native}
}

func checkArch(field string, a specs.Arch) error {
	if !slices.Contains(knownArches, a) {
		return fmt.Errorf("%s %q: unknown architecture", field, a)
	}
	return nil
}
