// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * facts.c - runs probes of track/probe.h, and says what came out.
 *
 *   facts FACT          one fact on a memfd
 *   facts FACT --huge   the same on a tmpfs of huge pages, as Godwit's RAM files are
 *   facts --tracker     good if one of the trackers (F2, F4) works and the other
 *                       does not misbehave
 *   facts --all         each fact on one line "godwit-probe: FACT VERDICT in MS ms: ...",
 *                       then "godwit-probe: done"; for a guest's console
 *
 * Exit status: 0, or 1 if what was asked for is not there; 77 where no huge
 * pages are to be had.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "cleanup.h"
#include "clock.h"
#include "error.h"
#include "probe.h"

#define SKIP 77 /* meson's "skipped" */

static int run(const struct gw_probe *p, int ram_fd, const char *prefix)
{
	int64_t began = gw_now();
	int rc = p->run(ram_fd);

	printf("%s%s %s in %.1f ms: %s\n", prefix, p->fact, gw_probe_verdict(rc),
	       (double)(gw_now() - began) / GW_MS, rc ? gw_error() : p->title);
	fflush(stdout);
	return rc;
}

static int run_all(void)
{
	struct utsname kernel;

	uname(&kernel);
	printf("godwit-probe: kernel %s\n", kernel.release);
	for (size_t i = 0; i < gw_nr_probes; i++)
		run(&gw_probes[i], -1, "godwit-probe: ");
	printf("godwit-probe: done\n");
	return 0;
}

static int run_tracker(void)
{
	int uffd = run(gw_probe_find("F2"), -1, "");
	int soft = run(gw_probe_find("F4"), -1, "");
	bool sane = (!uffd || uffd == -ENOTSUP) && (!soft || soft == -ENOTSUP);

	return !(sane && (!uffd || !soft));
}

/* A file in a tmpfs that is mounted nowhere, and gone with its last descriptor. */
static int open_huge(void)
{
	gw_autofd int fs = fsopen("tmpfs", FSOPEN_CLOEXEC);
	gw_autofd int mount = -1;

	if (fs < 0 || fsconfig(fs, FSCONFIG_SET_STRING, "huge", "within_size", 0) ||
	    fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0))
		return -1;
	mount = fsmount(fs, FSMOUNT_CLOEXEC, 0);
	return mount < 0 ? -1 : openat(mount, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
}

int main(int argc, char **argv)
{
	gw_autofd int fd = -1;
	const struct gw_probe *p;
	bool huge = argc == 3 && !strcmp(argv[2], "--huge");

	if (argc == 2 && !strcmp(argv[1], "--all"))
		return run_all();
	if (argc == 2 && !strcmp(argv[1], "--tracker"))
		return run_tracker();
	p = argc == 2 || huge ? gw_probe_find(argv[1]) : NULL;
	if (!p) {
		fprintf(stderr, "usage: facts FACT [--huge] | --tracker | --all\n");
		return 2;
	}
	if (huge) {
		fd = open_huge();
		if (fd < 0) {
			printf("skipped: no tmpfs with huge pages: %s\n", strerror(errno));
			return SKIP;
		}
	}
	return run(p, fd, "") != 0;
}
