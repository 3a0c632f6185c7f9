// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * fault VCPUS DESCRIPTORS: what a fault costs a guest whose memory is paged (src/pager/).
 *
 * A process of so many threads reads pages in no order, one after the other, of memory that
 * another process pages; of each read it takes the time. Prints one JSON object, in us: of
 * pages that are there already (local), and of missing ones whose bytes are at hand as soon as
 * they are asked for (missing), so without any network: the floor.
 */
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "clock.h"
#include "error.h"
#include "pager.h"
#include "place.h"
#include "ram.h"
#include "uffd.h"
#include "watch.h"

#define PAGES	  (64UL * GW_CHUNK_PAGES)
#define HALF	  (PAGES / 2) /* what is missing: the first half */
#define VCPUS_MAX 8

struct shared {
	int64_t took[PAGES]; /* ns */
};

static struct shared *shared;
static uint8_t *ram;
static unsigned int vcpus;
static int go[2];

static void die(const char *what)
{
	fprintf(stderr, "fault: %s: %s\n", what, gw_error());
	exit(1);
}

/* The guest. Far apart, so that nothing is let be seen with another. */
static void *vcpu(void *arg)
{
	const size_t me = (size_t)(uintptr_t)arg;

	for (size_t i = me; i < PAGES / GW_FAULT_AROUND; i += vcpus) {
		const size_t at = i * 389 % (PAGES / GW_FAULT_AROUND) * GW_FAULT_AROUND;
		const int64_t before = gw_now();

		(void)*(volatile uint8_t *)(ram + at * GW_PAGE_SIZE);
		shared->took[at] = gw_now() - before;
	}
	return NULL;
}

static _Noreturn void guest(void)
{
	pthread_t threads[VCPUS_MAX];
	char byte;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (read(go[0], &byte, 1) != 1) /* where a call can be injected */
		_exit(1);
	for (unsigned int i = 0; i < vcpus; i++)
		pthread_create(&threads[i], NULL, vcpu, (void *)(uintptr_t)i);
	for (unsigned int i = 0; i < vcpus; i++)
		pthread_join(threads[i], NULL);
	_exit(0);
}

/* The pager. */
static struct gw_paged paged;
static struct gw_page_in in;
static uint8_t page[GW_PAGE_SIZE];

static int64_t op_now(void *env)
{
	(void)env;
	return gw_now();
}

static int op_map(void *env, size_t at, size_t count, size_t *mapped)
{
	(void)env;
	return gw_uffd_map(&paged, at, count, mapped);
}

static int op_map_zero(void *env, size_t at)
{
	(void)env;
	return gw_uffd_map_zero(&paged, at);
}

static void op_wake(void *env, size_t at, size_t count)
{
	(void)env;
	gw_uffd_wake(&paged, at, count);
}

static void op_request(void *env, const size_t *pages, unsigned int n)
{
	(void)env;
	for (unsigned int i = 0; i < n; i++)
		if (in.sink.place(&in.sink, pages[i], 1, page))
			die("place");
}

static void op_notify(void *env)
{
	(void)env;
}

static const struct gw_pager_ops ops = {
	.now = op_now,
	.map = op_map,
	.map_zero = op_map_zero,
	.wake = op_wake,
	.request = op_request,
	.notify = op_notify,
};

static int by_time(const void *a, const void *b)
{
	const int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

	return (x > y) - (x < y);
}

static void tell(const char *name, size_t first, size_t end, const char *after)
{
	static int64_t took[PAGES];
	size_t n = 0;

	for (size_t at = first; at < end; at += GW_FAULT_AROUND)
		took[n++] = shared->took[at];
	qsort(took, n, sizeof(took[0]), by_time);
	printf("\"%s\": {\"faults\": %zu, \"median\": %.1f, \"p90\": %.1f, \"p99\": %.1f, "
	       "\"most\": %.1f}%s",
	       name, n, (double)took[n / 2] / 1000, (double)took[n * 9 / 10] / 1000,
	       (double)took[n * 99 / 100] / 1000, (double)took[n - 1] / 1000, after);
}

int main(int argc, char **argv)
{
	char dir[] = "/dev/shm/fault-XXXXXX", table[64];
	const unsigned int descriptors = argc > 2 ? (unsigned int)atoi(argv[2]) : 1;
	struct gw_pager pager = { .ops = &ops };
	const uint8_t id[GW_ID_LEN] = { 0 };
	struct gw_memory_watch watch;
	struct gw_faults faults;
	struct gw_ram memory = { 0 };
	int fd = memfd_create("fault", MFD_CLOEXEC), status;
	int64_t began;
	pid_t pid;

	vcpus = argc > 1 ? (unsigned int)atoi(argv[1]) : 1;
	if (vcpus < 1 || vcpus > VCPUS_MAX || fd < 0 || ftruncate(fd, PAGES * GW_PAGE_SIZE) ||
	    !mkdtemp(dir) || pipe(go)) {
		fprintf(stderr, "usage: fault VCPUS DESCRIPTORS\n");
		return 1;
	}
	snprintf(table, sizeof(table), "%s/missing", dir);
	memset(page, 7, sizeof(page));
	for (size_t at = 0; at < PAGES; at++)
		if (pwrite(fd, page, sizeof(page), (off_t)(at * GW_PAGE_SIZE)) != sizeof(page))
			return 1;
	ram = mmap(NULL, PAGES * GW_PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
		      0);
	if (ram == MAP_FAILED || shared == MAP_FAILED ||
	    gw_ram_add(&memory, "ram", fd, PAGES * GW_PAGE_SIZE, (uintptr_t)ram))
		die("memory");
	pid = fork();
	if (pid == 0)
		guest();
	pager.memory = &memory.memory;
	gw_page_in_init(&in, &pager, NULL);
	if (gw_pager_init(&pager) ||
	    gw_missing_create(&pager.missing, table, pager.memory, id, 2) ||
	    gw_missing_add(&pager.missing, pager.memory, 0, HALF) ||
	    gw_watch_begin(&watch, pid, &memory, descriptors) ||
	    gw_watch_open(&watch, pid, &paged) || gw_watch_page(&watch, &paged) ||
	    gw_faults_start(&faults, gw_pager_hear, &pager, &paged))
		die("pager");
	gw_missing_seal(&pager.missing);
	began = gw_now();
	if (write(go[1], "", 1) != 1)
		return 1;
	waitpid(pid, &status, 0);
	began = gw_now() - began;
	gw_faults_stop(&faults);
	printf("{\"vcpus\": %u, \"descriptors\": %u, \"faults-per-s\": %.0f, ", vcpus,
	       paged.nr_uffds, (double)(PAGES / GW_FAULT_AROUND) * GW_S / (double)began);
	tell("local", HALF, PAGES, ", ");
	tell("missing", 0, HALF, "}\n");
	unlink(table);
	rmdir(dir);
	gw_watch_close(&paged);
	gw_pager_free(&pager);
	gw_ram_close(&memory);
	return 0;
}
