// SPDX-License-Identifier: GPL-2.0-or-later
/* netpt.c - which pages of a split VM are where; see netpt.h. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cleanup.h"
#include "error.h"
#include "netpt.h"

#define MAGIC 0x31303070746e7767ULL /* "gwntp001" */

/* First page and how many, in one word: who dies leaves both or neither. */
#define NOTE_COUNT_BITS 16
_Static_assert(GW_UNIT_PAGES_MAX < 1 << NOTE_COUNT_BITS, "a unit fits into a note");

struct gw_netpt_head {
	uint64_t magic;
	uint64_t nr_pages;
	uint64_t unit_pages;
	uint8_t id[GW_ID_LEN];
	_Atomic uint64_t placing[GW_NETPT_STRIPES]; /* 0: nothing */
	uint64_t copies;			    /* 0: one, as of before there were more */
};

#define HEAD GW_PAGE_SIZE
_Static_assert(sizeof(struct gw_netpt_head) <= HEAD, "it fits");

static int map(struct gw_netpt *t, int fd, const char *path)
{
	uint8_t *at = mmap(NULL, t->len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	if (at == MAP_FAILED)
		return gw_fail(-errno, "%s: %s", path, strerror(errno));
	t->head = (struct gw_netpt_head *)at;
	t->words = (gw_shared_word *)(at + HEAD);
	return 0;
}

/* How long a table of such units is: behind its head bits, then bytes. */
static void lay_out(struct gw_netpt *t, const struct gw_memory *memory, unsigned int unit_pages,
		    uint64_t copies)
{
	const size_t bits = gw_shared_bits_len(memory->nr_pages);

	gw_units_init(&t->units, memory, unit_pages);
	t->nr_pages = memory->nr_pages;
	t->len = HEAD + bits + t->units.nr;
	if (copies > 1)
		t->len += GW_COPIES_MAX * bits + t->units.nr;
}

/* Where the parts lie, once it is mapped. */
static void find_parts(struct gw_netpt *t, uint64_t copies)
{
	const size_t bits = gw_shared_bits_len(t->nr_pages);
	uint8_t *at = (uint8_t *)t->words + bits;

	for (unsigned int i = 0; copies > 1 && i < GW_COPIES_MAX; i++, at += bits)
		t->lacks[i] = (gw_shared_word *)at;
	t->holders = (_Atomic uint8_t *)at;
	t->seconds = copies > 1 ? (_Atomic uint8_t *)(at + t->units.nr) : NULL;
}

int gw_netpt_create(struct gw_netpt *t, const char *path, const struct gw_memory *memory,
		    const uint8_t id[GW_ID_LEN], unsigned int unit_pages)
{
	return gw_netpt_create_for(t, path, memory, id, unit_pages, 1);
}

int gw_netpt_create_for(struct gw_netpt *t, const char *path, const struct gw_memory *memory,
			const uint8_t id[GW_ID_LEN], unsigned int unit_pages, unsigned int copies)
{
	gw_autofd int fd = -1;
	int rc;

	memset(t, 0, sizeof(*t));
	lay_out(t, memory, unit_pages, copies);
	if (unlink(path) && errno != ENOENT)
		return gw_fail(-errno, "%s: %s", path, strerror(errno));
	fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0 || ftruncate(fd, (off_t)t->len))
		return gw_fail(-errno, "%s: %s", path, strerror(errno));
	rc = map(t, fd, path);
	if (rc)
		return rc;
	find_parts(t, copies);
	t->head->copies = copies;
	t->head->nr_pages = memory->nr_pages;
	t->head->unit_pages = unit_pages;
	memcpy(t->head->id, id, GW_ID_LEN);
	t->head->magic = MAGIC;
	return 0;
}

/* Of these, which are away: how many are with one of two holders. */
static size_t count_single(const struct gw_netpt *t, size_t first, size_t count)
{
	size_t n = 0;

	for (size_t page = first; t->seconds && page < first + count; page++)
		n += gw_shared_bit(t->lacks[0], page) || gw_shared_bit(t->lacks[1], page);
	return n;
}

