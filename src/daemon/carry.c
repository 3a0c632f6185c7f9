// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * carry.c - a VM that is split already, while a worker moves it or puts a move right: its keeper
 * has given way, and is in this process (keeper.h). A thread does what a keeper does all the
 * time; the worker's own does what source/carried.h asks for.
 *
 * When the worker ends, and the VM is here, the daemon starts another keeper, as after one that
 * died. Without a daemon this process is that (gw_carry_keep()).
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "changes.h"
#include "cleanup.h"
#include "clock.h"
#include "error.h"
#include "io.h"
#include "keeper.h"
#include "log.h"
#include "source_env.h"

/* For its sub-hosts to be called. */
#define REACH_NS (10 * GW_S)
#define LOOK_MS	 20

struct gw_carry {
	struct gw_keeper *keeper;
	struct gw_carried carried;
	struct gw_tracker tracker;
	json_t *define;
	struct gw_beside beside;
	bool let_go;
};

static struct gw_split *split_of(const struct gw_source_env *e)
{
	return &e->carry->keeper->split;
}

/* Whoever is not there, or NULL. */
static const struct gw_server *missing(const struct gw_keeper *k)
{
	for (unsigned int i = 0; i < k->all.nr; i++)
		if (!k->servers[i].gone && !k->servers[i].up)
			return &k->servers[i];
	return NULL;
}

static int check_all_up(struct gw_keeper *k)
{
	const struct gw_server *s = missing(k);

	return s ? gw_fail(-EHOSTUNREACH, "sub-host %s cannot be reached just now", s->address) : 0;
}

static int await_servers(struct gw_source_env *e)
{
	struct gw_keeper *k = e->carry->keeper;
	const int64_t end = gw_now() + REACH_NS;

	while (missing(k) && gw_now() < end) {
		struct pollfd pfd = { .fd = e->w->ctl, .events = POLLIN };

		poll(&pfd, 1, LOOK_MS);
		gw_worker_heed(e->w, NULL, NULL);
		if (e->w->cancelled)
			return gw_fail(-ECANCELED, "cancelled");
	}
	for (unsigned int i = 0; i < k->all.nr; i++)
		if (!k->servers[i].gone && k->servers[i].up && !k->servers[i].carries)
			return gw_fail(-ENOTSUP,
				       "sub-host %s has an older godwitd, which cannot tell two "
				       "main hosts of a VM apart: bring the VM's memory back with "
				       "'godwit merge' before",
				       k->servers[i].address);
	return check_all_up(k);
}

int gw_carry_check(const struct gw_split_record *r, const char *name)
{
	if (r->merging)
		return gw_fail(-EBUSY,
			       "the memory of VM '%s' is coming back; see 'godwit status %s'", name,
			       name);
	for (unsigned int i = 0; i < r->nr_servers; i++)
		if (r->servers[i].leaves && !r->servers[i].gone)
			return gw_fail(-EBUSY,
				       "what VM '%s' has at %s is going elsewhere; wait until it "
				       "has: 'godwit status %s' shows how much is left",
				       name, r->servers[i].address, name);
	return 0;
}

int gw_carry_begin(struct gw_source_env *e, bool moves)
{
	const char *name = e->vm.def.name;
	struct gw_carry *c = calloc(1, sizeof(*c));
	struct gw_keeper *k;
	int rc;

	e->carry = c;
	k = c ? gw_keeper_new(e->w, name) : NULL;
	if (!k)
		return gw_fail(-ENOMEM, "no memory to page VM '%s'", name);
	c->keeper = k;
	rc = gw_keeper_open(k, name);
	if (!rc)
		rc = gw_keeper_take_over(k);
	if (!rc && moves)
		rc = gw_carry_check(&k->record, name);
	k->split.moves = moves;
	if (!rc)
		rc = gw_keeper_start(k, true);
	if (rc)
		return rc == GW_KEEPER_MERGED ? gw_fail(-EAGAIN, "VM '%s' is split no more", name)
					      : rc;
	rc = gw_beside_start(&c->beside, k);
	return rc || !moves ? rc : await_servers(e);
}

void gw_carry_keep(struct gw_source_env *e)
{
	gw_info("VM '%s' stays, and is kept by this process until there is a godwitd again",
		e->vm.def.name);
	gw_beside_stop(&e->carry->beside);
	gw_qmp_close(e->qmp);
	e->qmp = NULL;
	if (gw_keeper_keep(e->carry->keeper) && !e->w->orphaned)
		gw_warn("VM '%s': %s", e->vm.def.name, gw_error());
}

void gw_carry_end(struct gw_source_env *e)
{
	struct gw_carry *c = e->carry;

	if (!c)
		return;
	gw_beside_stop(&c->beside);
	if (c->keeper)
		gw_keeper_free(c->keeper);
	json_decref(c->define);
	free(c);
	e->carry = NULL;
}

