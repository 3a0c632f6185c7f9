// SPDX-License-Identifier: GPL-2.0-or-later
/* progress.c - a migration as one line on a terminal. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "cleanup.h"
#include "cli.h"
#include "clock.h"
#include "io.h"

struct gw_progress {
	int fd;
	bool terminal;
	char name[80], address[80];
	bool shown;
};

struct gw_progress *gw_progress_new(int fd, bool forced, const char *name, const char *address)
{
	struct gw_progress *p;

	if (!forced && !isatty(fd))
		return NULL;
	p = calloc(1, sizeof(*p));
	if (!p)
		return NULL;
	p->fd = fd;
	p->terminal = isatty(fd);
	snprintf(p->name, sizeof(p->name), "%s", name);
	snprintf(p->address, sizeof(p->address), "%s", address);
	return p;
}

static uint64_t bytes_of(const json_t *ram, const char *key)
{
	return (uint64_t)json_integer_value(json_object_get(ram, key));
}

void gw_progress_round(const json_t *status, char *text, size_t len)
{
	const json_t *godwit = json_object_get(status, "godwit");
	const json_t *rounds = json_object_get(godwit, "rounds");
	const json_t *last = json_array_get(rounds, json_array_size(rounds) - 1);
	const json_t *set = json_object_get(godwit, "working-set");
	const uint64_t wait = bytes_of(set, "waits"), windows = bytes_of(set, "windows");
	char waits[48] = "";

	text[0] = '\0';
	if (wait)
		snprintf(waits, sizeof(waits), ", %llu wait", (unsigned long long)wait);
	if (last)
		snprintf(text, len, ", round %llu: %llu pages due, %llu unchanged%s",
			 (unsigned long long)bytes_of(last, "round"),
			 (unsigned long long)bytes_of(last, "pages"),
			 (unsigned long long)bytes_of(last, "same"), waits);
	else if (windows)
		snprintf(text, len, ", looked %llu times what it uses",
			 (unsigned long long)windows);
}

bool gw_progress_postcopy(const json_t *status, char *text, size_t len)
{
	const json_t *ram = json_object_get(status, "ram");
	const char *is = json_string_value(json_object_get(status, "status")) ?: "";
	const char *waits_for =
		json_string_value(json_object_get(json_object_get(status, "godwit"), "waits-for"));
	char left[32], mbps[40];

	if (strncmp(is, "postcopy-", 9) != 0)
		return false;
	snprintf(mbps, sizeof(mbps), ", %.0f Mbit/s",
		 json_real_value(json_object_get(ram, "mbps")));
	gw_format_size(bytes_of(ram, "remaining"), left, sizeof(left));
	snprintf(text, len, "%s left%s, %llu faults/s, each %.1f ms%s%s", left,
		 json_object_get(ram, "mbps") ? mbps : "",
		 (unsigned long long)bytes_of(ram, "postcopy-faults-per-second"),
		 (double)bytes_of(ram, "postcopy-latency") / GW_MS,
		 waits_for ? "; cannot be reached: " : "", waits_for ? waits_for : "");
	return true;
}

void gw_progress_show(void *progress, const json_t *status)
{
	struct gw_progress *p = progress;
	const json_t *ram = json_object_get(status, "ram"), *disk = json_object_get(status, "disk");
	const char *waits_for =
		json_string_value(json_object_get(json_object_get(status, "godwit"), "waits-for"));
	struct winsize size = { .ws_col = 0 };
	const char *is = json_string_value(json_object_get(status, "status")) ?: "";
	char line[400], sent[32], left[32], round[100], spread[80], postcopy[240];
	int n;

	if (!p)
		return;
	gw_format_size(bytes_of(ram, "transferred"), sent, sizeof(sent));
	gw_format_size(bytes_of(ram, "remaining"), left, sizeof(left));
	gw_progress_round(status, round, sizeof(round));
	gw_progress_spread(status, spread, sizeof(spread));
	n = snprintf(line, sizeof(line),
		     "%s to %s: %s, round %d, %s sent%s, %s left, %.0f Mbit/s, expected downtime "
		     "%.0f ms%s",
		     p->name, p->address, is, (int)bytes_of(ram, "dirty-sync-count") + 1, sent,
		     spread, left, json_real_value(json_object_get(ram, "mbps")),
		     json_real_value(json_object_get(status, "expected-downtime")), round);
	if (!strcmp(is, "setup") && disk) {
		gw_format_size(bytes_of(disk, "transferred"), sent, sizeof(sent));
		gw_format_size(bytes_of(disk, "total"), left, sizeof(left));
		n = snprintf(line, sizeof(line), "%s to %s: copying its disks, %s of %s", p->name,
			     p->address, sent, left);
	}
	if (gw_progress_postcopy(status, postcopy, sizeof(postcopy))) {
		n = snprintf(line, sizeof(line), "%s to %s: %s, %s", p->name, p->address, is,
			     postcopy);
	} else if (waits_for) {
		n = snprintf(line, sizeof(line), "%s to %s: %s, the destination is %s", p->name,
			     p->address, is, waits_for);
	}
	/* A line that wraps cannot be drawn over. */
	if (p->terminal && !ioctl(p->fd, TIOCGWINSZ, &size) && size.ws_col && n >= size.ws_col)
		line[size.ws_col - 1] = '\0';
	dprintf(p->fd, p->terminal ? "\r\033[K%s" : "%s\n", line);
	p->shown = true;
}

void gw_progress_free(struct gw_progress *p)
{
	if (p && p->shown && p->terminal)
		dprintf(p->fd, "\r\033[K");
	free(p);
}
