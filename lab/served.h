/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the guest's services and their clients on the host agree on.
 *
 * UDP and TCP port 7 echo. TCP port 7000 answers each line "GET n\n" with
 * "n SEQUENCE SUM\n": SEQUENCE rises by one with every answer since the guest
 * booted, over all connections, so that a server whose memory fell back in
 * time is noticed; SUM adds up the page of an in-memory table that n selects,
 * so that a lost page of the table is noticed too. The client knows the table
 * without asking, because its words are a function of their index. TCP port
 * 7001 runs one line of shell.
 */
#ifndef LAB_SERVED_H
#define LAB_SERVED_H

#include <stddef.h>
#include <stdint.h>

#define ECHO_PORT    7
#define REQUEST_PORT 7000
#define EXEC_PORT    7001

#define TABLE_PAGES 1024
#define PAGE_WORDS  512

/* The finalizer of splitmix64: every input bit changes every output bit. */
static inline uint64_t mix64(uint64_t x)
{
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9;
	x = (x ^ x >> 27) * 0x94d049bb133111eb;
	return x ^ x >> 31;
}

static inline uint64_t table_word(size_t index)
{
	return mix64(index + 1);
}

/* The page of the table that request @n sums up. */
static inline size_t table_page(uint64_t n)
{
	return mix64(~n) % TABLE_PAGES;
}

#endif
