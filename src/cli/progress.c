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
	uint64_t faults; /* at @faults_ns, and how many more a second since the time before */
	int64_t faults_ns;
	double faults_per_s;
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
	const json_t *rounds = json_object_get(json_object_get(status, "godwit"), "rounds");
	const json_t *last = json_array_get(rounds, json_array_size(rounds) - 1);

	text[0] = '\0';
	if (last)
		snprintf(text, len, ", round %llu: %llu pages due, %llu unchanged",
			 (unsigned long long)bytes_of(last, "round"),
			 (unsigned long long)bytes_of(last, "pages"),
			 (unsigned long long)bytes_of(last, "same"));
}

/* The guest runs there, and its memory follows: what is still to come, and what it waits for. */
static void postcopy_line(struct gw_progress *p, const json_t *ram, const char *waits_for,
			  char *text, size_t len)
{
	const uint64_t faults = bytes_of(ram, "postcopy-requests");
	const int64_t now = gw_now();
	char left[32];

	if (p->faults_ns && now - p->faults_ns >= GW_S)
		p->faults_per_s = (double)(faults - p->faults) * GW_S /
				  (double)(now - p->faults_ns);
	if (!p->faults_ns || now - p->faults_ns >= GW_S) {
		p->faults = faults;
		p->faults_ns = now;
	}
	gw_format_size(bytes_of(ram, "remaining"), left, sizeof(left));
	snprintf(text, len, "%s left, %.0f Mbit/s, %.0f faults/s%s%s", left,
		 json_real_value(json_object_get(ram, "mbps")), p->faults_per_s,
		 waits_for ? "; cannot be reached: " : "", waits_for ? waits_for : "");
}

void gw_progress_show(void *progress, const json_t *status)
{
	struct gw_progress *p = progress;
	const json_t *ram = json_object_get(status, "ram");
	const char *waits_for =
		json_string_value(json_object_get(json_object_get(status, "godwit"), "waits-for"));
	struct winsize size = { .ws_col = 0 };
	const char *is = json_string_value(json_object_get(status, "status")) ?: "";
	char line[400], sent[32], left[32], round[100], postcopy[240];
	int n;

	if (!p)
		return;
	gw_format_size(bytes_of(ram, "transferred"), sent, sizeof(sent));
	gw_format_size(bytes_of(ram, "remaining"), left, sizeof(left));
	gw_progress_round(status, round, sizeof(round));
	n = snprintf(line, sizeof(line),
		     "%s to %s: %s, round %d, %s sent, %s left, %.0f Mbit/s, expected downtime "
		     "%.0f ms%s",
		     p->name, p->address, is, (int)bytes_of(ram, "dirty-sync-count") + 1, sent,
		     left, json_real_value(json_object_get(ram, "mbps")),
		     json_real_value(json_object_get(status, "expected-downtime")), round);
	if (!strncmp(is, "postcopy-", 9)) {
		postcopy_line(p, ram, waits_for, postcopy, sizeof(postcopy));
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
