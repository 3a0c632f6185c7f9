// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * kept.c - what this host kept of the arriving VM's memory; source/reuse.c
 * says how it is used.
 *
 * Before the first round nobody writes to the RAM files, so the digests of
 * blocks that WANT asks for are of what the image holds. The comparison with the
 * ledger goes on during the rounds, beside the receivers: what it finds in a page that
 * has been sent meanwhile means nothing, and the source takes no notice. After COMMIT the
 * source's ledger becomes this host's: from it the next departure knows what
 * memory was when it came.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "clock.h"
#include "codec.h"
#include "error.h"
#include "feature.h"
#include "log.h"
#include "pipeline.h"
#include "kept.h"
#include "runs.h"

#define LEDGER_NS (10 * GW_S)

int gw_kept_heed(struct gw_dest *d, const json_t *reuse)
{
	const json_int_t departures = json_integer_value(json_object_get(reuse, "departures"));
	const json_t *ids = json_object_get(reuse, "ids"), *one;
	uint8_t id[GW_ID_LEN];
	size_t i;

	if (!reuse)
		return 0;
	if (!json_is_array(ids) || departures < 0 || departures >= UINT32_MAX ||
	    json_array_size(ids) > GW_DEPARTURES_KEPT || json_array_size(ids) > (size_t)departures)
		return gw_fail(-EPROTO, "source: %lld departures that cannot be",
			       (long long)departures);
	json_array_foreach(ids, i, one)
		if (gw_id_parse(json_string_value(one), id))
			return gw_fail_prefix(-EPROTO, "source: ");
	d->reuse = true;
	d->unchecked = d->paging && d->features >> GW_FEATURE_RETURN & 1 &&
		       json_is_true(json_object_get(reuse, "unchecked"));
	d->departures = (uint32_t)departures;
	d->ids = json_incref((json_t *)(uintptr_t)ids);
	return 0;
}

json_t *gw_kept_offer(const struct gw_dest *d)
{
	const struct gw_bitmap *absent = &d->kept.absent;

	if (!d->kept.departure)
		return NULL;
	if (d->kept.unchecked)
		return json_pack("{s:I,s:b}", "departure", (json_int_t)d->kept.departure,
				 "unchecked", 1);
	if (d->kept.later)
		return json_pack("{s:I,s:b}", "departure", (json_int_t)d->kept.departure,
				 "comparing", 1);
	return json_pack("{s:I,s:I}", "departure", (json_int_t)d->kept.departure, "absent",
			 (json_int_t)gw_bitmap_count(absent, 0, absent->bits));
}

int gw_kept_send_absent(struct gw_dest *d)
{
	gw_autofree uint8_t *runs = malloc(GW_RUNS_MAX * GW_RUN_LEN);
	size_t at = 0, pages, len;
	int rc = 0;

	if (!runs)
		return gw_fail(-ENOMEM, "no memory for a list of pages");
	while (!rc && d->kept.departure && !d->kept.later && !d->kept.unchecked &&
	       (len = gw_runs_put(&d->kept.absent, &at, SIZE_MAX, &pages, runs)))
		rc = gw_frame_send_buf(d->control, GW_MSG_ABSENT, 0, runs, len);
	return rc;
}

/* Answers are few, whatever the size of the memory. */
#define ANSWERS 32

static bool is_news(void *arg)
{
	const struct gw_dest *d = arg;
	const size_t pages = d->memory->nr_pages, upto = d->ops->compared(d->env, pages, NULL);

	return upto == pages || upto - d->compared > pages / ANSWERS;
}

int gw_kept_compared(struct gw_dest *d)
{
	const uint64_t ms = d->inbox.arg < GW_COMPARE_MS ? d->inbox.arg : GW_COMPARE_MS;
	const size_t room = GW_RUNS_MAX * GW_RUN_LEN;
	gw_autofree uint8_t *runs = malloc(room);
	size_t at = d->compared, pages, len;
	int rc = d->ops->wait(d->env, is_news, d, d->ops->now(d->env) + (int64_t)ms * GW_MS);

	if (!runs)
		return gw_fail(-ENOMEM, "no memory for a list of pages");
	if (rc && rc != -ETIMEDOUT)
		return rc;
	gw_error_clear();
	d->compared = d->ops->compared(d->env, at, &d->kept.absent);
	len = gw_runs_put(&d->kept.absent, &at, SIZE_MAX, &pages, runs);
	if (len == room) /* the rest in the next answer */
		d->compared = at;
	return gw_frame_send_buf(d->control, GW_MSG_COMPARED, d->compared, runs, len);
}

/* Pages that a thread takes at a time; with fewer it is done by one. */
#define TELL_PART 64UL

/* What one WANT asks for, made by many threads: it costs 3 us a page. */
struct told {
	const struct gw_dest *d;
	size_t n, pages[GW_WANT_PAGES];
	bool zero[GW_WANT_PAGES];
	struct gw_blocks blocks[GW_WANT_PAGES];
	_Atomic size_t next;
	_Atomic size_t unread; /* one more than the place of one that cannot be read */
};

