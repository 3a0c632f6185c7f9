// SPDX-License-Identifier: GPL-2.0-or-later
/* main.c - godwit: find the command and run it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "cli.h"
#include "error.h"

const char *gw_cli_root;

static const struct {
	const char *name;
	int (*run)(int argc, char **argv);
	const char *what;
} commands[] = {
	{ "run", gw_cmd_run, "start a VM so that it can be moved" },
	{ "attach", gw_cmd_attach, "take over a running QEMU" },
	{ "list", gw_cmd_list, "show the VMs of this host" },
	{ "migrate", gw_cmd_migrate, "move a running VM to another host" },
	{ "status", gw_cmd_status, "show a VM's current or last migration" },
	{ "cancel", gw_cmd_cancel, "end a migration; the guest runs on here" },
	{ "split", gw_cmd_split, "put a part of a VM's memory on other hosts" },
	{ "merge", gw_cmd_merge, "bring all of it back" },
	{ "evacuate", gw_cmd_evacuate, "bring what VMs have at one of them to others" },
	{ "recover", gw_cmd_recover, "settle a migration that ended in doubt" },
	{ "stop", gw_cmd_stop, "end a VM" },
	{ "images", gw_cmd_images, "show, pin or remove the memory that VMs left here" },
	{ "held", gw_cmd_held, "show or drop the memory that VMs of other hosts have here" },
	{ "hosts", gw_cmd_hosts, "show the hosts there are, and what they hold for others" },
	{ "plan", gw_cmd_plan, "predict which host a VM would best move to" },
	{ "check", gw_cmd_check, "tell what this host's kernel and QEMU offer" },
};

static void usage(FILE *out)
{
	fprintf(out, "godwit - live migration for unmodified QEMU/KVM virtual machines\n"
		     "\n"
		     "usage: godwit [--root DIR] COMMAND [arguments]\n\n");
	for (size_t i = 0; i < GW_ARRAY_SIZE(commands); i++)
		fprintf(out, "  %-8s  %s\n", commands[i].name, commands[i].what);
	fprintf(out, "\n"
		     "  --root DIR  talk to the godwitd that runs with --root DIR (its socket is\n"
		     "              DIR/run/control.sock; default: /run/godwit/control.sock)\n"
		     "  --version\n"
		     "\n"
		     "Each command has --help; see also godwit(1).\n");
}

int main(int argc, char **argv)
{
	int i = 1;

	for (; i < argc && argv[i][0] == '-'; i++) {
		if (!strcmp(argv[i], "--root") && i + 1 < argc) {
			gw_cli_root = argv[++i];
		} else if (!strncmp(argv[i], "--root=", 7)) {
			gw_cli_root = argv[i] + 7;
		} else if (!strcmp(argv[i], "--version")) {
			printf("godwit %s\n", GW_PROJECT_VERSION);
			return 0;
		} else if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h")) {
			usage(stdout);
			return 0;
		} else {
			fprintf(stderr, "godwit: unknown option '%s'; see godwit --help\n",
				argv[i]);
			return GW_EXIT_USAGE;
		}
	}
	if (i == argc) {
		usage(stderr);
		return GW_EXIT_USAGE;
	}
	for (size_t c = 0; c < GW_ARRAY_SIZE(commands); c++)
		if (!strcmp(argv[i], commands[c].name))
			return commands[c].run(argc - i, argv + i);
	fprintf(stderr, "godwit: unknown command '%s'; see godwit --help\n", argv[i]);
	return GW_EXIT_USAGE;
}
