// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * budget_held.c - what this host promises to VMs that have a part of their memory here; see
 * budget.h.
 *
 * A promise lies in memory, if there is room, else on the disk (swap.h), if there is room: all of
 * it in one place, where it stays. So what is hot of it the page cache keeps, and nothing ever has
 * to move between the two.
 *
 * Rules: the disk is only asked about where a promise may lie there, and never under the lock for
 * which VMs wait that start or arrive: it may hang.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "budget_internal.h"
#include "cleanup.h"
#include "error.h"
#include "io.h"
#include "promise.h"
#include "split_record.h"
#include "swap.h"

/* Who asks, and for what. */
struct asked {
	const struct gw_paths *p;
	const char *host, *id;
	const struct gw_hold *hold;
	struct gw_promise before; /* of no bytes: there was none */
	uint64_t more;		  /* bytes than before */
};

/*
 * What the disk has for promises at all: what it has left, and what they have taken. In this order,
 * so that what is removed meanwhile is not counted twice.
 */
struct disk {
	const struct gw_paths *p;
	uint64_t all;
};

static void add_used(void *arg, const char *id, const struct gw_promise *promise)
{
	struct disk *d = arg;

	if (!strcmp(promise->swap, d->p->swap))
		d->all += gw_promise_used(d->p, id, promise);
}

static uint64_t disk_holds(const struct gw_paths *p)
{
	struct disk d = { .p = p, .all = gw_swap_free(p) };

	if (p->swap)
		gw_promise_each(p, add_used, &d);
	return d.all;
}

