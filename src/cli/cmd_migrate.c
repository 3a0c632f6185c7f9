// SPDX-License-Identifier: GPL-2.0-or-later
/* cmd_migrate.c - migrate, status, cancel, recover. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "address.h"
#include "cleanup.h"
#include "cli.h"
#include "error.h"
#include "io.h"

static const char migrate_help[] =
	"usage: godwit migrate NAME IP:PORT [options]\n"
	"\n"
	"Move a running VM to the host whose godwitd listens on IP:PORT. Waits, and shows\n"
	"progress on a terminal; Ctrl-C cancels and the guest runs on here. Whatever fails before\n"
	"the very end leaves the guest running here.\n"
	"\n"
	"  --downtime-limit MS    switch over when the guest's pause would be no longer (300)\n"
	"  --max-bandwidth SIZE   bytes per second on the network, e.g. 50M (no limit)\n"
	"  --streams N            parallel connections, a thread each (half the processors, 2 to 8)\n"
	"  --compress METHOD      auto, none, lz4 or zstd (auto: while the network is the slower)\n"
	"  --delta-cache SIZE     keep so many bytes of sent pages here, to send only what changed\n"
	"                         in them later; 0 for none (64M)\n"
	"  --hash HASH            of pages, to know unchanged ones: gmac (default), xxh3, sha1,\n"
	"                         md5, crc32 or murmur3; only gmac is safe from a guest\n"
	"  --no-zero, --no-fake-dirty, --no-duplicate\n"
	"                         send zero pages, written but unchanged pages, or copies of other\n"
	"                         pages in full: to see what each is worth\n"
	"  --no-reuse             do not use what the destination kept of this VM's memory, and\n"
	"                         keep nothing here\n"
	"  --postcopy WHEN        auto: where rounds alone do not get there, the guest goes before its\n"
	"                         memory, which follows; now: without any round; never (default).\n"
	"                         Once it runs there nothing takes it back\n"
	"  --postcopy-after N     with auto: after so many rounds at the latest\n"
	"  --working-set WHICH    pages that are expected to be written again wait for the end: auto\n"
	"                         (default: where it costs no time), off, or predicted by lru or\n"
	"                         lru-splay, of what is accessed in a while before the first round\n"
	"  --preprocess MS        with these two: how long that while may be at most (500)\n"
	"  --teleport[=WHICH]     pages that lie on a disk, too, which the destination has, are read\n"
	"                         there. Who knows which: agent, of the guest; index, of what the\n"
	"                         disks' images hold, kept on this host; auto, the one or else the\n"
	"                         other (if nothing is said); off (default)\n"
	"  --disk-map DISK=PATH[,...]\n"
	"                         with --teleport, which it implies: this disk's pages are read there\n"
	"                         from a replica of it, of those that its operator allows; godwit(1)\n"
	"  --copy-storage[=HOW]   copy the VM's disks, too, into images that are made there: new (if\n"
	"                         nothing is said), where there may be none of that name yet, or\n"
	"                         overwrite, which replaces what is there\n"
	"  --split HOST:PORT[=SIZE][,...]\n"
	"                         leave memory at these hosts, on its way: what the guest uses least.\n"
	"                         It runs there like one that was split; see godwit split\n"
	"  --split auto:N         the N hosts of the registry that may hold most (godwit hosts)\n"
	"  --main-memory SIZE     with --split: what may come to IP:PORT itself, e.g. 2G\n"
	"  --chunk-pages N        with --split: 256 or 512 pages stay together (512)\n"
	"  --replicas 2           with --split: each page goes to two of these hosts, one of which may die\n"
	"  --history-period MS    with --split: how often to look which pages are used (1000)\n"
	"  --history-shift N      with --split: there a use counts half as much after N periods (10)\n"
	"  --verify               compare all memory of both hosts while the guest is stopped, and\n"
	"                         fail, with the guest running here, unless it is equal\n"
	"  --progress-fd N        write the progress line to descriptor N, terminal or not\n"
	"  --json                 print the result as one JSON object\n";

enum {
	OPT_DOWNTIME = 256,
	OPT_BANDWIDTH,
	OPT_STREAMS,
	OPT_VERIFY,
	OPT_PROGRESS,
	OPT_COMPRESS,
	OPT_DELTA_CACHE,
	OPT_HASH,
	OPT_NO_ZERO,
	OPT_NO_FAKE_DIRTY,
	OPT_NO_DUPLICATE,
	OPT_NO_REUSE,
	OPT_POSTCOPY,
	OPT_POSTCOPY_AFTER,
	OPT_WORKING_SET,
	OPT_PREPROCESS,
	OPT_TELEPORT,
	OPT_COPY_STORAGE,
	OPT_DISK_MAP,
	OPT_SPLIT,
};

struct migrate {
	const char *name, *address;
	json_t *args;
	bool json;
	int progress_fd;
};

/* DISK=PATH[,...], beside those of the same option before. */
static int add_replicas(json_t *args, const char *text)
{
	json_t *map = json_object_get(args, "disk-map");

	if (!map) {
		map = json_object();
		json_object_set_new(args, "disk-map", map);
	}
	for (const char *at = text; *at;) {
		const size_t len = strcspn(at, ","), disk = strcspn(at, "=");
		gw_autofree char *name = gw_path("%.*s", (int)disk, at);

		if (!disk || disk + 1 >= len)
			return gw_fail(-EINVAL, "--disk-map is DISK=PATH[,...], not '%s'", text);
		json_object_set_new(map, name, json_stringn(at + disk + 1, len - disk - 1));
		at += len;
		at += *at == ',';
	}
	return json_object_size(map) ? 0 : gw_fail(-EINVAL, "--disk-map needs DISK=PATH");
}

