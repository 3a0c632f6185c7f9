/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The tables of shop.c and what is in them at the beginning.
 *
 * Every table's key is one number, so that a row is found without comparing
 * text and rows that belong together lie together: a customer's id counts over
 * all districts, a piece of stock's over all warehouses, an order's begins with
 * its district, an order line's with its order.
 *
 * A warehouse of full size takes 48 MiB: 100000 pieces of stock in 30, 30000
 * customers in 16, and TPC-C's order book, of which only the last tenth is
 * kept. The items, 7 MiB, belong to all warehouses.
 */
#include <stdio.h>

#include "shop.h"

#define TEXT_MAX    400
#define STOCK_DIST  (24 * DISTRICTS)
#define BAD_CREDIT  10 /* one customer in so many */
#define UNDELIVERED 3  /* tenths of the orders at the beginning */

static const char schema[] =
	"CREATE TABLE warehouse(id INTEGER PRIMARY KEY, name TEXT, tax INT, ytd INT);"
	"CREATE TABLE district(id INTEGER PRIMARY KEY, name TEXT, tax INT, ytd INT, next INT);"
	"CREATE TABLE customer(id INTEGER PRIMARY KEY, district INT, last TEXT, first TEXT,"
	" street TEXT, phone TEXT, bad INT, discount INT, balance INT, ytd INT, payments INT,"
	" deliveries INT, data TEXT);"
	"CREATE TABLE history(id INTEGER PRIMARY KEY, customer INT, district INT, amount INT,"
	" date INT, data TEXT);"
	"CREATE TABLE item(id INTEGER PRIMARY KEY, name TEXT, price INT, data TEXT);"
	"CREATE TABLE stock(id INTEGER PRIMARY KEY, quantity INT, ytd INT, orders INT,"
	" remote INT, dist TEXT, data TEXT);"
	"CREATE TABLE orders(id INTEGER PRIMARY KEY, customer INT, entered INT, carrier INT,"
	" lines INT);"
	"CREATE TABLE new_order(id INTEGER PRIMARY KEY);"
	"CREATE TABLE order_line(id INTEGER PRIMARY KEY, item INT, stock INT, quantity INT,"
	" amount INT, delivered INT, dist TEXT);";

static const char indexes[] = "CREATE INDEX customer_name ON customer(district, last, first);"
			      "CREATE INDEX order_customer ON orders(customer);";

void last_name(char to[LAST_NAME_BYTES], unsigned int number)
{
	static const char *const syllables[] = { "BAR", "OUGHT", "ABLE",  "PRI",   "PRES",
						 "ESE", "ANTI",	 "CALLY", "ATION", "EING" };

	snprintf(to, LAST_NAME_BYTES, "%s%s%s", syllables[number / 100 % 10],
		 syllables[number / 10 % 10], syllables[number % 10]);
}

/* Letters and digits, ten from each random number. */
static void random_text(struct shop *s, char *to, size_t bytes)
{
	static const char set[64] =
		"0123456789 abcdefghijklmnopqrstuvwxyz-ABCDEFGHIJKLMNOPQRSTUVWXYZ";
	uint64_t random = 0;

	for (size_t i = 0; i < bytes; i++, random >>= 6) {
		if (i % 10 == 0)
			random = next_random(&s->random);
		to[i] = set[random % 64];
	}
}

static void bind(sqlite3_stmt *statement, int at, int64_t number)
{
	sqlite3_bind_int64(statement, at, number);
}

/* Binds a text of @min to @max random letters. */
static void bind_random(struct shop *s, sqlite3_stmt *statement, int at, int min, int max)
{
	char text[TEXT_MAX];
	int bytes = (int)between(s, min, max);

	random_text(s, text, (size_t)bytes);
	sqlite3_bind_text(statement, at, text, bytes, SQLITE_TRANSIENT);
}

static void add(sqlite3_stmt *statement)
{
	shop_run(statement, NULL, 0);
}

static void fill_items(struct shop *s)
{
	sqlite3_stmt *item = shop_prepare("INSERT INTO item VALUES (?,?,?,?)");

	for (uint32_t i = 0; i < s->items; i++) {
		bind(item, 1, i);
		bind_random(s, item, 2, 14, 24);
		bind(item, 3, between(s, 100, 10000));
		bind_random(s, item, 4, 26, 50);
		add(item);
	}
	sqlite3_finalize(item);
}

static void fill_stock(struct shop *s, int64_t warehouse)
{
	sqlite3_stmt *stock = shop_prepare("INSERT INTO stock VALUES (?,?,?,?,?,?,?)");

	for (uint32_t i = 0; i < s->items; i++) {
		bind(stock, 1, warehouse * s->items + i);
		bind(stock, 2, between(s, 10, 100));
		for (int column = 3; column <= 5; column++)
			bind(stock, column, WIDE);
		bind_random(s, stock, 6, STOCK_DIST, STOCK_DIST);
		bind_random(s, stock, 7, 26, 50);
		add(stock);
	}
	sqlite3_finalize(stock);
}

