// SPDX-License-Identifier: GPL-2.0-or-later
/* fault.c - faults, and the pages that answer them; see pager.h. */
#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "error.h"
#include "log.h"
#include "pager.h"

/* The kernel asks for patience while QEMU changes its mappings. */
#define PATIENCE 1000

static void park(const struct gw_pager *p, enum gw_park where, size_t page)
{
	if (p->ops->park)
		p->ops->park(p->env, where, page);
}

int gw_pager_init(struct gw_pager *p)
{
	p->len = gw_shared_bits_len(p->memory->nr_pages);
	p->claimed = gw_shared_bits_new(p->len);
	p->wanted = gw_shared_bits_new(p->len);
	p->refused = gw_shared_bits_new(p->len);
	gw_fault_times_init(&p->times);
	return p->claimed && p->wanted && p->refused ? 0
						     : gw_fail(-ENOMEM, "no memory to page with");
}

void gw_pager_free(struct gw_pager *p)
{
	gw_shared_bits_free(p->claimed, p->len);
	gw_shared_bits_free(p->wanted, p->len);
	if (p->len)
		gw_fault_times_free(&p->times);
	p->claimed = p->wanted = NULL;
	gw_shared_bits_free(p->unchecked, p->len);
	gw_shared_bits_free(p->refused, p->len);
	p->unchecked = p->refused = NULL;
	p->len = 0;
	gw_missing_close(&p->missing);
}

/* What map() or map_zero() could not do, and nobody but this host can help. */
static void refused(struct gw_pager *p, size_t page, int rc)
{
	if (rc == -ESRCH) {
		p->gone = true;
	} else {
		if (!atomic_exchange(&p->retry, true))
			gw_err("the guest waits for page %zu, which is here, for want of memory on "
			       "this host: %s",
			       page, strerror(-rc));
	}
	p->ops->notify(p->env);
}

/* @page is there, so let whoever waits for it go on. Return: 0 if it was not seen before. */
static int go_on(struct gw_pager *p, size_t page)
{
	size_t mapped = 0;
	int rc = -EAGAIN;

	for (int i = 0; i < PATIENCE && rc == -EAGAIN; i++) {
		rc = p->ops->map(p->env, page, 1, &mapped);
		if (rc == -EFAULT) {
			rc = p->ops->map_zero(p->env, page);
			/* It is no hole any more: another has just filled it. */
			if (rc == -EEXIST)
				rc = p->ops->map(p->env, page, 1, &mapped);
			if (rc == -EFAULT)
				rc = -EAGAIN;
		}
		if (rc == -EAGAIN)
			sched_yield();
	}
	/* It was seen before; or it is not watched any more, and the kernel helps. */
	if (rc == -EEXIST || rc == -ENOENT || rc == -EAGAIN)
		p->ops->wake(p->env, page, 1);
	else if (rc)
		refused(p, page, rc);
	park(p, GW_PARK_MAPPED, page);
	return rc;
}

/* Pages from @page on that are there, in its file and within what the kernel would fault around. */
static size_t around(const struct gw_pager *p, size_t page)
{
	const struct gw_memory_block *f = gw_memory_block_of(p->memory, page);
	size_t end = page - page % GW_FAULT_AROUND + GW_FAULT_AROUND, n = 1;

	if (end > f->first_page + f->nr_pages)
		end = f->first_page + f->nr_pages;
	while (page + n < end && !gw_missing_test(&p->missing, page + n))
		n++;
	return n;
}

static void local(struct gw_pager *p, size_t page)
{
	size_t mapped, n;

	p->local++;
	if (go_on(p, page))
		return;
	/* Nobody waits for the rest; who would touch it next need not. */
	n = around(p, page);
	if (n > 1)
		p->ops->map(p->env, page + 1, n - 1, &mapped);
}

/* Whether nobody has looked yet, and we are the one to do so. @page is claimed. */
static bool take_unchecked(struct gw_pager *p, size_t page)
{
	if (!p->unchecked || !gw_shared_bit(p->unchecked, page) ||
	    !gw_shared_bit_clear(p->unchecked, page))
		return false;
	p->unchecked_left--;
	return true;
}

/* Ours now, and missing. */
static bool claim(struct gw_pager *p, size_t page)
{
	if (!gw_missing_test(&p->missing, page) || gw_shared_bit_set(p->claimed, page))
		return false;
	if (gw_missing_test(&p->missing, page))
		return true;
	gw_shared_bit_clear(p->claimed, page); /* another has placed it in between */
	return false;
}

