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
	d->departures = (uint32_t)departures;
	d->ids = json_incref((json_t *)(uintptr_t)ids);
	return 0;
}

json_t *gw_kept_offer(const struct gw_dest *d)
{
	const struct gw_bitmap *absent = &d->kept.absent;

	if (!d->kept.departure)
		return NULL;
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
	while (!rc && d->kept.departure && !d->kept.later &&
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

/* Digests of the blocks of @page at @out, unless it is zero. Return: bytes, or -errno. */
static long tell_page(const struct gw_dest *d, size_t page, uint8_t *out)
{
	uint8_t bytes[GW_PAGE_SIZE];
	struct gw_blocks blocks;
	int rc = gw_memory_read(d->memory, page, 1, bytes);

	if (rc)
		return rc;
	if (gw_page_is_zero(bytes))
		return 0;
	gw_blocks_of(&d->key, bytes, &blocks);
	for (unsigned int k = 0; k < GW_PAGE_BLOCKS; k++)
		gw_put64(out + 8UL * k, blocks.digest[k]);
	return sizeof(blocks.digest);
}

int gw_kept_tell(struct gw_dest *d)
{
	const size_t room = GW_WANT_PAGES / 8 + GW_WANT_PAGES * sizeof(struct gw_blocks);
	struct gw_reader r = { d->inbox.payload, d->inbox.len };
	gw_autofree uint8_t *out = calloc(1, room);
	size_t first = 0, count = 0, n = 0, len;
	uint8_t *at;
	int rc;

	if (!out)
		return gw_fail(-ENOMEM, "no memory for digests of blocks");
	/* How many there are decides where the digests begin. */
	while ((rc = gw_runs_take(&r, d->memory->nr_pages, &first, &count)) > 0)
		n += n > GW_WANT_PAGES ? 0 : count;
	if (rc || !n || n > GW_WANT_PAGES)
		return gw_fail(-EPROTO, "source: wants %zu pages at once", n);
	len = (n + 7) / 8;
	at = out + len;
	r = (struct gw_reader){ d->inbox.payload, d->inbox.len };
	first = count = n = 0;
	while (gw_runs_take(&r, d->memory->nr_pages, &first, &count) > 0) {
		for (size_t i = 0; i < count; i++, n++) {
			long told = tell_page(d, first + i, at);

			if (told < 0)
				return (int)told;
			if (told)
				out[n / 8] |= (uint8_t)(1U << n % 8);
			at += told;
		}
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

void gw_kept_remember(struct gw_dest *d)
{
	struct gw_ledger l = { 0 };
	int rc = d->ops->ledger(d->env, d->memory->nr_pages, &l);

	if (!rc) {
		take_over(d, &l);
		rc = receive_ledger(d, &l);
	}
	if (rc)
		gw_warn("what this VM's memory was on arrival is not known, so all of it will be "
			"sent when it leaves: %s",
			gw_error());
	gw_ledger_close(&l);
	gw_error_clear();
}