static void fill_customers(struct shop *s, int64_t district)
{
	sqlite3_stmt *customer =
		shop_prepare("INSERT INTO customer VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?)");
	sqlite3_stmt *history = shop_prepare("INSERT INTO history VALUES (NULL,?,?,?,0,'')");

	/* The first ones have each last name once. */
	for (uint32_t i = 0; i < s->customers; i++) {
		int64_t id = district * s->customers + i;
		char last[LAST_NAME_BYTES];

		last_name(last, (unsigned int)(i < LAST_NAMES ? i : uneven(s, 255, LAST_NAMES)));
		bind(customer, 1, id);
		bind(customer, 2, district);
		sqlite3_bind_text(customer, 3, last, -1, SQLITE_TRANSIENT);
		bind_random(s, customer, 4, 8, 16);
		bind_random(s, customer, 5, 50, 70);
		bind_random(s, customer, 6, 16, 16);
		bind(customer, 7, between(s, 1, BAD_CREDIT) == 1);
		bind(customer, 8, between(s, 0, 50));
		bind(customer, 9, (1 << 30) - PAYMENT_FIRST);
		for (int column = 10; column <= 12; column++)
			bind(customer, column, WIDE);
		bind_random(s, customer, 13, 300, TEXT_MAX);
		add(customer);
		bind(history, 1, id);
		bind(history, 2, district);
		bind(history, 3, PAYMENT_FIRST);
		add(history);
	}
	sqlite3_finalize(customer);
	sqlite3_finalize(history);
}

static void fill_lines(struct shop *s, sqlite3_stmt *line, int64_t order, int lines, bool open)
{
	int64_t warehouse = (order >> 24) / DISTRICTS;

	for (int i = 0; i < lines; i++) {
		int64_t item = between(s, 0, s->items - 1);

		bind(line, 1, order * 16 + i);
		bind(line, 2, item);
		bind(line, 3, warehouse * s->items + item);
		bind(line, 4, 5);
		bind(line, 5, open ? between(s, 1, 999999) : 0);
		bind(line, 6, open ? NEVER : WIDE);
		bind_random(s, line, 7, 24, 24);
		add(line);
	}
}

static void fill_orders(struct shop *s, int64_t district)
{
	sqlite3_stmt *order = shop_prepare("INSERT INTO orders VALUES (?,?,?,?,?)");
	sqlite3_stmt *new_order = shop_prepare("INSERT INTO new_order VALUES (?)");
	sqlite3_stmt *line = shop_prepare("INSERT INTO order_line VALUES (?,?,?,?,?,?,?)");

	for (uint32_t i = 0; i < s->orders; i++) {
		int64_t id = order_id(district, i + 1);
		int lines = (int)between(s, LINES_MIN, LINES_MAX);
		bool open = i >= s->orders - s->orders * UNDELIVERED / 10;

		bind(order, 1, id);
		bind(order, 2, district * s->customers + between(s, 0, s->customers - 1));
		bind(order, 3, WIDE);
		bind(order, 4, open ? 99 : between(s, 2, 10));
		bind(order, 5, lines);
		add(order);
		fill_lines(s, line, id, lines, open);
		if (!open)
			continue;
		bind(new_order, 1, id);
		add(new_order);
	}
	s->next[district] = s->orders + 1;
	sqlite3_finalize(order);
	sqlite3_finalize(new_order);
	sqlite3_finalize(line);
}

static void fill_warehouse(struct shop *s, int64_t warehouse)
{
	int64_t paid = (int64_t)s->customers * PAYMENT_FIRST;
	sqlite3_stmt *row = shop_prepare("INSERT INTO warehouse VALUES (?,?,?,?)");

	bind(row, 1, warehouse);
	bind_random(s, row, 2, 6, 10);
	bind(row, 3, between(s, 2, 20));
	bind(row, 4, DISTRICTS * paid);
	add(row);
	sqlite3_finalize(row);

	row = shop_prepare("INSERT INTO district VALUES (?,?,?,?,?)");
	for (int64_t id = warehouse * DISTRICTS; id < (warehouse + 1) * DISTRICTS; id++) {
		bind(row, 1, id);
		bind_random(s, row, 2, 6, 10);
		bind(row, 3, between(s, 2, 20));
		bind(row, 4, paid);
		bind(row, 5, s->orders + 1);
		add(row);
		fill_customers(s, id);
		fill_orders(s, id);
		s->paid += paid;
	}
	sqlite3_finalize(row);
	fill_stock(s, warehouse);
}

void shop_fill(struct shop *s)
{
	/* Nobody needs a shop that is half full: no journal, and nothing waited for. */
	shop_execute("PRAGMA journal_mode=OFF");
	shop_execute("PRAGMA synchronous=OFF");
	shop_execute(schema);
	shop_execute("BEGIN");
	fill_items(s);
	for (uint32_t i = 0; i < s->warehouses; i++)
		fill_warehouse(s, i);
	shop_execute(indexes);
	shop_execute("COMMIT");
}
