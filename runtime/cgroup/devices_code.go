package cgroup

import (
	"fmt"
	"math"
	"strconv"

	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"
)

// The program gets a pointer to three words:
//
//	0  access in the upper half, type of the device in the lower
//	4  major number
//	8  minor number
//
// and answers 1 to allow. Each rule is a block of tests that jumps to the next
// block at the first one that fails; the last block denies.
//
// The library of the same trade has such a program too, but takes a rule as
// met when one of the accesses asked for is in it: a device allowed for "r"
// could then be opened for reading and writing.

// deviceTypes and accessBits are the kernel's numbers for a rule's letters.
var (
	deviceTypes = map[byte]int32{'b': unix.BPF_DEVCG_DEV_BLOCK, 'c': unix.BPF_DEVCG_DEV_CHAR}
	accessBits  = map[rune]int32{'m': unix.BPF_DEVCG_ACC_MKNOD, 'r': unix.BPF_DEVCG_ACC_READ, 'w': unix.BPF_DEVCG_ACC_WRITE}
)

const (
	regContext = asm.R1
	regType    = asm.R2
	regAccess  = asm.R3
	regMajor   = asm.R4
	regMinor   = asm.R5
	regScratch = asm.R6
)

func assemble(rules []DeviceRule) (asm.Instructions, error) {
	code := asm.Instructions{
		asm.LoadMem(regType, regContext, 0, asm.Word),
		asm.Mov.Reg32(regAccess, regType),
		asm.And.Imm32(regType, 0xffff),
		asm.RSh.Imm32(regAccess, 16),
		asm.LoadMem(regMajor, regContext, 4, asm.Word),
		asm.LoadMem(regMinor, regContext, 8, asm.Word),
	}
	for i, r := range rules {
		block, err := r.block(blockName(i + 1))
		if err != nil {
			return nil, err
		}
		block[0] = block[0].WithSymbol(blockName(i))
		code = append(code, block...)
	}
	deny := asm.Mov.Imm32(asm.R0, 0).WithSymbol(blockName(len(rules)))
	return append(code, deny, asm.Return()), nil
}

func blockName(i int) string { return "rule" + strconv.Itoa(i) }

func (r DeviceRule) block(next string) (asm.Instructions, error) {
	kind, ok := deviceTypes[r.Type]
	if !ok {
		return nil, fmt.Errorf("device rule: type %q: want b or c", r.Type)
	}
	var access int32
	for _, letter := range r.Access {
		bit, ok := accessBits[letter]
		if !ok {
			return nil, fmt.Errorf("device rule: access %q: want letters of rwm", r.Access)
		}
		access |= bit
	}
	if access == 0 {
		return nil, fmt.Errorf("device rule: access %q: want letters of rwm", r.Access)
	}
	block := asm.Instructions{
		asm.JNE.Imm(regType, kind, next),
		// Every access asked for must be in the rule.
		asm.Mov.Reg32(regScratch, regAccess),
		asm.And.Imm32(regScratch, ^access),
		asm.JNE.Imm(regScratch, 0, next),
	}
	for _, number := range []struct {
		name  string
		value int64
		reg   asm.Register
	}{{"major", r.Major, regMajor}, {"minor", r.Minor, regMinor}} {
		switch {
		case number.value == AnyNumber:
		case number.value < 0 || number.value > math.MaxInt32:
			return nil, fmt.Errorf("device rule: %s number %d: out of range", number.name, number.value)
		default:
			block = append(block, asm.JNE.Imm(number.reg, int32(number.value), next))
		}
	}
	return append(block, asm.Mov.Imm32(asm.R0, 1), asm.Return()), nil
}