static int take_option(struct migrate *m, int opt)
{
	uint64_t size = 0;
	long value = 0;
	int rc = 0;

	switch (opt) {
	case OPT_DOWNTIME:
		rc = gw_cli_number(optarg, 1, 3600000, &value);
		json_object_set_new(m->args, "downtime-limit", json_integer(value));
		break;
	case OPT_STREAMS:
		rc = gw_cli_number(optarg, 1, 64, &value);
		json_object_set_new(m->args, "streams", json_integer(value));
		break;
	case OPT_BANDWIDTH:
		rc = gw_parse_size(optarg, &size);
		json_object_set_new(m->args, "max-bandwidth", json_integer((json_int_t)size));
		break;
	case OPT_VERIFY:
		json_object_set_new(m->args, "verify", json_true());
		break;
	case OPT_COMPRESS:
		json_object_set_new(m->args, "compress", json_string(optarg));
		break;
	case OPT_DELTA_CACHE:
		rc = !strcmp(optarg, "0") ? 0 : gw_parse_size(optarg, &size);
		json_object_set_new(m->args, "delta-cache", json_integer((json_int_t)size));
		break;
	case OPT_HASH:
		json_object_set_new(m->args, "hash", json_string(optarg));
		break;
	case OPT_NO_ZERO:
		json_object_set_new(m->args, "no-zero", json_true());
		break;
	case OPT_NO_FAKE_DIRTY:
		json_object_set_new(m->args, "no-fake-dirty", json_true());
		break;
	case OPT_NO_DUPLICATE:
		json_object_set_new(m->args, "no-duplicate", json_true());
		break;
	case OPT_NO_REUSE:
		json_object_set_new(m->args, "no-reuse", json_true());
		break;
	case OPT_POSTCOPY:
		json_object_set_new(m->args, "postcopy", json_string(optarg));
		break;
	case OPT_POSTCOPY_AFTER:
		rc = gw_cli_number(optarg, 1, 1000000, &value);
		json_object_set_new(m->args, "postcopy-after", json_integer(value));
		break;
	case OPT_WORKING_SET:
		json_object_set_new(m->args, "working-set", json_string(optarg));
		break;
	case OPT_PREPROCESS:
		rc = gw_cli_number(optarg, 1, 60000, &value);
		json_object_set_new(m->args, "preprocess", json_integer(value));
		break;
	case OPT_TELEPORT:
		json_object_set_new(m->args, "teleport", json_string(optarg ? optarg : "auto"));
		break;
	case OPT_COPY_STORAGE:
		json_object_set_new(m->args, "copy-storage", json_string(optarg ? optarg : "new"));
		break;
	case OPT_DISK_MAP:
		return add_replicas(m->args, optarg);
	case OPT_SPLIT:
		return gw_split_option('t', "--split", m->args);
	case 'm':
	case 'c':
	case 'p':
	case 'r':
	case 's':
		return gw_split_option((char)opt, "", m->args);
	case OPT_PROGRESS:
		rc = gw_cli_number(optarg, 0, 65535, &value);
		m->progress_fd = (int)value;
		break;
	default:
		m->json = true;
		break;
	}
	return rc;
}

