/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * xxh.h - XXH3 with the widest vectors this CPU has: libxxhash's own dispatch
 * (14 GB/s with SSE2, 28 GB/s with AVX-512 where measured).
 */
#ifndef GW_XXH_H
#define GW_XXH_H

#define XXH_STATIC_LINKING_ONLY /* states live on our stacks */
#ifdef __x86_64__
#include <xxh_x86dispatch.h>
#else
#include <xxhash.h>
#endif

#endif
