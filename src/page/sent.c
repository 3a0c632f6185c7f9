// SPDX-License-Identifier: GPL-2.0-or-later
/* sent.c - the cache of sent pages; see sent.h. */
#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>

#include "cleanup.h"
#include "error.h"
#include "sent.h"
#include "xxh.h"

struct set {
	pthread_mutex_t lock;
	uint32_t newest_round, newcomers; /* new pages in the last round that had any */
	uint32_t untried;		  /* a bit per way: no delta from it yet */
	uint32_t round[GW_SENT_WAYS];	  /* last sent; 0: gives way to any */
	uint64_t page[GW_SENT_WAYS];	  /* number + 1; 0: free */
	struct gw_digest digest[GW_SENT_WAYS];
};

/* Head of the mapping; the sets follow, then, at a page's boundary, the pages. */
struct gw_sent {
	size_t bytes;
	size_t nr_sets; /* odd, so that no stride of a power of two meets few sets */
	uint8_t *pages;
	struct set sets[];
};

static size_t head_size(size_t nr_sets)
{
	size_t size = sizeof(struct gw_sent) + nr_sets * sizeof(struct set);

	return (size + GW_PAGE_SIZE - 1) / GW_PAGE_SIZE * GW_PAGE_SIZE;
}

int gw_sent_open(struct gw_sent **sent, uint64_t bytes)
{
	const size_t per_set = sizeof(struct set) + GW_SENT_WAYS * GW_PAGE_SIZE;
	const size_t fixed = sizeof(struct gw_sent) + GW_PAGE_SIZE - 1;
	size_t nr_sets, size;
	struct gw_sent *c;

	*sent = NULL;
	if (bytes < fixed + per_set)
		return 0;
	nr_sets = (bytes - fixed) / per_set;
	nr_sets -= !(nr_sets % 2);
	size = head_size(nr_sets) + nr_sets * GW_SENT_WAYS * GW_PAGE_SIZE;
	c = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
		 -1, 0);
	if (c == MAP_FAILED)
		return gw_fail(-ENOMEM,
			       "no memory for %zu bytes of sent pages; choose a smaller "
			       "--delta-cache",
			       size);
	c->bytes = size;
	c->nr_sets = nr_sets;
	c->pages = (uint8_t *)c + head_size(nr_sets);
	for (size_t i = 0; i < nr_sets; i++)
		pthread_mutex_init(&c->sets[i].lock, NULL);
	*sent = c;
	return 0;
}

void gw_sent_close(struct gw_sent *sent)
{
	if (!sent)
		return;
	for (size_t i = 0; i < sent->nr_sets; i++)
		pthread_mutex_destroy(&sent->sets[i].lock);
	munmap(sent, sent->bytes);
}

size_t gw_sent_bytes(const struct gw_sent *sent)
{
	return sent->bytes;
}

size_t gw_sent_places(const struct gw_sent *sent)
{
	return sent->nr_sets * GW_SENT_WAYS;
}

static struct set *set_of(struct gw_sent *sent, size_t page)
{
	return &sent->sets[page % sent->nr_sets];
}

/* Pages in a row lie in a row, as long as they find the same way. */
static uint8_t *bytes_of(const struct gw_sent *sent, const struct set *set, unsigned int way)
{
	const size_t nr = way * sent->nr_sets + (size_t)(set - sent->sets);

	return sent->pages + nr * GW_PAGE_SIZE;
}

/* GW_SENT_WAYS if it is nowhere. */
static unsigned int way_of(const struct set *set, size_t page)
{
	unsigned int way = 0;

	while (way < GW_SENT_WAYS && set->page[way] != page + 1)
		way++;
	return way;
}

/*
 * A place for a new page, or GW_SENT_WAYS. Among those that came in this round
 * the page replaces one with such a chance that in the end each had the same
 * (reservoir sampling).
 */
static unsigned int way_for(struct set *set, size_t page, uint64_t round)
{
	const uint64_t key[] = { page, round };
	unsigned int rivals[GW_SENT_WAYS], nr = 0, oldest = 0;
	uint64_t chance;

	if (set->newest_round != (uint32_t)round)
		set->newcomers = 0;
	set->newest_round = (uint32_t)round;
	set->newcomers++;
	for (unsigned int way = 0; way < GW_SENT_WAYS; way++) {
		if (!set->page[way])
			return way;
		if (set->round[way] < set->round[oldest])
			oldest = way;
		if (set->untried >> way & 1 && set->round[way] == (uint32_t)round)
			rivals[nr++] = way;
	}
	if (!set->round[oldest] || set->round[oldest] + GW_SENT_AGE < round)
		return oldest;
	chance = XXH3_64bits(key, sizeof(key)) % set->newcomers;
	return chance < nr ? rivals[chance] : GW_SENT_WAYS;
}

const uint8_t *gw_sent_take(struct gw_sent *sent, size_t page, struct gw_digest held)
{
	struct set *set = set_of(sent, page);
	unsigned int way;

	pthread_mutex_lock(&set->lock);
	way = way_of(set, page);
	if (way < GW_SENT_WAYS && gw_digest_equal(set->digest[way], held))
		return bytes_of(sent, set, way);
	pthread_mutex_unlock(&set->lock);
	return NULL;
}

static void store(struct gw_sent *sent, struct set *set, unsigned int way, size_t page,
		  struct gw_digest digest, const uint8_t *bytes, uint64_t round)
{
	set->page[way] = page + 1;
	set->round[way] = (uint32_t)round;
	set->digest[way] = digest;
	memcpy(bytes_of(sent, set, way), bytes, GW_PAGE_SIZE);
}

void gw_sent_give(struct gw_sent *sent, size_t page, struct gw_digest digest, const uint8_t *bytes,
		  uint64_t round)
{
	struct set *set = set_of(sent, page);
	const unsigned int way = way_of(set, page);

	set->untried &= ~(1U << way);
	store(sent, set, way, page, digest, bytes, round);
	pthread_mutex_unlock(&set->lock);
}

void gw_sent_put(struct gw_sent *sent, size_t page, struct gw_digest digest, const uint8_t *bytes,
		 uint64_t round)
{
	struct set *set = set_of(sent, page);
	unsigned int way;

	gw_locked(&set->lock);
	way = way_of(set, page);
	if (way == GW_SENT_WAYS) {
		way = way_for(set, page, round);
		if (way == GW_SENT_WAYS)
			return;
		set->untried |= 1U << way;
	}
	store(sent, set, way, page, digest, bytes, round);
}

void gw_sent_drop(struct gw_sent *sent, size_t page)
{
	struct set *set = set_of(sent, page);
	unsigned int way;

	gw_locked(&set->lock);
	way = way_of(set, page);
	if (way < GW_SENT_WAYS)
		set->page[way] = 0;
}
