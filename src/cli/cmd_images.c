// SPDX-License-Identifier: GPL-2.0-or-later
/* cmd_images.c - images: the memory that VMs left on this host. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "cleanup.h"
#include "cli.h"
#include "error.h"
#include "io.h"

static const char help[] =
	"usage: godwit images [--json]\n"
	"       godwit images pin|unpin|rm NAME...\n"
	"       godwit images gc [--json]\n"
	"\n"
	"Show the memory that VMs left on this host when they moved away: where it still holds\n"
	"when a VM comes back, it need not travel again. Or, of the images of the VMs NAME:\n"
	"\n"
	"  pin     keep them, whatever the quotas\n"
	"  unpin   no longer\n"
	"  rm      remove them, pinned or not\n"
	"  gc      remove what is damaged or left over, and keep within the quotas (godwitd does\n"
	"          so by itself when it starts and when a VM leaves)\n"
	"\n"
	"  --json  print the result as JSON\n";

static char *format_age(int64_t seconds, char *buf, size_t len)
{
	static const struct {
		int64_t seconds;
		const char *unit;
	} units[] = { { 86400, "d" }, { 3600, "h" }, { 60, "min" }, { 1, "s" } };
	size_t i = 0;

	if (seconds < 0)
		seconds = 0; /* the clock was set back */
	while (i + 1 < GW_ARRAY_SIZE(units) && seconds < units[i].seconds)
		i++;
	snprintf(buf, len, "%" PRId64 " %s", seconds / units[i].seconds, units[i].unit);
	return buf;
}

static int64_t integer(const json_t *image, const char *key)
{
	return json_integer_value(json_object_get(image, key));
}

static void print_table(const json_t *list)
{
	const int64_t now = time(NULL);
	const json_t *image;
	size_t i;

	printf("%-20s %8s %9s %10s %10s  %-6s  %s\n", "NAME", "LEFT", "DEPARTURE", "MEMORY", "KEPT",
	       "PLACE", "PINNED");
	json_array_foreach(list, i, image) {
		char age[32], memory[32], kept[32];

		printf("%-20s %8s %9" PRId64 " %10s %10s  %-6s  %s\n",
		       json_string_value(json_object_get(image, "name")),
		       format_age(now - integer(image, "left"), age, sizeof(age)),
		       integer(image, "departure"),
		       gw_format_size((uint64_t)integer(image, "memory"), memory, sizeof(memory)),
		       gw_format_size((uint64_t)integer(image, "bytes"), kept, sizeof(kept)),
		       json_string_value(json_object_get(image, "place")),
		       json_is_true(json_object_get(image, "pinned")) ? "yes" : "no");
	}
}

/* Whether @action is one, and takes names or not as @names says. */
static const char *complaint(const char *action, int names)
{
	static const char *const with_names[] = { "pin", "unpin", "rm" };

	for (size_t i = 0; i < GW_ARRAY_SIZE(with_names); i++)
		if (!strcmp(action, with_names[i]))
			return names ? NULL : "NAME is needed";
	if (strcmp(action, "list") != 0 && strcmp(action, "gc") != 0)
		return "it is pin, unpin, rm or gc";
	return names ? "it takes no names" : NULL;
}

int gw_cmd_images(int argc, char **argv)
{
	static const struct option longs[] = { { "json", 0, NULL, 'j' },
					       { "help", 0, NULL, 'h' },
					       { NULL, 0, NULL, 0 } };
	struct gw_call call = { .command = "images" };
	const char *action = NULL, *wrong;
	json_t *names = json_array(), *result;
	bool json = false;

	for (;;) {
		while (gw_cli_options(argc, argv, longs, help) != -1)
			json = true;
		if (action || optind >= argc)
			break;
		action = argv[optind++];
	}
	action = action ? action : "list";
	wrong = complaint(action, argc - optind);
	for (; optind < argc; optind++)
		json_array_append_new(names, json_string(argv[optind]));
	if (wrong) {
		json_decref(names);
		return gw_cli_usage("images", wrong);
	}
	call.args = json_pack("{s:s,s:o}", "action", action, "names", names);
	if (gw_cli_call(&call, &result))
		return gw_cli_fail();
	if (json) {
		gw_cli_print(result);
		return 0;
	}
	if (!strcmp(action, "list")) {
		print_table(result);
	} else if (!strcmp(action, "gc")) {
		char freed[32];

		printf("%s freed\n",
		       gw_format_size((uint64_t)integer(result, "freed"), freed, sizeof(freed)));
	}
	json_decref(result);
	return 0;
}