/* The unchecked pages of [page, stop) that are ours to look at, from @page on. */
static unsigned int claim_unchecked(struct gw_pager *p, size_t page, size_t stop)
{
	unsigned int n = 0;

	for (; n < GW_COMPARED_MAX && page + n < stop; n++) {
		if (!p->unchecked || !gw_shared_bit(p->unchecked, page + n) || !claim(p, page + n))
			break;
		if (take_unchecked(p, page + n))
			continue;
		gw_shared_bit_clear(p->claimed, page + n); /* another has looked in between */
		break;
	}
	if (n)
		park(p, GW_PARK_CLAIMED, page);
	return n;
}

/* Wrong as they lie there: only the source has these claimed pages. */
static void lack(struct gw_pager *p, size_t page, size_t n)
{
	for (size_t i = 0; i < n; i++)
		gw_shared_bit_set(p->refused, page + i);
	gw_pager_unclaim(p, page, n, false);
}

/* Somebody waits for @page. Return: whether it is right as it lies there; then he goes on. */
static bool is_here(struct gw_pager *p, size_t page)
{
	bool right;

	if (!claim_unchecked(p, page, page + 1))
		return false;
	p->ops->compare(p->env, page, 1, &right);
	if (right)
		gw_pager_placed(p, page, 1);
	else
		lack(p, page, 1);
	return right;
}

/* Whether its page is to be asked for. */
static bool heed(struct gw_pager *p, const struct gw_fault *fault)
{
	const size_t page = fault->page;

	if (page >= p->missing.nr_pages || !gw_memory_block_of(p->memory, page))
		return false;
	park(p, GW_PARK_FAULT, page);
	if (!gw_missing_test(&p->missing, page)) {
		local(p, page);
		return false;
	}
	if (gw_shared_bit_set(p->wanted, page))
		return false; /* somebody waits for it already, and it was asked for */
	gw_fault_begins(&p->times, fault, p->ops->now(p->env));
	park(p, GW_PARK_WANTED, page);
	if (gw_missing_test(&p->missing, page))
		return !is_here(p, page);
	/* It has come meanwhile, and whoever placed it may have seen nobody wait. */
	if (gw_shared_bit_clear(p->wanted, page)) {
		go_on(p, page);
		gw_fault_ends(&p->times, page, p->ops->now(p->env));
	}
	return false;
}

void gw_pager_fault(struct gw_pager *p, const struct gw_fault *faults, unsigned int n)
{
	size_t ask[GW_FAULTS_MAX];
	unsigned int nr = 0;

	for (unsigned int i = 0; i < n; i++) {
		unsigned int at = nr;

		if (!heed(p, &faults[i]))
			continue;
		for (; at && ask[at - 1] > faults[i].page; at--)
			ask[at] = ask[at - 1];
		ask[at] = faults[i].page;
		nr++;
	}
	if (nr)
		p->ops->request(p->env, ask, nr);
}

void gw_pager_hear(void *pager, const struct gw_fault *faults, unsigned int n)
{
	gw_pager_fault(pager, faults, n);
}

size_t gw_pager_claim(struct gw_pager *p, size_t *page, size_t end)
{
	size_t n = 0;

	while (*page < end && !claim(p, *page))
		(*page)++;
	if (*page >= end)
		return 0;
	for (n = 1; *page + n < end && claim(p, *page + n); n++)
		;
	/* What comes is right, whatever lies there. */
	for (size_t i = 0; p->unchecked && i < n; i++)
		take_unchecked(p, *page + i);
	park(p, GW_PARK_CLAIMED, *page);
	return n;
}

void gw_pager_unclaim(struct gw_pager *p, size_t page, size_t count, bool torn)
{
	if (torn)
		p->torn = true;
	for (size_t i = 0; i < count; i++)
		gw_shared_bit_clear(p->claimed, page + i);
}

void gw_pager_lack(struct gw_pager *p, size_t page, size_t count)
{
	lack(p, page, count);
	p->ops->refuse(p->env, page, (unsigned int)count);
	/* Who wanted one before that has been answered with what is wrong. */
	for (size_t i = page; i < page + count; i++)
		if (gw_shared_bit(p->wanted, i))
			p->ops->request(p->env, &i, 1);
}

void gw_pager_written(struct gw_pager *p, size_t page)
{
	park(p, GW_PARK_WRITTEN, page);
}

