/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Entry of the guest's multi-call binary, and what its programs share.
 *
 * The name it is called by selects the program: /bin/memtest and so on are
 * links to it (see mkguest).
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "guest.h"

static const struct program {
	const char *name;
	int (*main)(int argc, char **argv);
	const char *usage;
} programs[] = {
	{ "memtest", memtest_main, "MIB [SEED]" },
	{ "fill", fill_main, "MIB [SEED]" },
	{ "text", text_main, "MIB [SEED]" },
	{ "wset", wset_main, "MIB RATE_MIB_S FAKE_PERCENT [SAME]" },
	{ "same", same_main, "MIB" },
	{ "flip", flip_main, "MIB RATE_MIB_S" },
	{ "latency", latency_main, "MIB RATE_MIB_S" },
	{ "copier", copier_main, "MIB" },
	{ "quicksort", quicksort_main, "MIB" },
	{ "busy", busy_main, "[MIB]" },
	{ "cpu", cpu_main, "[LIMIT]" },
	{ "diskio", diskio_main, "DEV [MIB]" },
	{ "stream", stream_main, "FOLDER MIB RATE_MIB_S" },
	{ "churn", churn_main, "FOLDER [FILES]" },
	{ "linear", linear_main, "NAME [DEV [SECTOR]]" },
	{ "encrypt", encrypt_main, "FOLDER" },
#ifdef GUEST_SERVERS
	{ "shop", shop_main, "FILE WAREHOUSES RATE [PERCENT]" },
#endif
	{ "served", served_main, "" },
	{ "execd", execd_main, "" },
	{ "reaper", reaper_main, "" },
};

static const struct program *current;

void die(int error, const char *format, ...)
{
	char text[256];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	fflush(stdout);
	if (error)
		fprintf(stderr, "%s: %s: %s\n", current->name, text, strerror(error));
	else
		fprintf(stderr, "%s: %s\n", current->name, text);
	exit(EXIT_FAILURE);
}

uint64_t argument(int argc, char **argv, int index, const char *name, uint64_t min, uint64_t max,
		  int64_t fallback)
{
	unsigned long long value;
	char *end;

	if (index >= argc) {
		if (fallback < 0 || (uint64_t)fallback < min)
			die(0, "%s is missing; usage: %s %s", name, current->name, current->usage);
		return fallback;
	}
	errno = 0;
	value = strtoull(argv[index], &end, 0);
	if (errno || end == argv[index] || *end || value < min || value > max)
		die(0, "%s must be a number from %llu to %llu, not '%s'", name,
		    (unsigned long long)min, (unsigned long long)max, argv[index]);
	return value;
}

void *map_pages(size_t pages)
{
	size_t size = pages * PAGE_SIZE;
	void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (memory == MAP_FAILED)
		die(errno, "no memory for %zu pages", pages);
	/*
	 * Huge pages from the start: filling is several times faster under
	 * TCG, and khugepaged finds nothing left to copy about later, which
	 * would be writes that no workload asked for. Without them all works.
	 */
	madvise(memory, size, MADV_HUGEPAGE);
	return memory;
}

void go_background(void)
{
	pid_t child = fork();

	if (child < 0)
		die(errno, "cannot fork");
	if (child > 0)
		_exit(EXIT_SUCCESS);
	setsid();
}

uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * NSEC_PER_SEC + now.tv_nsec;
}

void sleep_until(uint64_t ns)
{
	struct timespec until = {
		.tv_sec = ns / NSEC_PER_SEC,
		.tv_nsec = ns % NSEC_PER_SEC,
	};

	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) == EINTR)
		;
}

void fill_random(uint64_t *to, size_t words, uint64_t *state)
{
	uint64_t x = *state;

	for (size_t i = 0; i < words; i++)
		to[i] = next_random(&x);
	*state = x;
}

int main(int argc, char **argv)
{
	const char *slash = strrchr(argv[0], '/');
	const char *name = slash ? slash + 1 : argv[0];

	setvbuf(stdout, NULL, _IOLBF, 0);
	for (size_t i = 0; i < sizeof(programs) / sizeof(programs[0]); i++) {
		current = &programs[i];
		if (!strcmp(name, current->name))
			return current->main(argc, argv);
	}
	fprintf(stderr, "godwit-guest: no program is called '%s'\n", name);
	return EXIT_FAILURE;
}