/* Its bits: none where there is no memory. */
static int check_bits(struct gw_netpt *t, const struct gw_memory *memory)
{
	size_t at = 0, first, n;

	while ((n = gw_netpt_next(t, &at, t->nr_pages, &first))) {
		const struct gw_memory_block *b = gw_memory_block_of(memory, first);
		const size_t left = b ? b->first_page + b->nr_pages - first : 0;

		if (!b)
			return -EINVAL;
		if (n > left) {
			/* The next block's may follow. */
			n = left;
			at = first + n;
		}
		t->away += n;
		t->single += count_single(t, first, n);
	}
	return 0;
}

int gw_netpt_open(struct gw_netpt *t, const char *path, const struct gw_memory *memory,
		  const uint8_t id[GW_ID_LEN])
{
	gw_autofd int fd = open(path, O_RDWR | O_CLOEXEC);
	uint64_t unit_pages, copies;
	struct stat st;
	int rc;

	memset(t, 0, sizeof(*t));
	if (fd < 0 || fstat(fd, &st))
		return gw_fail(-errno, "%s: %s", path, strerror(errno));
	if (!S_ISREG(st.st_mode) || st.st_size < (off_t)HEAD)
		return gw_fail(-EINVAL, "%s is no page table", path);
	t->len = (size_t)st.st_size;
	rc = map(t, fd, path);
	if (rc)
		return rc;
	unit_pages = t->head->unit_pages;
	copies = t->head->copies;
	if (t->head->magic == MAGIC && t->head->nr_pages == memory->nr_pages &&
	    memcmp(t->head->id, id, GW_ID_LEN) == 0 && unit_pages &&
	    unit_pages <= GW_UNIT_PAGES_MAX && !(unit_pages & (unit_pages - 1)) &&
	    copies <= GW_COPIES_MAX) {
		lay_out(t, memory, (unsigned int)unit_pages, copies);
		if (t->len == (size_t)st.st_size)
			find_parts(t, copies);
	}
	/* lay_out() has said how long it must be. */
	if (!t->holders || check_bits(t, memory)) {
		t->len = (size_t)st.st_size;
		return gw_fail(-EINVAL, "%s is damaged, or of another VM", path);
	}
	return 0;
}

void gw_netpt_close(struct gw_netpt *t)
{
	if (t->head)
		munmap(t->head, t->len);
	memset(t, 0, sizeof(*t));
}

/* What was just changed is of unit @unit. */
static void note_moved(struct gw_netpt *t, size_t unit)
{
	if (t->moved)
		gw_shared_bit_set(t->moved, unit);
}

void gw_netpt_leaves(struct gw_netpt *t, size_t first, size_t count)
{
	gw_netpt_leaves_for(t, first, count, (1U << GW_COPIES_MAX) - 1);
}

void gw_netpt_leaves_for(struct gw_netpt *t, size_t first, size_t count, unsigned int copies)
{
	for (unsigned int i = 0; t->seconds && i < GW_COPIES_MAX; i++) {
		if (copies & 1U << i)
			gw_shared_bits_clear(t->lacks[i], first, count);
		else
			gw_shared_bits_set(t->lacks[i], first, count);
	}
	t->single += count_single(t, first, count);
	t->away += gw_shared_bits_set(t->words, first, count);
	note_moved(t, gw_unit_of(&t->units, first));
}

void gw_netpt_place(struct gw_netpt *t, size_t unit, size_t first, size_t count)
{
	t->head->placing[unit % GW_NETPT_STRIPES] = (uint64_t)first << NOTE_COUNT_BITS | count;
}

void gw_netpt_unplace(struct gw_netpt *t, size_t unit)
{
	t->head->placing[unit % GW_NETPT_STRIPES] = 0;
}

/* Of one unit, whichever of them are away. */
static void here(struct gw_netpt *t, size_t first, size_t count)
{
	size_t at = first, run, n;

	while (t->seconds && (n = gw_netpt_next(t, &at, first + count, &run)))
		t->single -= count_single(t, run, n);
	t->away -= gw_shared_bits_clear(t->words, first, count);
}

void gw_netpt_placed(struct gw_netpt *t, size_t unit, size_t first, size_t count)
{
	here(t, first, count);
	note_moved(t, unit);
	gw_netpt_unplace(t, unit);
}