static void tell_some(void *arg, unsigned int thread)
{
	struct told *t = arg;
	uint8_t bytes[GW_PAGE_SIZE];
	size_t i;

	(void)thread;
	while ((i = t->next++ * TELL_PART) < t->n)
		for (size_t end = i + TELL_PART; i < end && i < t->n; i++) {
			if (gw_memory_read(t->d->memory, t->pages[i], 1, bytes)) {
				t->unread = i + 1;
				return;
			}
			t->zero[i] = gw_page_is_zero(bytes);
			if (!t->zero[i])
				gw_blocks_of(&t->d->key, bytes, &t->blocks[i]);
		}
}

static int tell_all(struct gw_dest *d, struct told *t)
{
	uint8_t bytes[GW_PAGE_SIZE];
	int rc = 0;

	if (t->n <= TELL_PART) {
		tell_some(t, 0);
	} else {
		rc = d->ops->compute(d->env, tell_some, t);
		d->ops->compute_join(d->env);
	}
	if (rc < 0 || !t->unread)
		return rc < 0 ? rc : 0;
	/* Again, for its message. */
	rc = gw_memory_read(d->memory, t->pages[t->unread - 1], 1, bytes);
	return rc ? rc : gw_fail(-EIO, "memory that is read at the second attempt");
}

/* The pages that the WANT in the inbox names. */
static int take_want(struct gw_dest *d, struct told *t)
{
	struct gw_reader r = { d->inbox.payload, d->inbox.len };
	size_t first = 0, count = 0, n = 0;
	int rc;

	while ((rc = gw_runs_take(&r, d->memory->nr_pages, &first, &count)) > 0) {
		for (size_t i = 0; i < count && n + i < GW_WANT_PAGES; i++)
			t->pages[n + i] = first + i;
		n += n > GW_WANT_PAGES ? 0 : count;
	}
	if (rc || !n || n > GW_WANT_PAGES)
		return gw_fail(-EPROTO, "source: wants %zu pages at once", n);
	t->n = n;
	return 0;
}

int gw_kept_tell(struct gw_dest *d)
{
	const size_t room = GW_WANT_PAGES / 8 + GW_WANT_PAGES * sizeof(struct gw_blocks);
	gw_autofree uint8_t *out = calloc(1, room);
	gw_autofree struct told *t = calloc(1, sizeof(*t));
	uint8_t *at;
	int rc;

	if (!out || !t)
		return gw_fail(-ENOMEM, "no memory for digests of blocks");
	t->d = d;
	rc = take_want(d, t);
	if (!rc)
		rc = tell_all(d, t);
	if (rc)
		return rc;
	at = out + (t->n + 7) / 8;
	for (size_t i = 0; i < t->n; i++) {
		if (t->zero[i])
			continue;
		out[i / 8] |= (uint8_t)(1U << i % 8);
		for (unsigned int k = 0; k < GW_PAGE_BLOCKS; k++, at += 8)
			gw_put64(at, t->blocks[i].digest[k]);
	}
	return gw_frame_send_buf(d->control, GW_MSG_BLOCKS, 0, out, (size_t)(at - out));
}

/* The departures of the source, and this one. */
static void take_over(struct gw_dest *d, struct gw_ledger *l)
{
	uint8_t id[GW_ID_LEN];

	gw_ledger_set_key(l, d->key.id);
	gw_ledger_begin(l, d->departures - (uint32_t)json_array_size(d->ids));
	for (size_t i = json_array_size(d->ids); i--;) {
		if (gw_id_parse(json_string_value(json_array_get(d->ids, i)), id))
			memset(id, 0, sizeof(id)); /* gw_kept_heed() has seen that it is one */
		gw_ledger_add(l, id);
	}
	gw_ledger_add(l, d->id);
}

static int receive_ledger(struct gw_dest *d, struct gw_ledger *l)
{
	const struct gw_ledger *base = d->kept.departure ? d->kept.ledger : NULL;
	size_t next = 0;

	for (;;) {
		int rc = gw_dest_next(d, d->ops->now(d->env) + LEDGER_NS);

		if (!rc && d->inbox.type == GW_MSG_LEDGER_END && next >= l->nr_pages)
			return gw_ledger_seal(l);
		if (!rc && (d->inbox.type != GW_MSG_LEDGER || d->inbox.arg != next))
			rc = gw_fail(-EPROTO, "source: sent %s, which is not due now",
				     gw_message_name(d->inbox.type));
		if (!rc)
			rc = gw_ledger_unpack(l, next, base, d->kept.departure, d->inbox.payload,
					      d->inbox.len);
		if (rc)
			return rc;
		next += GW_LEDGER_PART;
	}
}

int gw_kept_remember(struct gw_dest *d)
{
	struct gw_ledger l = { 0 };
	int rc = d->ops->ledger(d->env, d->memory->nr_pages, &l);

	if (!rc) {
		take_over(d, &l);
		rc = receive_ledger(d, &l);
	}
	gw_ledger_close(&l);
	return rc;
}

void gw_kept_unknown(void)
{
	gw_warn("what this VM's memory was on arrival is not known, so all of it will be sent when "
		"it leaves: %s",
		gw_error());
	gw_error_clear();
}
