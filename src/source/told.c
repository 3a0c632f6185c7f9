// SPDX-License-Identifier: GPL-2.0-or-later
/* told.c - what the main host of a split VM is told; see told.h. */
#include <errno.h>
#include <stdlib.h>

#include "codec.h"
#include "error.h"
#include "internal.h"
#include "runs.h"
#include "told.h"

#define RUNS	     ((size_t)GW_RUNS_MAX * GW_RUN_LEN)
#define BACK	     GW_HOLDERS_MAX /* in place of a sub-host: nowhere any more */
#define HISTORY_PART (64UL << 10)

int gw_told_init(struct gw_told *t, size_t nr_pages)
{
	int rc = gw_bitmap_init(&t->away, nr_pages);

	t->runs = malloc((BACK + 1) * RUNS);
	t->lens = calloc(BACK + 1, sizeof(*t->lens));
	return !rc && t->runs && t->lens ? 0 : gw_fail(-ENOMEM, "no memory to tell what is where");
}

void gw_told_free(struct gw_told *t)
{
	gw_bitmap_free(&t->away);
	free(t->runs);
	free(t->lens);
	t->runs = NULL;
	t->lens = NULL;
}

static int flush(struct gw_source *s, struct gw_told *t, unsigned int holder)
{
	const size_t len = t->lens[holder];

	t->lens[holder] = 0;
	return len ? gw_frame_send_buf(s->holder.control, GW_MSG_AWAY, holder,
				       t->runs + holder * RUNS, len)
		   : 0;
}

/* One page more: of the last run, or the first of the next. */
static int add(struct gw_source *s, struct gw_told *t, unsigned int holder, size_t page)
{
	uint8_t *runs = t->runs + holder * RUNS;

	if (t->lens[holder]) {
		uint8_t *last = runs + t->lens[holder] - GW_RUN_LEN;
		const uint32_t count = gw_get32(last + 8);

		if (gw_get64(last) + count == page && count < INT32_MAX) {
			gw_put32(last + 8, count + 1);
			return 0;
		}
	}
	if (t->lens[holder] == RUNS) {
		int rc = flush(s, t, holder);

		if (rc)
			return rc;
	}
	gw_run_put(runs + t->lens[holder], page, 1);
	t->lens[holder] += GW_RUN_LEN;
	return 0;
}

int gw_tell_away(struct gw_source *s, struct gw_told *t, unsigned int holder, size_t page)
{
	t->pages += !gw_bitmap_test(&t->away, page);
	gw_bitmap_set(&t->away, page);
	return add(s, t, holder, page);
}

int gw_tell_back(struct gw_source *s, struct gw_told *t, size_t page)
{
	gw_bitmap_clear(&t->away, page);
	t->pages--;
	return add(s, t, BACK, page);
}

int gw_tell_flush(struct gw_source *s, struct gw_told *t)
{
	int rc = flush(s, t, BACK);

	for (unsigned int k = 0; !rc && k < BACK; k++)
		rc = flush(s, t, k);
	return rc;
}

int gw_tell_history(struct gw_source *s, const uint8_t *history, size_t nr)
{
	int rc = 0;

	for (size_t unit = 0, n; !rc && unit < nr; unit += n) {
		n = nr - unit < HISTORY_PART ? nr - unit : HISTORY_PART;
		rc = gw_frame_send_buf(s->holder.control, GW_MSG_HISTORY, unit, history + unit, n);
	}
	return rc;
}
