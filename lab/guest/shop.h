/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What shop.c, the transactions, and shop_fill.c, the tables, share. */
#ifndef LAB_SHOP_H
#define LAB_SHOP_H

#include <sqlite3.h>
#include <stddef.h>
#include <stdint.h>

#include "guest.h"

#define DISTRICTS	10   /* of a warehouse */
#define CUSTOMERS	3000 /* of a district, at 100 % */
#define ITEMS		100000
#define ORDERS		300 /* of a district, at the beginning; TPC-C has as many as customers */
#define LINES_MIN	5
#define LINES_MAX	15
#define LAST_NAMES	1000
#define LAST_NAME_BYTES 24
#define PAYMENT_FIRST	1000 /* cents that each customer has paid at the beginning */

/*
 * Beginning of numbers that change: SQLite takes as many bytes as a number
 * needs, and all that follow here need four.
 */
#define WIDE  (1 << 24)
#define NEVER INT32_MAX /* when an order that is still to be delivered was delivered */

/**
 * struct shop - how large it is, and what its tables must say
 * @warehouses, @customers, @items, @orders: customers and orders of a district
 * @next: by district: the number of its next order
 * @paid: all payments ever made, cents
 */
struct shop {
	uint32_t warehouses, customers, items, orders;
	uint32_t *next;
	int64_t paid;
	uint64_t random;
};

/* An order's id: its district, and its number there. Sixteen ids of lines belong to it. */
static inline int64_t order_id(int64_t district, int64_t number)
{
	return district << 24 | number;
}

/* A random number from @min to @max. */
static inline int64_t between(struct shop *s, int64_t min, int64_t max)
{
	return min + (int64_t)((next_random(&s->random) >> 32) * (uint64_t)(max - min + 1) >> 32);
}

/* TPC-C's uneven choice from 0 to @count - 1; @a is its constant for this choice. */
static inline int64_t uneven(struct shop *s, int64_t a, int64_t count)
{
	return ((between(s, 0, a) | between(s, 0, count - 1)) + a / 3) % count;
}

/* The last name of a customer who has @number, three syllables, as TPC-C makes it. */
void last_name(char to[LAST_NAME_BYTES], unsigned int number);

/* Creates and fills the tables of the open database. */
void shop_fill(struct shop *s);

/* Both end the program if the database reports an error. */
void shop_execute(const char *sql);
sqlite3_stmt *shop_prepare(const char *sql);

/* Runs a statement to its end; true if there was a row, whose first numbers are in @row then. */
bool shop_run(sqlite3_stmt *statement, int64_t *row, int columns);

#endif
