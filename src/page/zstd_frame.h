/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * zstd_frame.h - what is taken for a zstd frame (invariant 10).
 *
 * libzstd as it is packaged also decodes the formats of before 1.0, with
 * code that nobody fuzzes any more; skips frames of others; and goes on with the
 * frame behind the first. None of that has a place in what a peer or a disk hands us.
 */
#ifndef GW_ZSTD_FRAME_H
#define GW_ZSTD_FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <zstd.h>

#include "codec.h"

/** gw_zstd_is_frame() - whether @from is one frame of today's format and nothing else, that
 * states @content as its content's size. */
static inline bool gw_zstd_is_frame(const void *from, size_t len, size_t content)
{
	return len >= 4 && gw_get32(from) == ZSTD_MAGICNUMBER &&
	       ZSTD_getFrameContentSize(from, len) == content &&
	       ZSTD_findFrameCompressedSize(from, len) == len;
}

#endif
