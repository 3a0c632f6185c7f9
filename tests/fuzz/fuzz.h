/* SPDX-License-Identifier: GPL-2.0-or-later */
/* fuzz.h - what libFuzzer calls; one target per file, built and run by smoke. */
#ifndef GW_FUZZ_H
#define GW_FUZZ_H

#include <errno.h>
#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#endif
