// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * worker_spread.c - a migration to several hosts, at its source: what is asked for, the way to the
 * sub-hosts, and what the guest uses of its memory (source/spread.h).
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "accessed.h"
#include "cleanup.h"
#include "clock.h"
#include "error.h"
#include "io.h"
#include "peers.h"
#include "source_env.h"
#include "split_hosts.h"
#include "split_record.h"

/* A whole huge page: what the main host has to punch later must not be a part of one. */
#define UNIT_PAGES GW_UNIT_PAGES_MAX

/*
 * What the guest touches soon after its entries were dropped, it uses often. So all are dropped at
 * first, and then so many times it is seen which are there again, each time counting half as much.
 */
#define LOOKS	  4
/* Entries that are dropped at a time, and how often at most: those of 64 GiB. */
#define DROPS	  (1UL << 20)
#define DROPS_MAX 16

static void note(struct gw_source_env *e, const struct gw_split_record *r)
{
	struct gw_spread *sp = &e->spread;
	char *to = e->journal.split_to;
	size_t len = 0;

	memcpy(e->journal.split_id, r->id, GW_ID_LEN);
	sp->nr = r->nr_servers;
	for (unsigned int k = 0; k < sp->nr; k++) {
		snprintf(sp->subs[k].address, sizeof(sp->subs[k].address), "%s",
			 r->servers[k].address);
		sp->subs[k].size = r->servers[k].size;
		len += (size_t)snprintf(to + len, sizeof(e->journal.split_to) - len, "%s%s=%llu",
					k ? "," : "", r->servers[k].address,
					(unsigned long long)r->servers[k].size);
	}
	e->s.spread = sp;
}

static int refuse_others(const struct gw_source_env *e, const struct gw_split_record *r)
{
	const struct gw_source_params *p = &e->s.params;

	if (p->verify)
		return gw_fail(-EINVAL, "--verify compares the memory of two hosts, and with "
					"--split it goes to more: use one of them");
	if (p->postcopy)
		return gw_fail(-EINVAL, "--postcopy brings all memory to one host, and --split "
					"does not: use one of them");
	if (r->unit_pages < GW_CHUNK_PAGES)
		return gw_fail(-EINVAL, "--chunk-pages is %lu or %d where a VM moves",
			       GW_CHUNK_PAGES, GW_UNIT_PAGES_MAX);
	if (p->streams + r->nr_servers > GW_CREW_MAX)
		return gw_fail(-EINVAL, "--streams and sub-hosts are %d at most in all",
			       GW_CREW_MAX);
	return 0;
}

static int ask(struct gw_source_env *e, const json_t *args)
{
	const uint64_t memory = gw_definition_bytes(&e->vm.def);
	struct gw_split_record r;
	int rc;

	rc = gw_split_record_ask(&r, args, memory);
	if (!rc && !json_object_get(args, "chunk-pages"))
		r.unit_pages = UNIT_PAGES;
	if (!rc)
		rc = refuse_others(e, &r);
	if (!rc)
		rc = gw_id_make(r.id);
	if (rc)
		return rc;
	/* What the main host keeps free must have room somewhere, if nobody has said how much is.
	 */
	for (unsigned int k = 0; k < r.nr_servers; k++)
		if (!json_object_get(json_array_get(json_object_get(args, "to"), k), "size"))
			r.servers[k].size += gw_split_record_spare(&r) * GW_PAGE_SIZE;
	note(e, &r);
	e->spread.main_memory = r.main_memory;
	e->spread.unit_pages = r.unit_pages;
	e->spread.copies = r.replicas;
	e->spread.stay = r.main_memory / GW_PAGE_SIZE - gw_split_record_spare(&r);
	e->period_ms = r.period_ms;
	e->split = gw_split_record_json(&r);
	e->spread.define = e->split;
	/* What is kept of it here, or there, is of a VM that is in one place. */
	e->s.params.reuse = false;
	return e->split ? 0 : gw_fail(-ENOMEM, "no memory for a split");
}

int gw_spread_ask(struct gw_source_env *e, const json_t *args)
{
	json_t *asked = NULL;
	int rc;

	if (!json_object_get(args, "to") && !json_object_get(args, "auto"))
		return json_object_get(args, "main-memory") ||
				       json_object_get(args, "chunk-pages") ||
				       json_object_get(args, "history-period-ms") ||
				       json_object_get(args, "history-shift") ||
				       json_object_get(args, "replicas")
			       ? gw_fail(-EINVAL, "--main-memory, --chunk-pages, --replicas and "
						  "--history-... belong to --split")
			       : 0;
	rc = gw_split_hosts(e->w, args, gw_definition_bytes(&e->vm.def),
			    json_string_value(json_object_get(args, "address")), &asked);
	if (!rc)
		rc = ask(e, asked);
	json_decref(asked);
	return rc;
}

