/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * trace.h - what a guest accessed and wrote, window by window, in a file: written by trace.c, read
 * by replay.c, on the same machine.
 *
 *   header
 *   used pages: struct trace_list
 *   a window, as many times as the header says:
 *     struct trace_window, its processes (64 bits each)
 *     accessed pages, written pages: struct trace_list each
 */
#ifndef BENCH_TRACE_H
#define BENCH_TRACE_H

#include <stdint.h>

#define TRACE_MAGIC	"gwtrace1"
#define TRACE_WINDOWS	10000UL
#define TRACE_PROCESSES 64

struct trace_header {
	char magic[8];
	uint64_t pages, windows;
	int64_t window_ns; /* as asked for; each says what it was */
};

struct trace_window {
	int64_t ns;	    /* from the last look to this one */
	int64_t look_ns;    /* of that, what looking took, in which the guest ran all the same */
	uint64_t processes; /* seen at both ends of it, one a vCPU each time */
};

/* Followed by so many page numbers, ascending, of 32 bits. */
struct trace_list {
	uint64_t pages;
};

#endif
