// SPDX-License-Identifier: GPL-2.0-or-later
/* paged.c - a guest whose memory follows it, and userfaultfd as far as it shows; see paged.h. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "clock.h"
#include "error.h"
#include "pager.h"
#include "paging.h"
#include "sim.h"

/* Pages that it touches, and no more at once however long nobody looked. */
#define TOUCHES_PER_MS	40
#define TOUCHES_AT_ONCE 400

static struct paged *p = &sim.dst.paged;

static const char *path(void)
{
	static char name[64];

	snprintf(name, sizeof(name), "/dev/shm/godwit-sim.%d.missing", (int)getpid());
	return name;
}

/* A source that is still to resume its guest, or has, sends what it will. */
static bool exact(void)
{
	return sim.dst.took_over || (!source_disturbed() && p->resumes == sim.src.resumes);
}

static void check_page(size_t page)
{
	uint8_t is[GW_PAGE_SIZE], must[GW_PAGE_SIZE];

	if (gw_memory_read(sim.dst.memory, page, 1, is) ||
	    gw_memory_read(&p->must.memory, page, 1, must))
		abort();
	sim_check(!exact() || !memcmp(is, must, sizeof(is)),
		  "page %zu is not what it must be at the destination", page);
}

void paged_check(void)
{
	size_t page;

	if (!p->must.memory.nr_pages || !exact() || sim.dst.qemu == QEMU_ENDED)
		return;
	page = guest_compare(&p->must.memory, sim.dst.memory);
	sim_check(page == p->must.memory.nr_pages,
		  "page %zu is not what it must be at the destination in the end", page);
}

void paged_check_held(void)
{
	for (size_t page = 0; page < sim.guest.memory->nr_pages; page++)
		if (gw_memory_block_of(sim.guest.memory, page) && !paged_missing(page))
			check_page(page);
}

static void touch(struct paged_cpu *cpu)
{
	uint8_t bytes[GW_PAGE_SIZE];
	const size_t at = 8 * rng_below(&p->rng, GW_PAGE_SIZE / 8);

	check_page(cpu->page);
	p->touched++;
	cpu->state = CPU_RUNS;
	if (!cpu->writes)
		return;
	if (gw_memory_read(&p->must.memory, cpu->page, 1, bytes))
		abort();
	rng_fill(&p->rng, bytes + at, 8);
	if (gw_memory_write(&p->must.memory, cpu->page, 1, bytes) ||
	    gw_memory_write(sim.dst.memory, cpu->page, 1, bytes))
		abort();
	p->written++;
}

static void attempt(struct paged_cpu *cpu)
{
	if (p->watched && !gw_bitmap_test(&p->mapped, cpu->page)) {
		if (cpu->state == CPU_RUNS)
			p->faults++;
		cpu->state = CPU_FAULTS;
	} else {
		touch(cpu);
	}
}

/* Two of three touches go where the others go, too. */
static size_t some_page(void)
{
	const size_t n = sim.guest.memory->blocks[0].nr_pages +
			 sim.guest.memory->blocks[1].size / GW_PAGE_SIZE;

	return rng_one_in(&p->rng, 3) ? rng_below(&p->rng, n) : rng_below(&p->rng, 24);
}

void paged_tick(void)
{
	const int64_t now = sim_now();

	if (!p->must.memory.nr_pages || sim.dst.qemu != QEMU_RUNNING) {
		p->ran_until = now;
		return;
	}
	p->debt += (double)(now - p->ran_until) * TOUCHES_PER_MS / GW_MS;
	p->ran_until = now;
	if (p->debt > TOUCHES_AT_ONCE)
		p->debt = TOUCHES_AT_ONCE;
	for (; p->debt >= 1; p->debt--) {
		struct paged_cpu *cpu = &p->cpu[rng_below(&p->rng, PAGED_CPUS)];

		if (cpu->state != CPU_RUNS)
			continue;
		cpu->page = some_page();
		cpu->writes = rng_one_in(&p->rng, 2);
		attempt(cpu);
	}
}

static bool cpu_goes_on(void *arg, int64_t *when)
{
	const struct paged_cpu *cpu = arg;

	(void)when;
	return cpu->state == CPU_RUNS || sim.dst.qemu == QEMU_ENDED;
}

int paged_load(struct process *process, int64_t deadline)
{
	struct paged_cpu *cpu = &p->cpu[0];

	if (!p->watched)
		return 0;
	if (cpu->state == CPU_RUNS) {
		cpu->page = some_page();
		cpu->writes = false;
		attempt(cpu);
	}
	if (cpu->state != CPU_RUNS && !fiber_wait(cpu_goes_on, cpu, deadline))
		return gw_fail(-ETIMEDOUT, "QEMU does not load its state in time");
	return process->dead ? gw_fail(-ESHUTDOWN, "killed") : 0;
}

bool paged_missing(size_t page)
{
	return gw_page_missing(&sim.dst.d, page);
}

static const char *op_table(void *env)
{
	(void)env;
	return path();
}

/* Whoever waits for one of them, and was heard, tries again. */
static void wake(size_t page, size_t count)
{
	for (unsigned int i = 0; i < PAGED_CPUS; i++)
		if (p->cpu[i].state != CPU_RUNS && p->cpu[i].page >= page &&
		    p->cpu[i].page - page < count)
			attempt(&p->cpu[i]);
}

static bool heard(void *arg, int64_t *when)
{
	const struct process *process = arg;

	(void)when;
	for (unsigned int i = 0; i < PAGED_CPUS; i++)
		if (p->cpu[i].state == CPU_FAULTS)
			return true;
	return p->halting || process->dead;
}

