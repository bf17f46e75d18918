#include "textflag.h"

// Offsets in struct op and struct header: see image.go.
#define OP_NR 0
#define OP_ARGS 8
#define OP_LOAD 56
#define OP_SAVE 64
#define OP_TOLERATE 72
#define OP_ON_OK 80
#define OP_ON_TOLERATED 88
#define OP_FORK 96
#define OP_SIZE 104

#define HEAD_FAILED 0
#define HEAD_ERRNO 8
#define HEAD_FORKED 16
#define HEAD_COUNT 24
#define HEAD_OPS 32

#define SYS_exit_group 231
#define SYS_clone3 435
#define SYS_openat2 437

#define EAGAIN 11

// func clone(args *cloneArgs, size uintptr, head *header) (pid int)
//
// The parent returns with the child's pid or a negative errno. The child runs
// the operations and ends in execve or exit_group. It may share our memory
// and stands on our stack, therefore it touches neither: all it has is
// registers and the image.
//
//	R12 header   R13 current op   R14 index   R15 argument pointer
TEXT ·clone(SB), NOSPLIT, $0-32
	MOVQ args+0(FP), DI
	MOVQ size+8(FP), SI
	MOVQ head+16(FP), R12
	MOVQ $SYS_clone3, AX
	SYSCALL
	TESTQ AX, AX
	JZ   child
	MOVQ AX, pid+24(FP)
	RET

child:
	LEAQ HEAD_OPS(R12), R13
	XORQ R14, R14

next:
	CMPQ R14, HEAD_COUNT(R12)
	JGE  done

	// Arguments; a set bit n in OP_LOAD says that argument n is the address
	// of the value, for instance where an earlier result was saved.
	MOVQ OP_ARGS+0(R13), DI
	MOVQ OP_ARGS+8(R13), SI
	MOVQ OP_ARGS+16(R13), DX
	MOVQ OP_ARGS+24(R13), R10
	MOVQ OP_ARGS+32(R13), R8
	MOVQ OP_ARGS+40(R13), R9
	MOVQ OP_LOAD(R13), CX
	BTQ  $0, CX
	JCC  a1
	MOVQ (DI), DI

a1:
	BTQ  $1, CX
	JCC  a2
	MOVQ (SI), SI

a2:
	BTQ  $2, CX
	JCC  a3
	MOVQ (DX), DX

a3:
	BTQ  $3, CX
	JCC  a4
	MOVQ (R10), R10

a4:
	BTQ  $4, CX
	JCC  call
	MOVQ (R8), R8

call:
	MOVQ OP_NR(R13), AX
	SYSCALL
	CMPQ AX, $0xfffffffffffff001
	JCC  failed // unsigned >=: -4095..-1

	MOVQ  OP_FORK(R13), CX
	TESTQ CX, CX
	JZ    save
	TESTQ AX, AX
	JZ    succeeded // the new child goes on
	MOVQ  AX, HEAD_FORKED(R12)
	XORQ  DI, DI
	MOVQ  $SYS_exit_group, AX
	SYSCALL

save:
	MOVQ  OP_SAVE(R13), CX
	TESTQ CX, CX
	JZ    succeeded
	MOVQ  AX, (CX)

succeeded:
	MOVQ OP_ON_OK(R13), CX
	JMP  step

failed:
	NEGQ AX
	CMPQ AX, $EAGAIN
	JNE  final
	// Something was renamed or mounted, anywhere on the node, while a look-up
	// went through "..": the kernel cannot tell whether it stayed inside.
	CMPQ OP_NR(R13), $SYS_openat2
	JEQ  next

final:
	MOVQ OP_TOLERATE(R13), CX // four errnos of 16 bits

tolerate:
	MOVQ    CX, DX
	ANDQ    $0xffff, DX
	JZ      report
	CMPQ    DX, AX
	JEQ     tolerated
	SHRQ    $16, CX
	JMP     tolerate

tolerated:
	MOVQ OP_ON_TOLERATED(R13), CX

step: // over CX operations and this one
	INCQ  CX
	ADDQ  CX, R14
	IMULQ $OP_SIZE, CX
	ADDQ  CX, R13
	JMP   next

report:
	MOVQ AX, HEAD_ERRNO(R12)
	INCQ R14
	MOVQ R14, HEAD_FAILED(R12)

done:
	MOVQ $127, DI
	MOVQ $SYS_exit_group, AX
	SYSCALL
	INT  $3