/* What the destination had kept, for people: ", 1.2 GiB reused", or nothing. */
static void print_reused(const json_t *godwit, char *text, size_t len)
{
	const json_t *reuse = json_object_get(godwit, "reuse");
	const json_int_t saved = json_integer_value(json_object_get(reuse, "page-bytes-saved")) +
				 json_integer_value(json_object_get(reuse, "block-bytes-saved"));
	char size[32];

	text[0] = '\0';
	if (saved > 0)
		snprintf(text, len, ", %s reused",
			 gw_format_size((uint64_t)saved, size, sizeof(size)));
}

static void print_summary(const struct migrate *m, const json_t *result)
{
	const json_t *ram = json_object_get(result, "ram");
	const json_t *godwit = json_object_get(result, "godwit");
	char sent[32], total[32], reused[64];
	const json_t *one;
	size_t i;

	gw_format_size((uint64_t)json_integer_value(json_object_get(ram, "transferred")), sent,
		       sizeof(sent));
	gw_format_size((uint64_t)json_integer_value(json_object_get(ram, "total")), total,
		       sizeof(total));
	print_reused(godwit, reused, sizeof(reused));
	printf("%s moved to %s in %.2f s: %s sent for %s of memory in %d rounds%s, downtime %.1f "
	       "ms%s\n",
	       m->name, m->address,
	       (double)json_integer_value(json_object_get(result, "total-time")) / 1000, sent,
	       total, (int)json_integer_value(json_object_get(ram, "dirty-sync-count")), reused,
	       json_real_value(json_object_get(result, "downtime")),
	       json_is_true(json_object_get(godwit, "verified")) ? ", verified" : "");
	json_array_foreach(json_object_get(json_object_get(godwit, "sub-hosts"), "holders"), i,
			   one) {
		gw_format_size((uint64_t)json_integer_value(json_object_get(one, "pages")) * 4096,
			       sent, sizeof(sent));
		printf("  %-24s %10s\n", json_string_value(json_object_get(one, "address")), sent);
	}
}

static int migrate(struct migrate *m)
{
	struct gw_progress *progress = gw_progress_new(m->progress_fd < 0 ? STDERR_FILENO
									  : m->progress_fd,
						       m->progress_fd >= 0, m->name, m->address);
	struct gw_call call = { .command = "migrate",
				.args = m->args,
				.on_progress = gw_progress_show,
				.arg = progress,
				.cancel_name = m->name };
	json_t *result;
	int rc = gw_cli_call(&call, &result);

	gw_progress_free(progress);
	if (rc) {
		if (m->json)
			gw_cli_print(call.status ? json_incref(call.status)
						 : json_pack("{s:s,s:s}", "status", "failed",
							     "error-desc", gw_error()));
		json_decref(call.status);
		return gw_cli_fail();
	}
	if (m->json) {
		gw_cli_print(result);
		return 0;
	}
	print_summary(m, result);
	if (json_object_get(result, "error-desc"))
		fprintf(stderr, "godwit: %s\n",
			json_string_value(json_object_get(result, "error-desc")));
	json_decref(result);
	return 0;
}

