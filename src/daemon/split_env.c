// SPDX-License-Identifier: GPL-2.0-or-later
/* split_env.c - a split VM's pager on a real QEMU; see keeper.h. */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "cleanup.h"
#include "clock.h"
#include "error.h"
#include "keeper.h"
#include "log.h"
#include "peers.h"

static int64_t op_now(void *env)
{
	(void)env;
	return gw_now();
}

static int op_copy(void *env, size_t page, size_t count, const void *bytes, size_t *copied)
{
	return gw_uffd_copy(&((struct gw_keeper *)env)->paged, page, count, bytes, copied);
}

static void filled(struct gw_keeper *k, size_t page)
{
	gw_bitmap_put(&k->filled, gw_unit_of(&k->split.table.units, page));
}

static int op_zero(void *env, size_t page)
{
	struct gw_keeper *k = env;
	int rc = gw_uffd_map_zero(&k->paged, page);

	if (!rc)
		filled(k, page);
	return rc;
}

static int op_protect(void *env, size_t page, size_t count)
{
	return gw_uffd_protect(&((struct gw_keeper *)env)->paged, page, count, true);
}

static int op_unprotect(void *env, size_t page, size_t count)
{
	return gw_uffd_protect(&((struct gw_keeper *)env)->paged, page, count, false);
}

static void op_wake(void *env, size_t page, size_t count)
{
	gw_uffd_wake(&((struct gw_keeper *)env)->paged, page, count);
}

static int op_present(void *env, size_t page, size_t count, uint64_t bits[GW_UNIT_WORDS])
{
	const struct gw_keeper *k = env;
	const struct gw_memory_block *b = gw_memory_block_of(k->split.memory, page);
	unsigned char in[GW_UNIT_PAGES_MAX];
	const size_t i = (size_t)(b - k->split.memory->blocks);

	if (mincore(k->maps[i] + (page - b->first_page) * GW_PAGE_SIZE, count * GW_PAGE_SIZE, in))
		return gw_fail(-errno, "mincore: %s", strerror(errno));
	memset(bits, 0, GW_UNIT_WORDS * sizeof(bits[0]));
	for (size_t n = 0; n < count; n++)
		bits[n / 64] |= (uint64_t)(in[n] & 1) << n % 64;
	return 0;
}

static int op_request(void *env, unsigned int holder, const size_t *pages, unsigned int n)
{
	return gw_servers_request(&((struct gw_keeper *)env)->all, holder, pages, n);
}

static void op_fetch(void *env, unsigned int holder, size_t first, size_t count)
{
	gw_servers_fetch(&((struct gw_keeper *)env)->all, holder, first, count);
}

static void op_release(void *env, unsigned int holder, size_t page, size_t count)
{
	gw_servers_release(&((struct gw_keeper *)env)->all, holder, page, count);
}

static void op_touched(void *env, size_t page, size_t count)
{
	struct gw_keeper *k = env;

	filled(k, page);
	gw_ageing_touch(&k->ageing, page, count);
}

static void op_notify(void *env)
{
	const struct gw_keeper *k = env;
	const uint64_t one = 1;

	if (write(k->event, &one, sizeof(one)) != sizeof(one) && errno != EAGAIN)
		gw_err("eventfd: %s", strerror(errno));
}

const struct gw_split_ops gw_split_live_ops = {
	.now = op_now,
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
	.notify = op_notify,
};

static struct gw_transport *op_connect(void *env, const struct gw_server *server,
				       unsigned int index, int64_t deadline)
{
	const struct gw_keeper *k = env;
	const struct gw_peer peer = { .address = server->address, .wake = { .fd = -1 } };
	struct gw_open open = { .kind = GW_OPEN_MEMORY, .stream = index, .version_min = 2 };
	struct gw_transport *t = gw_peer_connect(&peer, deadline);
	struct gw_frame f = { 0 };

	memcpy(open.id, k->record.id, GW_ID_LEN);
	if (t && gw_peer_open(t, &open, GW_MSG_ACCEPT, &f, deadline))
		gw_transport_close(&t);
	gw_frame_free(&f);
	return t;
}

uint64_t gw_keeper_spare(const struct gw_keeper *k)
{
	return gw_split_record_spare(&k->record);
}

uint64_t gw_keeper_aim(const struct gw_keeper *k)
{
	return k->record.main_memory / GW_PAGE_SIZE - gw_keeper_spare(k);
}

static bool op_victim(void *env, unsigned int server, size_t *unit)
{
	struct gw_keeper *k = env;
	gw_locked(&k->lock);

	if (!k->known || k->split.frozen || gw_split_here(&k->split) <= gw_keeper_aim(k) ||
	    k->record.merging)
		return false;
	if (!k->nr_victims && !k->record.direct_io)
		k->nr_victims = gw_ageing_coldest(&k->ageing, &k->filled, GW_VICTIMS, k->victims);
	for (unsigned int i = 0; i < k->nr_victims;) {
		const size_t one = k->victims[i];
		const bool leaves = gw_servers_may_leave(&k->all, server, one);

		/* They must not stand in the way of those that can. */
		if (!leaves && !gw_servers_is_stuck(&k->all, one)) {
			i++;
			continue;
		}
		memmove(k->victims + i, k->victims + i + 1,
			(--k->nr_victims - i) * sizeof(k->victims[0]));
		/* It is looked for again when something comes to it. */
		gw_bitmap_take(&k->filled, one);
		if (leaves) {
			*unit = one;
			return true;
		}
		k->stuck = true;
	}
	return false;
}

const struct gw_servers_ops gw_servers_live_ops = {
	.connect = op_connect,
	.victim = op_victim,
	.notify = op_notify,
};
