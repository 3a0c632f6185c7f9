// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * sim_split_kernel.c - the ops of a pager of the main host: its file, page tables and userfaultfds,
 * as far as a kernel shows them; see sim_split.h.
 *
 * Who is dead has no effect any more.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "error.h"
#include "sim_split.h"

static struct sim_split *const w = &sim_split;

/* Memory. */

static struct split_pager *pager_of(const struct gw_memory *m)
{
	return (struct split_pager *)((uintptr_t)m - offsetof(struct split_pager, memory));
}

static int main_read(const struct gw_memory *m, unsigned int block, size_t page, size_t count,
		     void *buf)
{
	int rc = sim_step(&pager_of(m)->process, "read", 0);

	return rc ? rc : buffers_read(&pager_of(m)->host->file.memory, block, page, count, buf);
}

static int main_write(const struct gw_memory *m, unsigned int block, size_t page, size_t count,
		      const void *buf)
{
	(void)m;
	(void)block;
	(void)page;
	(void)count;
	(void)buf;
	sim_wrong("a running guest's memory is written past its page tables");
}

static int main_punch(const struct gw_memory *m, unsigned int block, size_t page, size_t count)
{
	int rc = sim_step(&pager_of(m)->process, "punch", 0);

	if (rc)
		return rc;
	if (w->punch_fails) {
		w->punch_fails = false;
		split_road(ROAD_PUNCH);
		return gw_fail(-EIO, "cannot be punched");
	}
	return buffers_punch(&pager_of(m)->host->file.memory, block, page, count);
}

static int main_find_data(const struct gw_memory *m, unsigned int block, size_t page, size_t *data)
{
	return buffers_find_data(&pager_of(m)->host->file.memory, block, page, data);
}

static int main_find_hole(const struct gw_memory *m, unsigned int block, size_t page, size_t *hole)
{
	return buffers_find_hole(&pager_of(m)->host->file.memory, block, page, hole);
}

static uint64_t main_resident(const struct gw_memory *m, unsigned int block)
{
	return buffers_resident(&pager_of(m)->host->file.memory, block);
}

const struct gw_memory_ops split_memory_ops = {
	.read = main_read,
	.write = main_write,
	.punch = main_punch,
	.find_data = main_find_data,
	.find_hole = main_find_hole,
	.resident = main_resident,
};

/* The kernel. */

int64_t split_now(void *env)
{
	(void)env;
	return sim_now();
}

static bool no_memory(void)
{
	if (sim_now() >= w->no_memory_until)
		return false;
	split_road(ROAD_REFUSED);
	return true;
}

/* Whether what it believes is what is: it is not told any more that the guest runs elsewhere. */
static bool is_current(const struct split_pager *p)
{
	return p == w->pager || p == w->next;
}

/* An answer may have been on its way when its server lost it. */
static void found(const struct split_pager *p, size_t page)
{
	for (unsigned int i = 0; p == w->pager && i < w->nr_subs; i++)
		gw_bitmap_clear(&w->subs[i].lost, page);
}

/* A page more is in the file. */
static void comes(const struct split_pager *p, size_t page, const uint8_t *bytes)
{
	uint64_t here, most = p->split.limit + (uint64_t)p->split.threads * w->unit_pages;

	if (gw_memory_write(&p->host->file.memory, page, 1, bytes))
		abort();
	gw_bitmap_clear(&p->host->protected, page);
	found(p, page);
	here = gw_split_here(&p->split);
	if (p == w->pager && here + p->split.coming <= most)
		w->most_quiesced = 0; /* they have come, and others have left */
	most = most > w->most_quiesced ? most : w->most_quiesced;
	sim_check(here <= most || p->split.quiesces || p->split.frozen,
		  "%llu pages are here, and %llu may be", (unsigned long long)here,
		  (unsigned long long)most);
}