static void listen(void *arg, unsigned int part)
{
	struct process *process = arg;

	(void)part;
	while (!p->halting && !process->dead) {
		struct gw_fault faults[PAGED_CPUS];
		unsigned int n = 0;

		fiber_wait(heard, process, GW_FOREVER);
		/* Read, and from here on nobody else is told. */
		for (unsigned int i = 0; i < PAGED_CPUS && !p->halting && !process->dead; i++)
			if (p->cpu[i].state == CPU_FAULTS) {
				p->cpu[i].state = CPU_WAITS;
				faults[n++] = (struct gw_fault){ .page = p->cpu[i].page,
								 .vcpu = i };
			}
		if (n && !sim_step(process, "faults", 0))
			gw_pager_fault(p->pager, faults, n);
	}
	p->listeners--;
}

static int op_start(void *env, struct gw_pager *pager)
{
	struct process *process = env;
	int rc = sim_step(env, "paging begins", STEP_FAILS);

	if (rc)
		return rc;
	if (!p->watched) {
		const struct gw_memory *from = sim.guest.memory;

		sim_check(!p->must.memory.nr_pages, "paging begins again where it has ended");
		if (gw_bitmap_init(&p->mapped, from->nr_pages))
			abort();
		kept_copy(&p->must, from);
		p->rng.state = sim.seed + 17;
		p->resumes = sim.src.resumes;
		p->watched = true;
	}
	p->pager = pager;
	p->halting = false;
	p->listeners++;
	fiber_new(process, "faults", listen, process, 0);
	wake(0, SIZE_MAX);
	return 0;
}

static bool silent(void *arg, int64_t *when)
{
	(void)arg;
	(void)when;
	return !p->listeners;
}

static void op_halt(void *env)
{
	(void)env;
	p->halting = true;
	if (p->listeners)
		fiber_wait(silent, NULL, GW_FOREVER);
}

static int op_stop(void *env)
{
	int rc = sim_step(env, "paging ends", STEP_FAILS);

	if (rc)
		return rc;
	paged_check();
	p->watched = false;
	wake(0, SIZE_MAX);
	op_halt(env);
	unlink(path());
	return 0;
}

/* What may be seen is there, and right. */
static void see(size_t page)
{
	sim_check(!gw_missing_test(&p->pager->missing, page), "missing page %zu is shown", page);
	check_page(page);
	gw_bitmap_set(&p->mapped, page);
	wake(page, 1);
}

static int op_map(void *env, size_t page, size_t count, size_t *mapped)
{
	int rc = sim_step(env, "map", 0);

	*mapped = 0;
	if (rc || sim.dst.qemu == QEMU_ENDED)
		return -ESRCH;
	if (!p->watched)
		return -ENOENT;
	for (; *mapped < count; ++*mapped) {
		const size_t at = page + *mapped;

		if (gw_bitmap_test(&p->mapped, at))
			rc = -EEXIST;
		else if (gw_memory_is_hole(sim.dst.memory, at, 1) == 1)
			rc = -EFAULT;
		if (rc)
			return *mapped ? 0 : rc;
		see(at);
	}
	return 0;
}

static int op_map_zero(void *env, size_t page)
{
	static const uint8_t zeros[GW_PAGE_SIZE];

	if (sim_step(env, "map zeros", 0) || sim.dst.qemu == QEMU_ENDED)
		return -ESRCH;
	if (!p->watched)
		return -ENOENT;
	if (gw_bitmap_test(&p->mapped, page) || gw_memory_is_hole(sim.dst.memory, page, 1) != 1)
		return -EEXIST;
	if (gw_memory_write(sim.dst.memory, page, 1, zeros))
		abort();
	see(page);
	return 0;
}

static void op_wake(void *env, size_t page, size_t count)
{
	if (!sim_step(env, "wake", 0))
		wake(page, count);
}

static void op_wake_all(void *env)
{
	if (!sim_step(env, "wake all", 0))
		wake(0, SIZE_MAX);
}

static unsigned int op_vcpus(void *env)
{
	(void)env;
	return PAGED_CPUS;
}

static void op_urgency(void *env, enum gw_urgency urgency)
{
	(void)env;
	(void)urgency;
}

static bool op_called(void *env, unsigned int n)
{
	(void)env;
	return p->callers.nr >= n;
}

static bool op_connections(void *env, struct gw_transport **t, unsigned int n)
{
	if (((struct process *)env)->dead || !op_called(env, n))
		return false;
	if (p->connected)
		sim_rare(RARE_RECONNECTED);
	p->connected = true;
	return gw_callers_take(&p->callers, t, n);
}

static int op_look(void *env)
{
	(void)env;
	return sim.dst.qemu == QEMU_ENDED ? gw_fail(-ECHILD, "QEMU ended on host 'B'") : 0;
}

const struct gw_dest_page_ops paged_ops = {
	.table = op_table,
	.start = op_start,
	.halt = op_halt,
	.stop = op_stop,
	.map = op_map,
	.map_zero = op_map_zero,
	.wake = op_wake,
	.wake_all = op_wake_all,
	.vcpus = op_vcpus,
	.urgency = op_urgency,
	.connections = op_connections,
	.called = op_called,
	.look = op_look,
};

bool paged_fits(unsigned int index)
{
	return !index || index == p->callers.nr;
}

void paged_call(struct gw_transport *t, unsigned int index)
{
	gw_callers_add(&p->callers, t, index);
	sim.dst.notified = true;
	sim.wake[WAKE_DEST] = true;
}

void paged_forget(void)
{
	gw_callers_drop(&p->callers);
}

void paged_free(void)
{
	paged_forget();
	buffers_free(&p->must);
	gw_bitmap_free(&p->mapped);
	unlink(path());
}
