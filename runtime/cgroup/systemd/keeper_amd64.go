package systemd

import "debug/elf"

const machine = elf.EM_X86_64

var code = []byte{
	0x31, 0xc0, // xor eax, eax: read
	0x31, 0xff, // xor edi, edi
	0x48, 0x89, 0xe6, // mov rsi, rsp
	0xba, 1, 0, 0, 0, // mov edx, 1
	0x0f, 0x05, // syscall
	0x83, 0xf8, 1, // cmp eax, 1
	0x75, 9, // jne exit
	0xb8, 34, 0, 0, 0, // again: mov eax, 34: pause
	0x0f, 0x05, // syscall
	0xeb, 0xf7, // jmp again
	0xb8, 231, 0, 0, 0, // exit: mov eax, 231: exit_group
	0x31, 0xff, // xor edi, edi
	0x0f, 0x05, // syscall
}
