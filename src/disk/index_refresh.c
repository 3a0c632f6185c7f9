// SPDX-License-Identifier: GPL-2.0-or-later
/* index_refresh.c - reading what is not known of an image; see index.h. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "clock.h"
#include "error.h"
#include "index_internal.h"

/* A segment that is to be read, and when. */
struct due {
	uint32_t place;
	uint32_t segment;
};

struct run {
	struct gw_index *x;
	const struct gw_index_source *from;
	uint64_t stamp;
	uint32_t turn;
	uint8_t *bytes;	     /* of a segment */
	uint64_t hole, data; /* nothing is stored from the one to the other */
	struct gw_index_refreshed *done;
};

static int by_place(const void *a, const void *b)
{
	const struct due *one = a, *other = b;

	if (one->place != other->place)
		return one->place < other->place ? -1 : 1;
	return one->segment < other->segment ? -1 : 1;
}

/* Those that are stale (their turn is the highest there is), never read (0), read long ago. */
static size_t find_due(const struct gw_index *x, uint64_t stamp, struct due *due)
{
	size_t nr = 0;

	for (size_t s = 0; s < x->nr_segments; s++)
		if (x->segments[s].stamp != stamp)
			due[nr++] = (struct due){ x->segments[s].turn + 1, (uint32_t)s };
	qsort(due, nr, sizeof(*due), by_place);
	return nr;
}

static uint32_t next_turn(const struct gw_index *x)
{
	uint32_t last = 0;

	for (size_t s = 0; s < x->nr_segments; s++)
		if (x->segments[s].turn != GW_INDEX_STALE && x->segments[s].turn > last)
			last = x->segments[s].turn;
	return last + 1;
}

static bool is_hole(struct run *r, uint64_t start, uint64_t end)
{
	if (start < r->hole || start >= r->data) {
		const int64_t at = r->from->data(r->from->env, start);

		r->hole = start;
		r->data = at == -ENODATA ? UINT64_MAX : at > (int64_t)start ? (uint64_t)at : start;
	}
	return end <= r->data;
}

static int keep(struct run *r, size_t segment)
{
	const uint64_t *digests = r->x->digests + segment * GW_SEGMENT_BLOCKS;

	return gw_index_keep(r->x, segment,
			     (struct gw_index_segment){
				     .stamp = r->stamp,
				     .digests = gw_index_digests_sum(digests),
				     .turn = r->turn,
			     });
}

/* It had its turn: one that takes long to fail must not be in the way of the others. */
static int keep_failed(struct run *r, size_t segment)
{
	r->done->failed++;
	return gw_index_keep(r->x, segment,
			     (struct gw_index_segment){
				     .digests = r->x->segments[segment].digests,
				     .turn = r->turn,
			     });
}

static int refresh_segment(struct run *r, size_t segment)
{
	const size_t first = segment * GW_SEGMENT_BLOCKS, left = r->x->nr_blocks - first;
	const size_t nr = left < GW_SEGMENT_BLOCKS ? left : GW_SEGMENT_BLOCKS;
	const uint64_t start = first * GW_PAGE_SIZE, end = start + nr * GW_PAGE_SIZE;
	uint64_t *digests = r->x->digests + first;

	if (is_hole(r, start, end)) {
		r->done->holes++;
		if (r->x->segments[segment].digests)
			memset(digests, 0, GW_SEGMENT_DIGESTS);
		return keep(r, segment);
	}
	if (r->from->read(r->from->env, r->bytes, end - start, start))
		return keep_failed(r, segment);
	r->done->read++;
	for (size_t i = 0; i < nr; i++)
		digests[i] = gw_index_digest(r->x, r->bytes + i * GW_PAGE_SIZE);
	return keep(r, segment);
}

static int refresh(struct run *r, int64_t deadline)
{
	gw_autofree struct due *due = malloc(r->x->nr_segments * sizeof(*due));
	gw_autofree uint8_t *bytes = aligned_alloc(GW_PAGE_SIZE, GW_SEGMENT_SIZE);
	size_t nr;
	int rc;

	if (!due || !bytes)
		return gw_fail(-ENOMEM, "no memory to read an image");
	rc = gw_index_load(r->x);
	if (rc)
		return rc;
	r->bytes = bytes;
	r->turn = next_turn(r->x);
	nr = find_due(r->x, r->stamp, due);
	r->done->left = nr;
	for (size_t i = 0; i < nr && gw_now() < deadline; i++) {
		if (r->from->cancelled(r->from->env))
			break;
		rc = refresh_segment(r, due[i].segment);
		if (rc)
			break;
		r->done->left--;
	}
	return rc;
}

int gw_index_refresh(struct gw_index *x, const struct gw_index_source *from, uint64_t stamp,
		     int64_t deadline, struct gw_index_refreshed *done)
{
	struct run r = { .x = x, .from = from, .stamp = stamp, .done = done };
	int rc;

	*done = (struct gw_index_refreshed){ 0 };
	if (!stamp)
		return gw_fail(-EINVAL, "index %s: 0 is no state of an image", x->path);
	rc = gw_index_lock(x);
	if (rc)
		return rc;
	if (gw_index_is_ours(x))
		rc = refresh(&r, deadline);
	else
		rc = gw_fail(-ESTALE, "index %s: another process has begun it anew", x->path);
	gw_index_unlock(x);
	return rc;
}