static int refuse_others(const struct gw_source_env *e, const json_t *args)
{
	const struct gw_source_params *p = &e->s.params;

	static const char *const of_a_split[] = { "to",		  "auto",     "main-memory",
						  "chunk-pages",  "replicas", "history-period-ms",
						  "history-shift" };

	for (size_t i = 0; i < GW_ARRAY_SIZE(of_a_split); i++)
		if (json_object_get(args, of_a_split[i]))
			return gw_fail(-EINVAL,
				       "VM '%s' is split already, and stays as it is: move it "
				       "without --split, --main-memory, --chunk-pages, --replicas "
				       "and --history-...",
				       e->vm.def.name);
	if (p->verify)
		return gw_fail(-EINVAL, "--verify compares the memory of two hosts, and that of a "
					"split VM is on more: move it without");
	if (p->postcopy)
		return gw_fail(-EINVAL, "--postcopy brings all memory to one host, and that of a "
					"split VM stays where it is: move it without");
	return 0;
}

int gw_carry_note(struct gw_source_env *e, const json_t *args)
{
	struct gw_carry *c = e->carry;
	struct gw_keeper *k = c->keeper;
	struct gw_split_record there = k->record;
	int rc = refuse_others(e, args);

	if (rc)
		return rc;
	there.carried = true;
	c->define = gw_split_record_json(&there);
	c->carried.define = c->define;
	c->carried.away = k->split.table.words;
	c->carried.holders = k->split.table.holders;
	c->carried.seconds = k->split.table.seconds;
	memcpy(c->carried.lacks, k->split.table.lacks, sizeof(c->carried.lacks));
	c->carried.moved = k->split.table.moved;
	c->carried.units = &k->split.table.units;
	c->carried.history = k->ageing.unit;
	c->carried.nr = k->record.nr_servers;
	for (unsigned int i = 0; i < c->carried.nr; i++) {
		struct gw_server *s = &k->servers[i];
		gw_locked(&s->lock);

		if (s->gone)
			continue;
		gw_copy_whole(c->carried.subs[i].address, GW_ADDRESS_MAX, s->address);
		gw_copy_whole(c->carried.subs[i].host, GW_HOST_MAX, s->host);
	}
	/* Whoever saves the record last must know it. */
	memcpy(k->vm.secret, e->vm.secret, sizeof(k->vm.secret));
	k->vm.has_secret = e->vm.has_secret;
	e->s.carried = &c->carried;
	/* What is kept of it here, or there, is of a VM that is in one place. */
	e->s.params.reuse = false;
	return c->define ? 0 : gw_fail(-ENOMEM, "no memory for a split");
}

static struct gw_split *split_behind(struct gw_tracker *t)
{
	const struct gw_carry *c =
		(struct gw_carry *)((char *)t - offsetof(struct gw_carry, tracker));

	return &c->keeper->split;
}

static int op_scan(struct gw_tracker *t, size_t first, size_t count, struct gw_bitmap *due)
{
	return gw_changes_take(split_behind(t), first, count, due);
}

static int op_peek(struct gw_tracker *t, size_t first, size_t count, struct gw_bitmap *written)
{
	gw_changes_peek(split_behind(t), first, count, written);
	return 0;
}

/* Who pages it goes on, and lifts what is protected when somebody waits. */
static void op_stop(struct gw_tracker *t)
{
	(void)t;
}

static const struct gw_tracker_ops changes_ops = {
	.name = "split",
	.scan = op_scan,
	.peek = op_peek,
	.stop = op_stop,
};

struct gw_tracker *gw_carry_track(struct gw_source_env *e)
{
	e->carry->tracker.ops = &changes_ops;
	return gw_changes_begin(split_of(e)) ? NULL : &e->carry->tracker;
}

void gw_carry_room(struct gw_source_env *e)
{
	if (e->carry && e->s.state == GW_SOURCE_ACTIVE && !e->s.stopped &&
	    !e->carry->carried.frozen)
		gw_keeper_quiesce_by(e->carry->keeper, e->qmp);
}

int gw_carry_freeze(void *env)
{
	struct gw_source_env *e = env;
	int rc = check_all_up(e->carry->keeper);

	gw_split_freeze(split_of(e));
	return rc;
}

int gw_carry_leave(void *env)
{
	struct gw_source_env *e = env;
	/* One that is being called would be waited for. */
	int rc = check_all_up(e->carry->keeper);

	if (rc)
		return rc;
	e->carry->let_go = true;
	gw_servers_stop(&e->carry->keeper->all);
	return 0;
}

void gw_carry_thaw(void *env)
{
	struct gw_source_env *e = env;
	struct gw_carry *c = e->carry;
	struct gw_servers *all = &c->keeper->all;
	const bool owes = gw_split_thaw(split_of(e));

	if (c->let_go && gw_servers_start(all))
		gw_err("VM '%s': %s", e->vm.def.name, gw_error());
	else if (owes && !c->let_go)
		gw_servers_compare(all);
	c->let_go = false;
}
