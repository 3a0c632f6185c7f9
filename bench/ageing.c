// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * ageing RUNS: what the history of a guest's accesses costs (track/ageing.h, track/accessed.h).
 *
 * First for guests of 1 GiB to 2 TiB that need not be here: access bits and histories are random,
 * as in the paper's measurement (S-memV, Fig. 14).
 *
 *   collect    half of the pages were accessed: into the history of pages and of units
 *   shift      of both, where a period ends
 *   split      which half of the units stays
 *   victim     one unit to leave, of all
 *   victims    64 at once
 *
 * Prints a JSON object a size: medians, in ms of processor, so that a machine which is busy with
 * other things tells nearly the same; and the memory that a history takes, in MiB: of a guest
 * that accesses everything, and of one that accesses a hundredth, in one place.
 *
 * Then for a process with 2 GiB of memory, all of which it reads between two looks, and with one of
 * which it reads nothing: medians of what a look takes (sample, idle), and for how long a thread of
 * it is stopped (stopped), in ms.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "accessed.h"
#include "ageing.h"
#include "cleanup.h"
#include "clock.h"
#include "error.h"
#include "inject.h"
#include "io.h"
#include "rng.h"
#include "watch.h"

#define UNIT_PAGES GW_CHUNK_PAGES
#define VICTIMS	   64U
#define RUNS_MAX   101UL

enum step {
	COLLECT,
	SHIFT,
	SPLIT,
	VICTIM,
	MANY,
	STEPS,
};

static const char *const names[STEPS] = { "collect", "shift", "split", "victim", "victims" };

struct bench {
	struct gw_memory memory;
	struct gw_ageing ageing;
	struct gw_bitmap accessed, eligible, stay;
	size_t units[VICTIMS];
};

static void call(struct bench *b, enum step step)
{
	switch (step) {
	case COLLECT:
		gw_ageing_add(&b->ageing, &b->accessed);
		break;
	case SHIFT:
		gw_ageing_shift(&b->ageing);
		break;
	case SPLIT:
		gw_ageing_split(&b->ageing, NULL, b->ageing.units.nr / 2, &b->stay);
		break;
	case VICTIM:
		gw_ageing_coldest(&b->ageing, &b->eligible, 1, b->units);
		break;
	default:
		gw_ageing_coldest(&b->ageing, &b->eligible, VICTIMS, b->units);
	}
}

static int64_t processor_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return t.tv_sec * GW_S + t.tv_nsec;
}

static int by_time(const void *a, const void *b)
{
	const int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

	return (x > y) - (x < y);
}

static double median_ms(struct bench *b, enum step step, size_t runs)
{
	int64_t ns[RUNS_MAX] = { 0 };
	const size_t middle = runs / 2;

	for (size_t i = 0; i < runs; i++) {
		gw_bitmap_zero(&b->stay);
		/* What may stay of the last run is there for this one, too. */
		memset(b->stay.words, 0, (b->stay.bits + 63) / 64 * sizeof(b->stay.words[0]));
		ns[i] = -processor_ns();
		call(b, step);
		ns[i] += processor_ns();
	}
	qsort(ns, runs, sizeof(ns[0]), by_time);
	return (double)ns[middle] / GW_MS;
}

/* What this process has, in MiB. */
static double resident_mib(void)
{
	gw_autofree char *text = gw_read_file("/proc/self/statm", 4096, NULL);
	const char *second = text ? strchr(text, ' ') : NULL;

	return second ? strtod(second, NULL) * GW_PAGE_SIZE / (1 << 20) : 0;
}

/* What the history of a guest costs that accesses a hundredth of its memory. */
static double small_mib(const struct gw_memory *memory)
{
	const double before = resident_mib();
	struct gw_ageing a;
	double mib = 0;

	if (!gw_ageing_init(&a, memory, UNIT_PAGES)) {
		for (size_t page = 0; page < memory->nr_pages / 100; page += UNIT_PAGES)
			gw_ageing_touch(&a, page, UNIT_PAGES);
		gw_ageing_shift(&a);
		mib = resident_mib() - before;
	}
	gw_ageing_free(&a);
	return mib;
}

static int measure(size_t gib, size_t runs)
{
	struct bench b = { 0 };
	struct rng rng = { gib };
	int rc = gw_memory_add(&b.memory, "ram", (uint64_t)gib << 30);

	if (rc >= 0)
		rc = gw_ageing_init(&b.ageing, &b.memory, UNIT_PAGES);
	if (!rc)
		rc = gw_bitmap_init(&b.accessed, b.memory.nr_pages);
	if (!rc)
		rc = gw_bitmap_init(&b.eligible, b.ageing.units.nr);
	if (!rc)
		rc = gw_bitmap_init(&b.stay, b.ageing.units.nr);
	if (rc)
		return rc;
	rng_fill(&rng, b.accessed.words, b.memory.nr_pages / 8);
	rng_fill(&rng, b.ageing.pages, b.memory.nr_pages);
	gw_bitmap_set_range(&b.eligible, 0, b.ageing.units.nr);
	printf("{\"gib\": %zu", gib);
	for (enum step step = COLLECT; step < STEPS; step++) {
		/* Of units, collecting makes all the same. */
		rng_fill(&rng, b.ageing.unit, b.ageing.units.nr);
		printf(", \"%s\": %.4f", names[step], median_ms(&b, step, runs));
	}
	printf(", \"mib\": %.2f, \"small-mib\": %.2f}\n",
	       (double)(b.ageing.pages_len + b.ageing.units_len) / (1 << 20), small_mib(&b.memory));
	fflush(stdout);
	gw_ageing_free(&b.ageing);
	gw_bitmap_free(&b.accessed);
	gw_bitmap_free(&b.eligible);
	gw_bitmap_free(&b.stay);
	return 0;
}

