/* Calls of 32 bit from a program of 64: number and two arguments each. */
#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv)
{
	for (int i = 1; i + 2 < argc; i += 3) {
		long result;
		__asm__ volatile("int $0x80"
				 : "=a"(result)
				 : "a"(atol(argv[i])), "b"(atol(argv[i + 1])), "c"(atol(argv[i + 2])), "d"(0L)
				 : "memory", "r8", "r9", "r10", "r11");
		printf("%s=%ld ", argv[i], result > 0 ? 0 : result);
	}
	return 0;
}
