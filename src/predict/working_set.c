// SPDX-License-Identifier: GPL-2.0-or-later
/* working_set.c - one of three predictors behind the same calls; see working_set.h. */
#include <string.h>

#include "process.h"
#include "working_set.h"

/* Pages in the trees of all of them: a page is in those of all processes that used it. */
#define TREE_PAGES_MOST (1U << 26)

int gw_working_set_init(struct gw_working_set *ws, enum gw_predictor predictor, size_t pages)
{
	memset(ws, 0, sizeof(*ws));
	ws->predictor = predictor;
	ws->processes = 16;
	if (predictor == GW_PREDICT_LRU_SPLAY)
		return gw_lru_init(&ws->lru, GW_LRU_MOST,
				   pages < TREE_PAGES_MOST / 2 ? (uint32_t)pages * 2
							       : TREE_PAGES_MOST);
	return gw_marks_init(&ws->marks, pages);
}

void gw_working_set_free(struct gw_working_set *ws)
{
	gw_lru_free(&ws->lru);
	gw_marks_free(&ws->marks);
}

static bool is_mixed(const struct gw_seen *w)
{
	for (size_t i = 1; i < w->nr_processes; i++)
		if (w->processes[i] != w->processes[0])
			return true;
	return !w->nr_processes;
}

static void request_all(struct gw_working_set *ws, const struct gw_seen *w)
{
	const bool mixed = is_mixed(w);
	uint64_t last = UINT64_MAX;

	ws->mixed += mixed;
	ws->top = 0;
	for (size_t i = 0; i < (w->accessed->bits + 63) / 64; i++)
		for (uint64_t word = w->accessed->words[i]; word; word &= word - 1) {
			const uint64_t page = i * 64 + (uint64_t)__builtin_ctzll(word);
			const uint64_t process = mixed ? gw_process_region(page) : w->processes[0];

			gw_lru_request(&ws->lru, process, page);
			ws->top += process != last;
			last = process;
		}
}

void gw_working_set_add(struct gw_working_set *ws, const struct gw_seen *w)
{
	ws->windows++;
	if (ws->predictor == GW_PREDICT_LRU_SPLAY)
		request_all(ws, w);
	else if (ws->predictor == GW_PREDICT_LRU)
		gw_marks_stamp(&ws->marks, w->accessed);
	else
		gw_marks_shift(&ws->marks, w->written);
}

size_t gw_working_set_take(struct gw_working_set *ws, const struct gw_bitmap *only, size_t most,
			   struct gw_bitmap *pages)
{
	if (ws->predictor == GW_PREDICT_LRU_SPLAY)
		return gw_lru_working_set(&ws->lru,
					  ws->top > ws->processes ? ws->top : ws->processes, only,
					  most, pages);
	return gw_marks_largest(&ws->marks, only, most, pages);
}