int gw_cmd_migrate(int argc, char **argv)
{
	static const struct option longs[] = {
		{ "downtime-limit", 1, NULL, OPT_DOWNTIME },
		{ "max-bandwidth", 1, NULL, OPT_BANDWIDTH },
		{ "streams", 1, NULL, OPT_STREAMS },
		{ "compress", 1, NULL, OPT_COMPRESS },
		{ "delta-cache", 1, NULL, OPT_DELTA_CACHE },
		{ "hash", 1, NULL, OPT_HASH },
		{ "no-zero", 0, NULL, OPT_NO_ZERO },
		{ "no-fake-dirty", 0, NULL, OPT_NO_FAKE_DIRTY },
		{ "no-duplicate", 0, NULL, OPT_NO_DUPLICATE },
		{ "no-reuse", 0, NULL, OPT_NO_REUSE },
		{ "postcopy", 1, NULL, OPT_POSTCOPY },
		{ "postcopy-after", 1, NULL, OPT_POSTCOPY_AFTER },
		{ "working-set", 1, NULL, OPT_WORKING_SET },
		{ "preprocess", 1, NULL, OPT_PREPROCESS },
		{ "teleport", 2, NULL, OPT_TELEPORT },
		{ "copy-storage", 2, NULL, OPT_COPY_STORAGE },
		{ "disk-map", 1, NULL, OPT_DISK_MAP },
		{ "split", 1, NULL, OPT_SPLIT },
		{ "main-memory", 1, NULL, 'm' },
		{ "chunk-pages", 1, NULL, 'c' },
		{ "replicas", 1, NULL, 'r' },
		{ "history-period", 1, NULL, 'p' },
		{ "history-shift", 1, NULL, 's' },
		{ "verify", 0, NULL, OPT_VERIFY },
		{ "progress-fd", 1, NULL, OPT_PROGRESS },
		{ "json", 0, NULL, 'j' },
		{ "help", 0, NULL, 'h' },
		{ NULL, 0, NULL, 0 },
	};
	struct migrate m = { .args = json_object(), .progress_fd = -1 };
	int opt;

	for (;;) {
		while ((opt = gw_cli_options(argc, argv, longs, migrate_help)) != -1) {
			if (take_option(&m, opt)) {
				json_decref(m.args);
				return gw_cli_usage("migrate", gw_error());
			}
		}
		if (optind >= argc || m.address)
			break;
		if (!m.name)
			m.name = argv[optind++];
		else
			m.address = argv[optind++];
	}
	if (!m.address || optind < argc) {
		json_decref(m.args);
		return gw_cli_usage("migrate", "NAME and IP:PORT are needed");
	}
	if (gw_address_check(m.address, false)) {
		json_decref(m.args);
		return gw_cli_usage("migrate", gw_error());
	}
	json_object_set_new(m.args, "name", json_string(m.name));
	json_object_set_new(m.args, "address", json_string(m.address));
	return migrate(&m);
}

static const char status_help[] =
	"usage: godwit status NAME [--json]\n"
	"\n"
	"Show the migration of a VM that is under way, or its last one on this host. The JSON has\n"
	"the fields of QMP's query-migrate and an object \"godwit\"; see godwit(1).\n";

static void print_status(const char *name, const json_t *status)
{
	const char *error = json_string_value(json_object_get(status, "error-desc"));
	const json_t *ram = json_object_get(status, "ram");
	char sent[32], left[32], round[100], spread[80], text[240];

	printf("%s: %s", name, json_string_value(json_object_get(status, "status")));
	if (gw_progress_postcopy(status, text, sizeof(text)) ||
	    gw_progress_split(status, text, sizeof(text))) {
		printf(", %s", text);
	} else if (ram) {
		gw_format_size((uint64_t)json_integer_value(json_object_get(ram, "transferred")),
			       sent, sizeof(sent));
		gw_format_size((uint64_t)json_integer_value(json_object_get(ram, "remaining")),
			       left, sizeof(left));
		gw_progress_round(status, round, sizeof(round));
		gw_progress_spread(status, spread, sizeof(spread));
		printf(", %.1f s, %s sent%s, %s of this round left, %d rounds, %.0f Mbit/s%s",
		       (double)json_integer_value(json_object_get(status, "total-time")) / 1000,
		       sent, spread, left,
		       (int)json_integer_value(json_object_get(ram, "dirty-sync-count")),
		       json_real_value(json_object_get(ram, "mbps")), round);
	}
	printf("%s%s\n", error ? ": " : "", error ? error : "");
	gw_print_split(status);
}

int gw_cmd_status(int argc, char **argv)
{
	static const struct option longs[] = { { "json", 0, NULL, 'j' },
					       { "help", 0, NULL, 'h' },
					       { NULL, 0, NULL, 0 } };
	struct gw_call call = { .command = "status" };
	const char *name = NULL;
	bool json = false;
	json_t *result;

	for (;;) {
		while (gw_cli_options(argc, argv, longs, status_help) != -1)
			json = true;
		if (name || optind >= argc)
			break;
		name = argv[optind++];
	}
	if (!name || optind < argc)
		return gw_cli_usage("status", "one NAME is needed");
	call.args = json_pack("{s:s}", "name", name);
	if (gw_cli_call(&call, &result))
		return gw_cli_fail();
	if (json) {
		gw_cli_print(result);
		return 0;
	}
	print_status(name, result);
	json_decref(result);
	return 0;
}

