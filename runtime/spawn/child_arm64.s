#include "textflag.h"

// The same as child_amd64.s; read that one first.
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

#define SYS_exit_group 94
#define SYS_clone3 435
#define SYS_openat2 437

#define EAGAIN 11

// func clone(args *cloneArgs, size uintptr, head *header) (pid int)
//
//	R19 header   R20 current op   R21 index
TEXT ·clone(SB), NOSPLIT, $0-32
	MOVD args+0(FP), R0
	MOVD size+8(FP), R1
	MOVD head+16(FP), R19
	MOVD $SYS_clone3, R8
	SVC
	CBZ  R0, child
	MOVD R0, pid+24(FP)
	RET

child:
	ADD  $HEAD_OPS, R19, R20
	MOVD $0, R21

next:
	MOVD HEAD_COUNT(R19), R9
	CMP  R9, R21
	BGE  done
	MOVD (OP_ARGS+0)(R20), R0
	MOVD (OP_ARGS+8)(R20), R1
	MOVD (OP_ARGS+16)(R20), R2
	MOVD (OP_ARGS+24)(R20), R3
	MOVD (OP_ARGS+32)(R20), R4
	MOVD (OP_ARGS+40)(R20), R5
	MOVD OP_LOAD(R20), R9
	TBZ  $0, R9, a1
	MOVD (R0), R0

a1:
	TBZ  $1, R9, a2
	MOVD (R1), R1

a2:
	TBZ  $2, R9, a3
	MOVD (R2), R2

a3:
	TBZ  $3, R9, a4
	MOVD (R3), R3

a4:
	TBZ  $4, R9, call
	MOVD (R4), R4

call:
	MOVD OP_NR(R20), R8
	SVC
	CMN  $4095, R0
	BCS  failed
	MOVD OP_FORK(R20), R9
	CBZ  R9, save
	CBZ  R0, succeeded
	MOVD R0, HEAD_FORKED(R19)
	MOVD $0, R0
	MOVD $SYS_exit_group, R8
	SVC

save:
	MOVD OP_SAVE(R20), R9
	CBZ  R9, succeeded
	MOVD R0, (R9)

succeeded:
	MOVD OP_ON_OK(R20), R9
	B    step

failed:
	NEG  R0, R0
	CMP  $EAGAIN, R0
	BNE  final
	MOVD OP_NR(R20), R9
	CMP  $SYS_openat2, R9
	BEQ  next

final:
	MOVD OP_TOLERATE(R20), R9

tolerate:
	AND  $0xffff, R9, R10
	CBZ  R10, report
	CMP  R10, R0
	BEQ  tolerated
	LSR  $16, R9
	B    tolerate

tolerated:
	MOVD OP_ON_TOLERATED(R20), R9

step:
	ADD  $1, R9
	ADD  R9, R21
	MOVD $OP_SIZE, R10
	MUL  R10, R9
	ADD  R9, R20
	B    next

report:
	MOVD R0, HEAD_ERRNO(R19)
	ADD  $1, R21
	MOVD R21, HEAD_FAILED(R19)

done:
	MOVD $127, R0
	MOVD $SYS_exit_group, R8
	SVC
	UNDEF
