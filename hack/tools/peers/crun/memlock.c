/* Older crun asks for unlimited locked memory before it loads a filter of
 * devices, and gives up where that is refused, though kernels since 5.11 do not
 * count filters there. Loaded before the C library, this answers in its place. */
#define _GNU_SOURCE
#include <sys/resource.h>

int setrlimit(__rlimit_resource_t resource, const struct rlimit *limit)
{
	return resource == RLIMIT_MEMLOCK ? 0 : prlimit(0, resource, limit, 0);
}