static const char cancel_help[] =
	"usage: godwit cancel NAME\n"
	"\n"
	"End a VM's migration that is under way; the guest runs on where it runs. Fails once the\n"
	"destination has been told to take over: then the migration completes.\n";

int gw_cmd_cancel(int argc, char **argv)
{
	static const struct option longs[] = { { "help", 0, NULL, 'h' }, { NULL, 0, NULL, 0 } };
	struct gw_call call = { .command = "cancel" };
	json_t *result;

	while (gw_cli_options(argc, argv, longs, cancel_help) != -1)
		;
	if (optind != argc - 1)
		return gw_cli_usage("cancel", "one NAME is needed");
	call.args = json_pack("{s:s}", "name", argv[optind]);
	if (gw_cli_call(&call, &result))
		return gw_cli_fail();
	json_decref(result);
	return 0;
}

static const char recover_help[] =
	"usage: godwit recover NAME [--resume | --discard] [--confirm] [--json]\n"
	"\n"
	"Settle a migration whose last answer was lost, so that the guest is stopped here and\n"
	"nobody knows whether it runs at the destination. Asks the destination, whose answer is\n"
	"final: the guest then resumes here, or its remains here are removed.\n"
	"\n"
	"Where the destination does not know, you decide; it is told first:\n"
	"  --resume   resume it here, once its QEMU there is dead. Refused if it runs there\n"
	"  --discard  remove what is left here. Refused if it never ran there\n"
	"  --confirm  the destination says nothing, or not enough, and you vouch for it: that it\n"
	"             runs there neither now nor later (with --resume), or that what is here may be\n"
	"             lost (with --discard)\n"
	"A guest that runs on two hosts destroys its disks. So does one that is resumed with memory\n"
	"from before it wrote to them: a VM that is lost (post-copy: it had run there, and is gone)\n"
	"is resumed only with --confirm, by who has put its disks back, too; --discard removes it.\n"
	"\n"
	"godwitd puts right by itself what needs no decision, and tries until it succeeds (state\n"
	"'recovering' in godwit list); the command tries at once, and says what is in the way. At a\n"
	"destination whose source is gone for good, --resume --confirm resumes an arrival that is\n"
	"in-doubt, and --discard removes it. --json: \"outcome\" is resumed, moved, running (an\n"
	"arrival that runs here now), removed, or serving (post-copy: it runs there, and what it\n"
	"lacks of its memory is brought from here).\n";

int gw_cmd_recover(int argc, char **argv)
{
	static const struct option longs[] = {
		{ "resume", 0, NULL, 'r' },  { "discard", 0, NULL, 'd' },
		{ "confirm", 0, NULL, 'c' }, { "json", 0, NULL, 'j' },
		{ "help", 0, NULL, 'h' },    { NULL, 0, NULL, 0 }
	};
	struct gw_call call = { .command = "recover" };
	const char *name = NULL, *outcome = NULL;
	bool json = false, confirm = false;
	json_t *result;
	int opt;

	for (;;) {
		while ((opt = gw_cli_options(argc, argv, longs, recover_help)) != -1) {
			if (opt == 'j')
				json = true;
			else if (opt == 'c')
				confirm = true;
			else if (outcome)
				return gw_cli_usage("recover", "--resume or --discard, not both");
			else
				outcome = opt == 'r' ? "resume" : "discard";
		}
		if (name || optind >= argc)
			break;
		name = argv[optind++];
	}
	if (!name || optind < argc)
		return gw_cli_usage("recover", "one NAME is needed");
	if (confirm && !outcome)
		return gw_cli_usage("recover", "--confirm belongs to --resume or --discard");
	call.args = json_pack("{s:s,s:s*,s:b}", "name", name, "outcome", outcome, "confirm",
			      confirm);
	if (gw_cli_call(&call, &result))
		return gw_cli_fail();
	if (json) {
		gw_cli_print(result);
		return 0;
	}
	outcome = json_string_value(json_object_get(result, "outcome"));
	printf("%s: %s\n", name,
	       !strcmp(outcome, "moved")
		       ? "it runs at the destination; its remains here are removed"
	       : !strcmp(outcome, "serving")
		       ? "it runs at the destination, which gets what it lacks of its memory from "
			 "here; see godwit status"
	       : !strcmp(outcome, "removed") ? "it does not run here; what had arrived is removed"
					     : "it runs here");
	json_decref(result);
	return 0;
}
