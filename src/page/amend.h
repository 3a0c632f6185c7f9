/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * amend.h - records that change pages which the destination holds: the half of
 * delta and patch that is the same.
 *
 * Wire form: the record gives some of the pages that it spans, in ascending
 * order, the first and the last of them always:
 *
 *   bytes
 *       1  the page, counted in the chunk
 *       2  what the stage says of it: a length, a mask
 *          its changes, as the stage's file documents
 *
 * The record is checked to its end before a page is read or placed (invariant 10).
 */
#ifndef GW_AMEND_H
#define GW_AMEND_H

#include "codec.h"
#include "stage.h"

#define GW_AMEND_HEAD 3

/** struct gw_amend - what a stage adds. */
struct gw_amend {
	const char *what; /* "delta", for messages */
	/* Bytes of the changes that are announced by @value; -1: there is no such. */
	long (*length)(unsigned int value);
	/* Whether @changes can be; NULL: any of that length can. */
	bool (*sound)(struct gw_reader changes);
	/* Make them in @page. */
	void (*apply)(uint8_t *page, unsigned int value, struct gw_reader changes);
};

/** gw_amend_put_head() - the head of page @i of the chunk at @at. Return: what comes after it. */
static inline uint8_t *gw_amend_put_head(uint8_t *at, unsigned int i, unsigned int value)
{
	at[0] = (uint8_t)i;
	gw_put16(at + 1, (uint16_t)value);
	return at + GW_AMEND_HEAD;
}

/**
 * gw_amend_decode() - a stage's decode.
 * @buffer: the stage's slot in the decoder: made on first use, the stage frees it
 */
int gw_amend_decode(const struct gw_amend *how, const struct gw_record *rec, struct gw_decoder *d,
		    void **buffer);

#endif