/* ADDRESS=SIZE of the journal. */
static bool recall_one(struct gw_sub *sub, char *one)
{
	char *size = strrchr(one, '=');

	if (!size || size - one >= (ptrdiff_t)sizeof(sub->address))
		return false;
	*size++ = '\0';
	snprintf(sub->address, sizeof(sub->address), "%.*s", (int)sizeof(sub->address) - 1, one);
	sub->size = strtoull(size, NULL, 10);
	sub->asked = sub->size > 0;
	return sub->asked;
}

void gw_spread_give_up(struct gw_source_env *e)
{
	gw_autofree char *copy = strdup(e->journal.split_to);
	struct gw_spread *sp = &e->spread;
	struct gw_source *s = &e->s;
	struct gw_memory memory = { 0 };
	char *save = NULL;
	json_t *definition;
	bool known = true;

	for (char *one = copy ? strtok_r(copy, ",", &save) : NULL; one && sp->nr < GW_HOLDERS_MAX;
	     one = strtok_r(NULL, ",", &save))
		sp->nr += recall_one(&sp->subs[sp->nr], one);
	if (!sp->nr)
		return;
	for (unsigned int i = 0; known && i < e->vm.def.nr_memory; i++)
		known = gw_memory_add(&memory, e->vm.def.memory[i].id, e->vm.def.memory[i].size) >=
			0;
	definition = gw_definition_json(&e->vm.def);
	s->ops = &gw_source_live_ops;
	s->env = e;
	s->memory = &memory;
	s->definition = definition;
	s->spread = sp;
	gw_copy_whole(s->holder.host, sizeof(s->holder.host), e->journal.host);
	if (known)
		gw_spread_dismiss(s);
	gw_spread_free(sp);
	s->memory = NULL;
	s->definition = NULL;
	s->spread = NULL;
	json_decref(definition);
}

struct gw_transport *gw_spread_connect(void *env, unsigned int sub, unsigned int index,
				       int64_t deadline)
{
	const struct gw_source_env *e = env;
	const struct gw_peer peer = { .address = e->spread.subs[sub].address,
				      .wake = { .fd = -1 } };
	struct gw_open open = { .kind = GW_OPEN_MEMORY, .stream = index, .version_min = 2 };
	struct gw_transport *t = gw_peer_connect(&peer, deadline);
	struct gw_frame f = { 0 };

	memcpy(open.id, e->journal.split_id, GW_ID_LEN);
	if (t && gw_peer_open(t, &open, GW_MSG_ACCEPT, &f, deadline))
		gw_transport_close(&t);
	gw_frame_free(&f);
	return t;
}

/* Until @until, or somebody wants to end it. */
static int rest(struct gw_source_env *e, int64_t until)
{
	int rc = e->s.ops->cancelled(e);

	while (!rc && gw_now() < until) {
		struct pollfd pfd = { .fd = e->w->ctl, .events = POLLIN };

		poll(&pfd, 1, gw_poll_ms(until));
		rc = e->s.ops->cancelled(e);
	}
	return rc;
}

/* A thread of QEMU that cannot be stopped now says nothing of the guest. */
static int sample(struct gw_accessed *a, struct gw_bitmap *accessed, size_t drops)
{
	int rc;

	gw_bitmap_zero(accessed);
	rc = gw_accessed_sample(a, accessed, drops);
	if (rc == -EAGAIN) {
		gw_error_clear();
		rc = 0;
	}
	return rc;
}

static int look(struct gw_source_env *e, struct gw_accessed *a, struct gw_bitmap *accessed,
		struct gw_ageing *ageing)
{
	int rc = 0;

	for (unsigned int i = 0; !rc && i < DROPS_MAX && !a->rounds; i++) {
		rc = sample(a, accessed, DROPS);
		if (!rc && gw_bitmap_count(accessed, 0, accessed->bits) <= DROPS)
			break; /* that were all */
		if (!rc)
			rc = rest(e, 0);
	}
	for (unsigned int i = 0; !rc && i < LOOKS; i++) {
		if (i)
			gw_ageing_shift(ageing);
		rc = rest(e, gw_now() + (int64_t)e->period_ms * GW_MS);
		if (!rc)
			rc = sample(a, accessed, 0);
		if (!rc)
			gw_ageing_add(ageing, accessed);
	}
	return rc;
}

int gw_spread_history(void *env, struct gw_ageing *ageing)
{
	struct gw_source_env *e = env;
	const struct gw_memory *m = &e->ram.memory;
	struct gw_track_range ranges[GW_TRACK_RANGES];
	const unsigned int nr = gw_track_ranges(&e->ram, ranges);
	struct gw_bitmap accessed = { 0 };
	struct gw_accessed a;
	int rc;

	rc = gw_accessed_open(&a, e->vm.process.pid, ranges, nr);
	if (rc)
		return rc;
	rc = gw_bitmap_init(&accessed, m->nr_pages);
	if (!rc)
		rc = look(e, &a, &accessed, ageing);
	gw_bitmap_free(&accessed);
	gw_accessed_close(&a);
	return rc;
}