size_t gw_netpt_torn(const struct gw_netpt *t, unsigned int stripe, size_t *first)
{
	const uint64_t note = t->head->placing[stripe];
	const size_t count = note & ((1U << NOTE_COUNT_BITS) - 1);

	*first = (size_t)(note >> NOTE_COUNT_BITS);
	return *first < t->nr_pages && count <= t->nr_pages - *first ? count : 0;
}

size_t gw_netpt_next(const struct gw_netpt *t, size_t *at, size_t end, size_t *first)
{
	*first = gw_shared_bits_next(t->words, *at, end, true);
	*at = gw_shared_bits_next(t->words, *first, end, false);
	return *at - *first;
}

size_t gw_netpt_next_at(const struct gw_netpt *t, unsigned int slot, size_t *at, size_t end,
			size_t *first)
{
	const gw_shared_word *lacks = t->lacks[slot];
	size_t n;

	while ((n = gw_netpt_next(t, at, end, first)) && lacks) {
		const size_t stop = *at;

		*first = gw_shared_bits_next(lacks, *first, stop, false);
		*at = gw_shared_bits_next(lacks, *first, stop, true);
		n = *at - *first;
		if (n)
			break;
	}
	return n;
}

bool gw_netpt_has_any(const struct gw_netpt *t, size_t unit, unsigned int slot)
{
	size_t at, first, count = gw_unit_pages(&t->units, unit, &at);

	return gw_netpt_at(t, unit, slot) != GW_NO_HOLDER &&
	       gw_netpt_next_at(t, slot, &at, at + count, &first);
}

int gw_netpt_slot(const struct gw_netpt *t, size_t unit, unsigned int holder)
{
	for (unsigned int slot = 0; slot < gw_netpt_copies_max(t); slot++)
		if (gw_netpt_at(t, unit, slot) == holder)
			return (int)slot;
	return -ENOENT;
}

void gw_netpt_put(struct gw_netpt *t, size_t unit, unsigned int slot, unsigned int holder)
{
	if (slot)
		atomic_store(&t->seconds[unit], (uint8_t)(holder == GW_NO_HOLDER ? 0 : holder + 1));
	else
		gw_netpt_assign(t, unit, holder);
}

unsigned int gw_netpt_copies(const struct gw_netpt *t, size_t page)
{
	unsigned int copies = 0;

	for (unsigned int i = 0; i < GW_COPIES_MAX; i++)
		if (t->lacks[i] && !gw_shared_bit(t->lacks[i], page))
			copies |= 1U << i;
	return t->seconds ? copies : 1;
}

void gw_netpt_gain(struct gw_netpt *t, size_t first, size_t count, unsigned int slot)
{
	t->single -= count_single(t, first, count);
	gw_shared_bits_clear(t->lacks[slot], first, count);
	t->single += count_single(t, first, count);
	note_moved(t, gw_unit_of(&t->units, first));
}

void gw_netpt_drop(struct gw_netpt *t, size_t page, unsigned int slot)
{
	const unsigned int copies = gw_netpt_copies(t, page);

	gw_shared_bit_set(t->lacks[slot], page);
	t->single += copies == (1U << GW_COPIES_MAX) - 1;
	note_moved(t, gw_unit_of(&t->units, page));
}

bool gw_netpt_places(const struct gw_netpt *t, size_t unit, const unsigned int to[GW_COPIES_MAX],
		     unsigned int places[GW_COPIES_MAX])
{
	for (unsigned int i = 0; i < GW_COPIES_MAX; i++)
		places[i] = GW_NO_HOLDER;
	for (unsigned int i = 0; i < GW_COPIES_MAX; i++) {
		const int slot = gw_netpt_slot(t, unit, to[i]);

		if (to[i] != GW_NO_HOLDER && slot >= 0)
			places[slot] = to[i];
	}
	for (unsigned int i = 0; i < GW_COPIES_MAX; i++) {
		unsigned int slot = 0;

		if (to[i] == GW_NO_HOLDER || gw_netpt_slot(t, unit, to[i]) >= 0)
			continue;
		while (slot < gw_netpt_copies_max(t) &&
		       (places[slot] != GW_NO_HOLDER || gw_netpt_has_any(t, unit, slot)))
			slot++;
		if (slot == gw_netpt_copies_max(t))
			return false;
		places[slot] = to[i];
	}
	return true;
}
