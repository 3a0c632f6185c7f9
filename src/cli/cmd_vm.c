// SPDX-License-Identifier: GPL-2.0-or-later
/* cmd_vm.c - run, attach, list, stop: VMs of this host. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cleanup.h"
#include "cli.h"
#include "error.h"
#include "io.h"

static const char run_help[] =
	"usage: godwit run NAME --memory SIZE [--agent] [--json] -- qemu-system-ARCH ARGS...\n"
	"\n"
	"Start a VM the way Godwit needs it. ARGS are yours; Godwit adds the memory (-m and a\n"
	"RAM file), and a monitor of its own. {dir} in ARGS stands for the VM's run directory on\n"
	"the host where it runs, e.g. -serial file:{dir}/serial.log.\n"
	"\n"
	"  --memory SIZE  the guest's memory, e.g. 2G; a multiple of 8 KiB\n"
	"  --agent        add a port on which godwit-agent in the guest tells of its page cache, so\n"
	"                 that godwit migrate need not send it\n"
	"  --json         print the result as JSON\n";

/* What --agent adds. */
static const char *const agent_words[] = {
	"-device",
	"virtio-serial-pci,id=godwit-serial",
	"-chardev",
	"socket,id=godwit-agent,path={dir}/agent.sock,server=on,wait=off",
	"-device",
	"virtserialport,bus=godwit-serial.0,chardev=godwit-agent,name=org.godwit.agent.0",
};

/* --memory may stand before or after NAME, as users write it. */
int gw_cmd_run(int argc, char **argv)
{
	static const struct option longs[] = { { "memory", 1, NULL, 'm' },
					       { "agent", 0, NULL, 'a' },
					       { "json", 0, NULL, 'j' },
					       { "help", 0, NULL, 'h' },
					       { NULL, 0, NULL, 0 } };
	struct gw_call call = { .command = "run" };
	const char *name = NULL;
	char cwd[4096];
	uint64_t memory = 0;
	bool json = false, given = false, agent = false;
	json_t *words, *result;
	int opt;

	for (;;) {
		while ((opt = gw_cli_options(argc, argv, longs, run_help)) != -1) {
			if (opt == 'j')
				json = true;
			else if (opt == 'a')
				agent = true;
			else if (gw_parse_size(optarg, &memory))
				return gw_cli_usage("run", gw_error());
			else
				given = true;
		}
		if (name || optind >= argc || !strcmp(argv[optind - 1], "--"))
			break;
		name = argv[optind++];
	}
	if (!name || optind >= argc)
		return gw_cli_usage("run", "NAME and, after --, a QEMU command are needed");
	if (!given)
		return gw_cli_usage("run", "--memory SIZE is needed, e.g. --memory 2G");
	if (!getcwd(cwd, sizeof(cwd)))
		snprintf(cwd, sizeof(cwd), "/");
	words = json_array();
	for (; optind < argc; optind++)
		json_array_append_new(words, json_string(argv[optind]));
	for (size_t i = 0; agent && i < sizeof(agent_words) / sizeof(agent_words[0]); i++)
		json_array_append_new(words, json_string(agent_words[i]));
	call.args = json_pack("{s:s,s:I,s:s,s:o}", "name", name, "memory", (json_int_t)memory,
			      "cwd", cwd, "argv", words);
	if (!call.args) {
		gw_fail(-EINVAL, "the command line is not UTF-8");
		return gw_cli_fail();
	}
	if (gw_cli_call(&call, &result))
		return gw_cli_fail();
	if (json)
		gw_cli_print(result);
	else
		json_decref(result);
	return 0;
}

static const char attach_help[] =
	"usage: godwit attach NAME --qmp SOCKET [--json]\n"
	"\n"
	"Take over a running, suitable QEMU (7.2 or newer) under the name NAME. Its memory must\n"
	"be a shared file: -object memory-backend-file,share=on,mem-path=FILE,...\n"
	"\n"
	"  --qmp SOCKET  a monitor of it that nobody else is connected to\n"
	"  --json        print the result as JSON\n";

