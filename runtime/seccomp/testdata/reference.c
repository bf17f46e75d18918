/*
 * The same rules through libseccomp, to compare with. Reads from stdin
 *
 *	names
 *	<arch> <name>                      answers "<arch> <name> <number>"
 *
 * or
 *
 *	profile <default action> <arch> ...
 *	rule <action> <name> <arguments> [<index> <operator> <a> <b>] ...
 *
 * and then writes the program to stdout. A name it does not know is told on
 * stderr and left out; any other refusal is exit code 2.
 */
#include <errno.h>
#include <inttypes.h>
#include <seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int names(void)
{
	char arch[32], name[128];

	while (scanf("%31s %127s", arch, name) == 2)
		printf("%s %s %d\n", arch, name,
		       seccomp_syscall_resolve_name_arch(seccomp_arch_resolve_name(arch), name));
	return 0;
}

static enum scmp_compare operator(const char *s)
{
	static const struct { const char *name; enum scmp_compare op; } all[] = {
		{"ne", SCMP_CMP_NE}, {"lt", SCMP_CMP_LT}, {"le", SCMP_CMP_LE}, {"eq", SCMP_CMP_EQ},
		{"ge", SCMP_CMP_GE}, {"gt", SCMP_CMP_GT}, {"masked", SCMP_CMP_MASKED_EQ},
	};
	for (unsigned i = 0; i < sizeof all / sizeof *all; i++)
		if (!strcmp(all[i].name, s))
			return all[i].op;
	exit(3);
}

int main(void)
{
	char line[1 << 16], *word, *save;
	scmp_filter_ctx ctx = NULL;

	while (fgets(line, sizeof line, stdin)) {
		word = strtok_r(line, " \n", &save);
		if (!word)
			continue;
		if (!strcmp(word, "names"))
			return names();
		if (!strcmp(word, "profile")) {
			int first = 1;
			ctx = seccomp_init(strtoul(strtok_r(NULL, " \n", &save), NULL, 0));
			while (ctx && (word = strtok_r(NULL, " \n", &save))) {
				uint32_t arch = seccomp_arch_resolve_name(word);
				if (first && arch != seccomp_arch_native() &&
				    (seccomp_arch_add(ctx, arch) || seccomp_arch_remove(ctx, seccomp_arch_native())))
					return 3;
				if (!first && seccomp_arch_add(ctx, arch))
					return 3;
				first = 0;
			}
			continue;
		}
		uint32_t action = strtoul(strtok_r(NULL, " \n", &save), NULL, 0);
		char *name = strtok_r(NULL, " \n", &save);
		int n = atoi(strtok_r(NULL, " \n", &save)), rc;
		struct scmp_arg_cmp args[6];
		for (int i = 0; i < n; i++) {
			args[i].arg = atoi(strtok_r(NULL, " \n", &save));
			args[i].op = operator(strtok_r(NULL, " \n", &save));
			args[i].datum_a = strtoull(strtok_r(NULL, " \n", &save), NULL, 0);
			args[i].datum_b = strtoull(strtok_r(NULL, " \n", &save), NULL, 0);
		}
		int number = seccomp_syscall_resolve_name(name);
		if (number == __NR_SCMP_ERROR) {
			fprintf(stderr, "%s\n", name);
			continue;
		}
		rc = seccomp_rule_add_array(ctx, action, number, n, args);
		if (rc) {
			fprintf(stderr, "rule %s: %s\n", name, strerror(-rc));
			return 2;
		}
	}
	return ctx && !seccomp_export_bpf(ctx, 1) ? 0 : 4;
}