void gw_pager_placed(struct gw_pager *p, size_t page, size_t count)
{
	gw_missing_placed(&p->missing, page, count);
	park(p, GW_PARK_PLACED, page);
	for (size_t i = 0; i < count; i++) {
		gw_shared_bit_clear(p->claimed, page + i);
		if (!gw_shared_bit(p->wanted, page + i) ||
		    !gw_shared_bit_clear(p->wanted, page + i))
			continue;
		go_on(p, page + i);
		gw_fault_ends(&p->times, page + i, p->ops->now(p->env));
	}
	if (!p->missing.left)
		p->ops->notify(p->env);
}

int gw_pager_check_rest(struct gw_pager *p)
{
	p->unchecked = gw_shared_bits_new(p->len);
	if (!p->unchecked)
		return gw_fail(-ENOMEM, "no memory to compare what was kept");
	for (unsigned int i = 0; i < p->memory->nr_blocks; i++) {
		const struct gw_memory_block *b = &p->memory->blocks[i];
		const size_t end = b->first_page + b->nr_pages;
		int rc;

		for (size_t page = b->first_page; page < end; page += 64 - page % 64) {
			const uint64_t upto = end - page < 64 ? ~(~0ULL << (end - page)) : ~0ULL;
			const uint64_t rest = upto << page % 64 &
					      ~atomic_load(&p->missing.words[page / 64]);

			atomic_fetch_or(&p->unchecked[page / 64], rest);
			p->unchecked_left += (size_t)__builtin_popcountll(rest);
		}
		rc = gw_missing_add(&p->missing, p->memory, b->first_page, b->nr_pages);
		if (rc)
			return rc;
	}
	return 0;
}

/* The claimed pages, none of which anybody else looks at. */
static void compare(struct gw_pager *p, size_t page, unsigned int n)
{
	bool right[GW_COMPARED_MAX];

	p->ops->compare(p->env, page, n, right);
	for (unsigned int i = 0, count; i < n; i += count) {
		for (count = 1; i + count < n && right[i + count] == right[i];)
			count++;
		if (right[i]) {
			gw_pager_placed(p, page + i, count);
			continue;
		}
		/* Who faults on one meanwhile asks for it himself. */
		lack(p, page + i, count);
		p->ops->refuse(p->env, page + i, count);
	}
}

void gw_pager_check(struct gw_pager *p, size_t first, size_t stop)
{
	while (p->unchecked && first < stop) {
		const uint64_t word = atomic_load(&p->unchecked[first / 64]) >> first % 64;
		unsigned int n;

		if (!word) {
			first += 64 - first % 64;
			continue;
		}
		first += (size_t)__builtin_ctzll(word);
		n = first < stop ? claim_unchecked(p, first, stop) : 0;
		if (n)
			compare(p, first, n);
		first += n ? n : 1; /* another has it */
	}
}

static uint64_t lacking(const struct gw_pager *p, size_t i)
{
	return atomic_load(&p->missing.words[i]) &
	       ~(p->unchecked ? atomic_load(&p->unchecked[i]) : 0);
}

static uint64_t refused_of(const struct gw_pager *p, size_t i)
{
	return lacking(p, i) & atomic_load(&p->refused[i]);
}

/* The first page from @page on whose bit, of @word, is @value. */
static size_t find(const struct gw_pager *p, uint64_t (*word)(const struct gw_pager *p, size_t i),
		   size_t page, bool value)
{
	for (; page < p->missing.nr_pages; page += 64 - page % 64) {
		const uint64_t w = word(p, page / 64);
		const uint64_t found = (value ? w : ~w) >> page % 64;

		if (found) {
			page += (size_t)__builtin_ctzll(found);
			break;
		}
	}
	return page < p->missing.nr_pages ? page : p->missing.nr_pages;
}

size_t gw_pager_lacking(const struct gw_pager *p, size_t *at, size_t *first)
{
	*first = find(p, lacking, *at, true);
	*at = find(p, lacking, *first, false);
	return *at - *first;
}

size_t gw_pager_refused(const struct gw_pager *p, size_t *at, size_t *first)
{
	*first = find(p, refused_of, *at, true);
	*at = find(p, refused_of, *first, false);
	return *at - *first;
}

unsigned int gw_pager_wanted(const struct gw_pager *p, size_t *at, size_t *pages, unsigned int most)
{
	unsigned int n = 0;

	while (n < most && *at < p->missing.nr_pages) {
		const uint64_t word = atomic_load(&p->wanted[*at / 64]) >> *at % 64;

		if (!word) {
			*at += 64 - *at % 64;
			continue;
		}
		*at += (size_t)__builtin_ctzll(word);
		if (*at < p->missing.nr_pages && gw_missing_test(&p->missing, *at))
			pages[n++] = *at;
		(*at)++;
	}
	return n;
}