int gw_cmd_attach(int argc, char **argv)
{
	static const struct option longs[] = { { "qmp", 1, NULL, 'q' },
					       { "json", 0, NULL, 'j' },
					       { "help", 0, NULL, 'h' },
					       { NULL, 0, NULL, 0 } };
	struct gw_call call = { .command = "attach" };
	gw_autofree char *path = NULL;
	const char *name = NULL, *qmp = NULL;
	bool json = false;
	json_t *result;
	int opt;

	for (;;) {
		while ((opt = gw_cli_options(argc, argv, longs, attach_help)) != -1) {
			if (opt == 'j')
				json = true;
			else
				qmp = optarg;
		}
		if (name || optind >= argc)
			break;
		name = argv[optind++];
	}
	if (!name || !qmp || optind < argc)
		return gw_cli_usage("attach", "NAME and --qmp SOCKET are needed");
	path = realpath(qmp, NULL); /* the daemon's cwd is another */
	if (!path) {
		gw_fail(-errno, "%s: %s", qmp, strerror(errno));
		return gw_cli_fail();
	}
	call.args = json_pack("{s:s,s:s}", "name", name, "qmp", path);
	if (gw_cli_call(&call, &result))
		return gw_cli_fail();
	if (json)
		gw_cli_print(result);
	else
		json_decref(result);
	return 0;
}

static const char list_help[] =
	"usage: godwit list [--json]\n"
	"\n"
	"Show the VMs of this host. States: running, paused (and QEMU's other words for a guest\n"
	"that does not run), migrating, incoming, recovering (an interrupted migration is being put\n"
	"right; the guest may be stopped until then), in-doubt (see godwit recover), split (some of\n"
	"its memory is at other hosts; see godwit status), unreachable (another program uses its\n"
	"monitor), ended, busy.\n";

int gw_cmd_list(int argc, char **argv)
{
	static const struct option longs[] = { { "json", 0, NULL, 'j' },
					       { "help", 0, NULL, 'h' },
					       { NULL, 0, NULL, 0 } };
	struct gw_call call = { .command = "list" };
	json_t *result, *vm;
	bool json = false;
	size_t i;

	while (gw_cli_options(argc, argv, longs, list_help) != -1)
		json = true;
	if (optind < argc)
		return gw_cli_usage("list", "it takes no arguments");
	if (gw_cli_call(&call, &result))
		return gw_cli_fail();
	if (json) {
		gw_cli_print(result);
		return 0;
	}
	printf("%-20s %-12s %10s %8s  %s\n", "NAME", "STATE", "MEMORY", "PID", "MACHINE");
	json_array_foreach(result, i, vm) {
		char size[32];

		gw_format_size((uint64_t)json_integer_value(json_object_get(vm, "memory")), size,
			       sizeof(size));
		printf("%-20s %-12s %10s %8" PRId64 "  %s\n",
		       json_string_value(json_object_get(vm, "name")),
		       json_string_value(json_object_get(vm, "state")), size,
		       (int64_t)json_integer_value(json_object_get(vm, "pid")),
		       json_string_value(json_object_get(vm, "machine")));
	}
	json_decref(result);
	return 0;
}

static const char stop_help[] =
	"usage: godwit stop NAME\n"
	"\n"
	"End a VM at once, as a power cut would, and remove what Godwit made for it.\n";

int gw_cmd_stop(int argc, char **argv)
{
	static const struct option longs[] = { { "help", 0, NULL, 'h' }, { NULL, 0, NULL, 0 } };
	struct gw_call call = { .command = "stop" };
	json_t *result;

	while (gw_cli_options(argc, argv, longs, stop_help) != -1)
		;
	if (optind != argc - 1)
		return gw_cli_usage("stop", "one NAME is needed");
	call.args = json_pack("{s:s}", "name", argv[optind]);
	if (gw_cli_call(&call, &result))
		return gw_cli_fail();
	json_decref(result);
	return 0;
}