static int op_copy(void *env, size_t page, size_t count, const void *bytes, size_t *copied)
{
	struct split_pager *p = env;
	const size_t part = rng_below(&w->rng, count);

	*copied = 0;
	if (sim_step(&p->process, "copy", 0))
		return -ESRCH;
	if (rng_one_in(&w->rng, 20))
		return -EAGAIN;
	if (no_memory())
		return -ENOMEM;
	for (; *copied < count; ++*copied) {
		const size_t at = page + *copied;

		if (*copied && *copied == part) {
			w->at_park = SPLIT_COPYING;
			if (sim_step(&p->process, "copying", 0))
				return -ESRCH;
			if (rng_one_in(&w->rng, 2))
				break; /* QEMU changes its mappings just now */
		}
		if (split_is_in(p->host, at))
			break;
		sim_check(!is_current(p) ||
				  split_is((const uint8_t *)bytes + *copied * GW_PAGE_SIZE, at,
					   w->must[at]),
			  "page %zu comes, and is not what was written last", at);
		comes(p, at, (const uint8_t *)bytes + *copied * GW_PAGE_SIZE);
	}
	if (!*copied)
		return -EEXIST;
	if (p == w->pager)
		split_wake(page, *copied);
	return 0;
}

static int op_zero(void *env, size_t page)
{
	static const uint8_t zeros[GW_PAGE_SIZE];
	struct split_pager *p = env;

	if (sim_step(&p->process, "zero", 0))
		return -ESRCH;
	if (no_memory())
		return -ENOMEM;
	if (split_is_in(p->host, page))
		return -EEXIST;
	sim_check(!is_current(p) || !w->must[page], "page %zu becomes zero, and is not", page);
	comes(p, page, zeros);
	gw_bitmap_set(&p->filled, gw_unit_of(&p->split.table.units, page));
	if (p == w->pager)
		split_wake(page, 1);
	return 0;
}

static int op_protect(void *env, size_t page, size_t count)
{
	struct split_pager *p = env;

	if (sim_step(&p->process, "protect", 0))
		return -ESRCH;
	if (rng_one_in(&w->rng, 30)) {
		gw_bitmap_set_range(&p->host->protected, page, rng_below(&w->rng, count));
		return -EAGAIN;
	}
	gw_bitmap_set_range(&p->host->protected, page, count);
	return 0;
}

static int op_unprotect(void *env, size_t page, size_t count)
{
	struct split_pager *p = env;

	if (sim_step(&p->process, "unprotect", 0))
		return -ESRCH;
	if (rng_one_in(&w->rng, 30))
		return -EAGAIN;
	gw_bitmap_clear_range(&p->host->protected, page, count);
	if (p == w->pager)
		split_wake(page, count);
	return 0;
}

static void op_wake(void *env, size_t page, size_t count)
{
	struct split_pager *p = env;

	if (!sim_step(&p->process, "wake", 0) && p == w->pager)
		split_wake(page, count);
}

static int op_present(void *env, size_t page, size_t count, uint64_t bits[GW_UNIT_WORDS])
{
	const struct split_pager *p = env;

	if (p->process.dead)
		return -ESRCH;
	memset(bits, 0, GW_UNIT_WORDS * sizeof(bits[0]));
	for (size_t i = 0; i < count; i++)
		bits[i / 64] |= (uint64_t)split_is_in(p->host, page + i) << i % 64;
	return 0;
}

static int op_request(void *env, unsigned int holder, const size_t *pages, unsigned int n)
{
	return gw_servers_request(&((struct split_pager *)env)->all, holder, pages, n);
}

static void op_fetch(void *env, unsigned int holder, size_t first, size_t count)
{
	gw_servers_fetch(&((struct split_pager *)env)->all, holder, first, count);
}

static void op_release(void *env, unsigned int holder, size_t page, size_t count)
{
	gw_servers_release(&((struct split_pager *)env)->all, holder, page, count);
}

static void op_touched(void *env, size_t page, size_t count)
{
	struct split_pager *p = env;

	(void)count;
	gw_bitmap_set(&p->filled, gw_unit_of(&p->split.table.units, page));
}

void split_notify(void *env)
{
	((struct split_pager *)env)->notified = true;
}

static void op_park(void *env, enum gw_split_park where, size_t page)
{
	struct split_pager *p = env;

	(void)page;
	if (where == GW_SPLIT_STORED && w->merge_early && !p->moving && !p->split.table.away) {
		w->merge_early = false;
		w->merging = p->notified = true;
	}
	w->at_park = (int)where;
	sim_step(&p->process, "park", 0);
}

const struct gw_split_ops split_ops = {
	.now = split_now,
	.copy = op_copy,
	.zero = op_zero,
	.protect = op_protect,
	.unprotect = op_unprotect,
	.wake = op_wake,
	.present = op_present,
	.request = op_request,
	.fetch = op_fetch,
	.release = op_release,
	.touched = op_touched,
	.notify = split_notify,
	.park = op_park,
};