static uint64_t least(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static uint64_t memory_free(const struct gw_paths *p, const struct gw_account *a)
{
	return least(gw_at_least_zero(p->server_limit, a->held),
		     gw_budget_room(p, true, NULL, a, 0));
}

/* Of a disk that holds @all. */
static uint64_t disk_free(const struct gw_paths *p, const struct gw_account *a, uint64_t all)
{
	return least(gw_at_least_zero(p->swap_limit, a->swapped),
		     gw_at_least_zero(all, a->swapped_here));
}

void gw_budget_server(const struct gw_paths *p, struct gw_budget_server *server)
{
	const uint64_t all = p->swap ? disk_holds(p) : 0;
	struct gw_account a;

	gw_budget_stock(p, NULL, &a);
	*server = (struct gw_budget_server){ .limit = p->server_limit,
					     .free = p->server_limit ? memory_free(p, &a) : 0,
					     .swap_limit = p->swap ? p->swap_limit : 0,
					     .swap_free = p->swap ? disk_free(p, &a, all) : 0 };
}

int gw_budget_serves(const struct gw_paths *p, const char *host)
{
	return p->server_limit || (p->swap && p->swap_limit)
		       ? 0
		       : gw_fail(-EPERM,
				 "host '%s' holds no memory for VMs of other hosts; to let "
				 "it, start its godwitd with --memory-server-limit SIZE, or with "
				 "--swap-dir DIR and --swap-limit SIZE, or set memory-server-limit "
				 "in godwit.conf(5)",
				 host);
}

/* Its main host is this one: what it puts into memory here, it has to spare already. */
static bool is_own(const struct asked *q)
{
	struct gw_split_record record;
	uint8_t id[GW_ID_LEN];
	struct gw_vm vm;
	bool own;

	if (gw_vm_load(q->p, q->hold->name, &vm)) {
		gw_error_clear();
		return false;
	}
	own = vm.split && !gw_id_parse(q->id, id) && !gw_split_record_parse(&record, vm.split) &&
	      !memcmp(record.id, id, GW_ID_LEN);
	gw_vm_free(&vm);
	gw_error_clear();
	return own;
}

static int refuse_own(const struct asked *q)
{
	return gw_fail(-EINVAL,
		       "VM '%s' runs on host '%s' itself, where its memory would free nothing by "
		       "lying in memory: name other hosts, or start the godwitd of this one with "
		       "--swap-dir DIR and --swap-limit SIZE, which lets it lie on a disk",
		       q->hold->name, q->host);
}

static int check_memory(const struct asked *q, const struct gw_account *a)
{
	const struct gw_paths *p = q->p;
	char need[32], have[32], all[32];

	gw_format_size(q->more, need, sizeof(need));
	if (q->more > gw_at_least_zero(p->server_limit, a->held))
		return gw_fail(
			-ENOMEM,
			"host '%s' holds %s for VMs of other hosts at most, of which %s were "
			"promised; '%s' needs %s more: choose another host or a smaller "
			"size, or see memory-server-limit in godwit.conf(5)",
			q->host, gw_format_size(p->server_limit, all, sizeof(all)),
			gw_format_size(a->held, have, sizeof(have)), q->hold->name, need);
	if (q->more > gw_budget_room(p, true, NULL, a, 0))
		return gw_fail(
			-ENOMEM,
			"host '%s' has %s of memory for VMs of other hosts, '%s' needs %s "
			"more: choose another host or a smaller size",
			q->host,
			gw_format_size(gw_budget_room(p, true, NULL, a, 0), have, sizeof(have)),
			q->hold->name, need);
	return 0;
}

static int check_disk(const struct asked *q, const struct gw_account *a, uint64_t all)
{
	const struct gw_paths *p = q->p;
	char need[32], limit[32], have[32], left[32];

	gw_format_size(q->more, need, sizeof(need));
	gw_format_size(disk_free(p, a, all), left, sizeof(left));
	if (q->more <= disk_free(p, a, all))
		return 0;
	return gw_fail(
		-ENOMEM,
		"host '%s' has %s on its disk for VMs' memory (%s of its swap-limit of %s were "
		"promised), and no room in memory; '%s' needs %s more: choose another "
		"host or a smaller size, or see swap-limit in godwit.conf(5)",
		q->host, left, gw_format_size(a->swapped, have, sizeof(have)),
		gw_format_size(p->swap_limit, limit, sizeof(limit)), q->hold->name, need);
}

/* Write it down, if there is room: in memory, or on a disk that holds @all. */
static int promise(const struct asked *q, bool on_disk, uint64_t all)
{
	gw_autofd int lock = gw_budget_lock(q->p);
	struct gw_promise new = { .hold = *q->hold, .failed = q->before.failed };
	struct gw_account a;
	int rc = 0;

	if (lock < 0)
		return lock;
	if (on_disk)
		snprintf(new.swap, sizeof(new.swap), "%s",
			 q->before.swap[0] ? q->before.swap : q->p->swap);
	if (q->more) {
		gw_budget_stock(q->p, NULL, &a);
		rc = on_disk ? check_disk(q, &a, all) : check_memory(q, &a);
	}
	return rc ? rc : gw_promise_save(q->p, q->id, &new);
}

static int promise_somewhere(const struct asked *q)
{
	const bool was = q->before.hold.size > 0, own = !was && is_own(q);
	int rc = -ENOMEM;

	if (was ? !q->before.swap[0] : !own && q->p->server_limit)
		rc = promise(q, false, 0);
	/* What lies in memory stays there. */
	if (rc != -ENOMEM || (was && !q->before.swap[0]))
		return rc;
	if (!was && !q->p->swap)
		return own ? refuse_own(q) : rc;
	if (was && q->more && (!q->p->swap || strcmp(q->before.swap, q->p->swap) != 0))
		return gw_fail(-ENOMEM,
			       "what VM '%s' has on host '%s' lies on a disk, in %s, which is not "
			       "its swap-dir any more: it gets no more there",
			       q->hold->name, q->host, q->before.swap);
	return promise(q, true, q->more ? disk_holds(q->p) : 0);
}

/* It is of the same memory, and no more lies here than it asks for. */
static int check_before(const struct asked *q)
{
	const struct gw_hold *before = &q->before.hold, *hold = q->hold;
	char need[32], have[32];
	uint64_t used;

	if (q->before.failed)
		return gw_fail(-EIO,
			       "the disk of host '%s' has lost a part of what VM '%s' had there",
			       q->host, before->name);
	if (!gw_hold_same_blocks(before, hold))
		return gw_fail(-EINVAL,
			       "what host '%s' holds there is of VM '%s', whose memory is not the "
			       "same as that of '%s'",
			       q->host, before->name, hold->name);
	if (hold->size >= before->size)
		return 0;
	used = gw_promise_used(q->p, q->id, &q->before);
	if (hold->size >= used)
		return 0;
	return gw_fail(-EBUSY,
		       "%s of VM '%s' lie on host '%s' already, more than the %s that it is "
		       "to hold from now on",
		       gw_format_size(used, have, sizeof(have)), hold->name, q->host,
		       gw_format_size(hold->size, need, sizeof(need)));
}

int gw_budget_promise(const struct gw_paths *p, const char *host, const char *id,
		      const struct gw_hold *hold)
{
	struct asked q = { .p = p, .host = host, .id = id, .hold = hold };
	int rc = gw_promise_load(p, id, &q.before);

	if (rc == -ENOENT)
		q.before.hold.size = 0;
	else if (rc || (rc = check_before(&q)))
		return rc;
	q.more = gw_at_least_zero(hold->size, q.before.hold.size);
	rc = q.more ? gw_budget_serves(p, host) : 0;
	return rc ? rc : promise_somewhere(&q);
}