#define SAMPLE_GIB 2UL

/* What is sampled: reads all of its memory whenever it is told to. */
static _Noreturn void guest(const volatile uint8_t *ram, int sock)
{
	char byte;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	while (read(sock, &byte, 1) == 1) {
		for (size_t at = 0; at < SAMPLE_GIB << 30; at += GW_PAGE_SIZE)
			(void)ram[at];
		if (write(sock, &byte, 1) != 1)
			break;
	}
	_exit(0);
}

struct sampled {
	struct gw_ram ram;
	struct gw_memory_watch watch;
	struct gw_accessed accessed;
	struct gw_bitmap seen;
	int sock;
	pid_t pid;
};

static int start_guest(struct sampled *s)
{
	const size_t len = SAMPLE_GIB << 30;
	int fd = memfd_create("ageing", MFD_CLOEXEC), socks[2];
	void *ram;

	if (fd < 0 || ftruncate(fd, (off_t)len) ||
	    socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, socks))
		return gw_fail(-errno, "memory: %s", strerror(errno));
	ram = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (ram == MAP_FAILED)
		return gw_fail(-errno, "mmap: %s", strerror(errno));
	memset(ram, 1, len);
	s->sock = socks[0];
	s->pid = fork();
	if (!s->pid)
		guest(ram, socks[1]);
	munmap(ram, len);
	return gw_ram_add(&s->ram, "ram", fd, len, (uintptr_t)ram);
}

static int read_all(const struct sampled *s)
{
	char byte = 0;

	return write(s->sock, &byte, 1) == 1 && read(s->sock, &byte, 1) == 1
		       ? 0
		       : gw_fail(-EPIPE, "the guest has ended");
}

/* @ns: how long a look takes: when all was read, when nothing was; and how long it stops. */
static int look(struct sampled *s, int64_t ns[3])
{
	int rc = read_all(s);

	for (int i = 0; !rc && i < 2; i++) {
		gw_bitmap_zero(&s->seen);
		ns[i] = -gw_now();
		rc = gw_accessed_sample(&s->accessed, &s->seen, SIZE_MAX);
		ns[i] += gw_now();
	}
	if (!rc)
		rc = read_all(s);
	ns[2] = -gw_now();
	if (!rc)
		rc = gw_inject_unmap(s->pid, s->watch.ranges[0].hva,
				     GW_ACCESSED_PART * GW_PAGE_SIZE);
	ns[2] += gw_now();
	return rc;
}

static int measure_samples(size_t runs)
{
	int64_t ns[3][RUNS_MAX] = { 0 }, three[3] = { 0 };
	const size_t middle = runs / 2;
	struct sampled s = { 0 };
	int rc = start_guest(&s);

	if (!rc)
		rc = gw_watch_split(&s.watch, s.pid, &s.ram, 1);
	if (!rc)
		rc = gw_bitmap_init(&s.seen, s.ram.memory.nr_pages);
	if (!rc)
		rc = gw_accessed_open(&s.accessed, s.pid, s.watch.ranges, s.watch.nr_ranges);
	for (size_t i = 0; !rc && i < runs; i++) {
		rc = look(&s, three);
		for (int k = 0; k < 3; k++)
			ns[k][i] = three[k];
	}
	if (rc)
		return rc;
	for (int k = 0; k < 3; k++)
		qsort(ns[k], runs, sizeof(ns[k][0]), by_time);
	printf("{\"sampled-gib\": %lu, \"sample\": %.3f, \"idle\": %.3f, \"stopped\": %.3f}\n",
	       SAMPLE_GIB, (double)ns[0][middle] / GW_MS, (double)ns[1][middle] / GW_MS,
	       (double)ns[2][middle] / GW_MS);
	kill(s.pid, SIGKILL);
	waitpid(s.pid, NULL, 0);
	gw_accessed_close(&s.accessed);
	gw_bitmap_free(&s.seen);
	gw_ram_close(&s.ram);
	return 0;
}

int main(int argc, char **argv)
{
	const size_t runs = argc == 2 ? strtoul(argv[1], NULL, 10) : 0;

	if (!runs || runs > RUNS_MAX) {
		fprintf(stderr, "usage: ageing RUNS (at most %lu)\n", RUNS_MAX);
		return 2;
	}
	for (size_t gib = 1; gib <= 2048; gib *= 2) {
		if (measure(gib, runs)) {
			fprintf(stderr, "ageing: %s\n", gw_error());
			return 1;
		}
	}
	if (measure_samples(runs)) {
		fprintf(stderr, "ageing: %s\n", gw_error());
		return 1;
	}
	return 0;
}
