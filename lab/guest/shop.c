/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * shop: TPC-C-like transactions on an SQLite database in the page cache.
 *
 * TPC-C's nine tables, its five transactions at 45/43/4/4/4, and its uneven
 * choice of customers and items, at a steady rate. The file is mapped, so the
 * database lies in memory once, as page cache; changes go through SQLite's log
 * and come back into the file's pages at its checkpoints. See shop_fill.c for
 * what the tables hold.
 *
 * Rules: amounts are whole cents. What the database must say is also kept in
 * this process, and compared each second together with TPC-C's conditions of
 * consistency, so that memory which fell back or got lost is noticed on
 * whichever side. Numbers that change keep their width, as they do in columns
 * of fixed size: a change touches a few bytes of a page and moves nothing.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "../served.h"
#include "shop.h"

/* Later than this, the guest was stopped or is too slow: nothing is made up for. */
#define LATE_NS	    (NSEC_PER_SEC / 10)
#define REMOTE_LINE 100 /* one order line in so many comes from another warehouse */
#define WRONG_ITEM  100 /* one order in so many is rolled back for an unknown item */
#define COLUMNS	    4	/* the most that a statement returns */

enum statement {
	BEGIN,
	COMMIT,
	ROLLBACK,
	GET_WAREHOUSE,
	GET_DISTRICT,
	NEXT_ORDER,
	GET_CUSTOMER,
	FIND_CUSTOMER,
	ADD_ORDER,
	ADD_NEW_ORDER,
	GET_ITEM,
	GET_STOCK,
	TAKE_STOCK,
	ADD_LINE,
	PAY_WAREHOUSE,
	PAY_DISTRICT,
	PAY_CUSTOMER,
	NOTE_CUSTOMER,
	ADD_HISTORY,
	LAST_ORDER,
	SUM_LINES,
	OLDEST_NEW,
	END_NEW,
	GET_ORDER,
	CARRY_ORDER,
	CARRY_LINES,
	DELIVER,
	STOCK_LEVEL,
	CHECK_WAREHOUSE,
	CHECK_ORDERS,
	CHECK_NEW,
	CHECK_LINES,
	CHECK_HISTORY,
	NR_STATEMENTS,
};

static const char *const statements[NR_STATEMENTS] = {
	[BEGIN] = "BEGIN IMMEDIATE",
	[COMMIT] = "COMMIT",
	[ROLLBACK] = "ROLLBACK",
	[GET_WAREHOUSE] = "SELECT tax FROM warehouse WHERE id=?1",
	[GET_DISTRICT] = "SELECT next, tax FROM district WHERE id=?1",
	[NEXT_ORDER] = "UPDATE district SET next=next+1 WHERE id=?1",
	[GET_CUSTOMER] = "SELECT discount, bad FROM customer WHERE id=?1",
	[FIND_CUSTOMER] = "SELECT id FROM customer WHERE district=?1 AND last=?2 ORDER BY first "
			  "LIMIT 1 OFFSET (SELECT (count(*)-1)/2 FROM customer "
			  "WHERE district=?1 AND last=?2)",
	[ADD_ORDER] = "INSERT INTO orders VALUES (?1,?2,?3,99,?4)",
	[ADD_NEW_ORDER] = "INSERT INTO new_order VALUES (?1)",
	[GET_ITEM] = "SELECT price FROM item WHERE id=?1",
	[GET_STOCK] = "SELECT quantity FROM stock WHERE id=?1",
	[TAKE_STOCK] = "UPDATE stock SET quantity=?2, ytd=ytd+?3, orders=orders+1, "
		       "remote=remote+?4 WHERE id=?1",
	[ADD_LINE] = "INSERT INTO order_line SELECT ?1,?2,?3,?4,?5,?6,substr(dist,1+24*?7,24) "
		     "FROM stock WHERE id=?3",
	[PAY_WAREHOUSE] = "UPDATE warehouse SET ytd=ytd+?2 WHERE id=?1",
	[PAY_DISTRICT] = "UPDATE district SET ytd=ytd+?2 WHERE id=?1",
	[PAY_CUSTOMER] = "UPDATE customer SET balance=balance-?2, ytd=ytd+?2, "
			 "payments=payments+1 WHERE id=?1",
	[NOTE_CUSTOMER] = "UPDATE customer SET data=substr(printf('%d %d %d|',?1,?2,?3)||data,1,"
			  "length(data)) WHERE id=?1",
	[ADD_HISTORY] = "INSERT INTO history VALUES (NULL,?1,?2,?3,?4,'a payment at the counter')",
	[LAST_ORDER] = "SELECT id, lines FROM orders WHERE customer=?1 ORDER BY id DESC LIMIT 1",
	[SUM_LINES] = "SELECT count(*), ifnull(sum(amount),0) FROM order_line "
		      "WHERE id BETWEEN ?1 AND ?1+15",
	[OLDEST_NEW] = "SELECT id FROM new_order WHERE id BETWEEN ?1 AND ?2 ORDER BY id LIMIT 1",
	[END_NEW] = "DELETE FROM new_order WHERE id=?1",
	[GET_ORDER] = "SELECT customer, lines FROM orders WHERE id=?1",
	[CARRY_ORDER] = "UPDATE orders SET carrier=?2 WHERE id=?1",
	[CARRY_LINES] = "UPDATE order_line SET delivered=?2 WHERE id BETWEEN ?1 AND ?1+15",
	[DELIVER] = "UPDATE customer SET balance=balance+?2, deliveries=deliveries+1 WHERE id=?1",
	[STOCK_LEVEL] = "SELECT count(DISTINCT stock.id) FROM order_line JOIN stock "
			"ON stock.id=order_line.stock "
			"WHERE order_line.id BETWEEN ?1 AND ?2 AND stock.quantity<?3",
	[CHECK_WAREHOUSE] =
		"SELECT ytd, (SELECT sum(ytd) FROM district WHERE id BETWEEN ?2 AND ?3) "
		"FROM warehouse WHERE id=?1",
	[CHECK_ORDERS] = "SELECT (SELECT next FROM district WHERE id=?3), "
			 "(SELECT max(id) FROM orders WHERE id BETWEEN ?1 AND ?2)",
	[CHECK_NEW] = "SELECT count(*), ifnull(min(id),0), ifnull(max(id),0) FROM new_order "
		      "WHERE id BETWEEN ?1 AND ?2",
	[CHECK_LINES] = "SELECT (SELECT sum(lines) FROM orders WHERE id BETWEEN ?1 AND ?2), "
			"(SELECT count(*) FROM order_line WHERE id BETWEEN ?1*16 AND ?2*16+15)",
	[CHECK_HISTORY] =
		"SELECT ifnull(sum(amount),0), ifnull(max(id),?1) FROM history WHERE id>?1",
};

static sqlite3 *db;
static sqlite3_stmt *prepared[NR_STATEMENTS];

/* An error that only wrong data can be the cause of is memory that is BAD. */
static _Noreturn void fail(const char *what)
{
	int code = sqlite3_errcode(db);
	bool wrong = code == SQLITE_CORRUPT || code == SQLITE_NOTADB || code == SQLITE_CONSTRAINT;

	die(0, "%s%.60s: %s", wrong ? "BAD " : "", what, sqlite3_errmsg(db));
}

void shop_execute(const char *sql)
{
	if (sqlite3_exec(db, sql, NULL, NULL, NULL) != SQLITE_OK)
		fail(sql);
}

sqlite3_stmt *shop_prepare(const char *sql)
{
	sqlite3_stmt *statement;

	if (sqlite3_prepare_v2(db, sql, -1, &statement, NULL) != SQLITE_OK)
		fail(sql);
	return statement;
}

bool shop_run(sqlite3_stmt *statement, int64_t *row, int columns)
{
	int code = sqlite3_step(statement);
	bool found = code == SQLITE_ROW;

	for (int i = 0; found && i < columns; i++)
		row[i] = sqlite3_column_int64(statement, i);
	while (code == SQLITE_ROW)
		code = sqlite3_step(statement);
	if (code != SQLITE_DONE)
		fail(sqlite3_sql(statement));
	sqlite3_reset(statement);
	return found;
}

static bool run(enum statement id, int64_t row[COLUMNS], const int64_t *numbers, size_t count)
{
	sqlite3_stmt *statement = prepared[id];
	int columns = sqlite3_column_count(statement);

	for (size_t i = 0; i < count; i++)
		sqlite3_bind_int64(statement, (int)i + 1, numbers[i]);
	return shop_run(statement, row, columns);
}

/* Runs a statement with numbers; true if there was a row. */
#define RUN(id, row, ...)                              \
	run(id, row, (const int64_t[]){ __VA_ARGS__ }, \
	    sizeof((const int64_t[]){ __VA_ARGS__ }) / sizeof(int64_t))

/* As RUN(), where a row must be. */
#define GET(id, row, ...)                                                    \
	do {                                                                 \
		if (!RUN(id, row, __VA_ARGS__))                              \
			die(0, "BAD database: no row for statement %d", id); \
	} while (0)

static void begin(void)
{
	shop_run(prepared[BEGIN], NULL, 0);
}

static void commit(void)
{
	shop_run(prepared[COMMIT], NULL, 0);
}

static int64_t date(void)
{
	return WIDE + (int64_t)(now_ns() / NSEC_PER_SEC);
}

static int64_t any_district(struct shop *s)
{
	return between(s, 0, s->warehouses * DISTRICTS - 1);
}

static int64_t any_customer(struct shop *s, int64_t district)
{
	return district * s->customers + uneven(s, 1023, s->customers);
}

/* Six times in ten by the last name: of all who bear it, the one in the middle. */
static int64_t customer_who_comes(struct shop *s, int64_t district)
{
	char last[LAST_NAME_BYTES];
	int64_t row[COLUMNS];

	if (between(s, 1, 10) > 6)
		return any_customer(s, district);
	last_name(last, (unsigned int)uneven(s, 255, LAST_NAMES));
	sqlite3_bind_text(prepared[FIND_CUSTOMER], 2, last, -1, SQLITE_TRANSIENT);
	/* A small shop does not have them all. */
	return RUN(FIND_CUSTOMER, row, district) ? row[0] : any_customer(s, district);
}

static void order_line(struct shop *s, int64_t order, int line)
{
	int64_t district = order >> 24, warehouse = district / DISTRICTS, from = warehouse;
	int64_t item = uneven(s, 8191, s->items), quantity = between(s, 1, 10);
	int64_t price[COLUMNS], there[COLUMNS], stock;

	if (s->warehouses > 1 && between(s, 1, REMOTE_LINE) == 1)
		from = (warehouse + between(s, 1, s->warehouses - 1)) % s->warehouses;
	stock = from * s->items + item;
	GET(GET_ITEM, price, item);
	GET(GET_STOCK, there, stock);
	there[0] -= quantity;
	if (there[0] < 10)
		there[0] += 91;
	RUN(TAKE_STOCK, NULL, stock, there[0], quantity, from != warehouse);
	RUN(ADD_LINE, NULL, order * 16 + line, item, stock, quantity, quantity * price[0], NEVER,
	    district % DISTRICTS);
}

static void new_order(struct shop *s)
{
	int64_t district = any_district(s), customer = any_customer(s, district);
	int lines = (int)between(s, LINES_MIN, LINES_MAX);
	int64_t row[COLUMNS], id;

	begin();
	GET(GET_WAREHOUSE, row, district / DISTRICTS);
	GET(GET_CUSTOMER, row, customer);
	GET(GET_DISTRICT, row, district);
	id = order_id(district, row[0]);
	RUN(NEXT_ORDER, NULL, district);
	RUN(ADD_ORDER, NULL, id, customer, date(), lines);
	RUN(ADD_NEW_ORDER, NULL, id);
	for (int line = 0; line < lines; line++)
		order_line(s, id, line);
	if (between(s, 1, WRONG_ITEM) == 1) {
		shop_run(prepared[ROLLBACK], NULL, 0);
		return;
	}
	commit();
	s->next[district]++;
}

static void payment(struct shop *s)
{
	int64_t district = any_district(s), home = district, amount = between(s, 100, 500000);
	int64_t customer, row[COLUMNS];

	if (between(s, 1, 100) <= 15)
		home = any_district(s);
	begin();
	customer = customer_who_comes(s, home);
	RUN(PAY_WAREHOUSE, NULL, district / DISTRICTS, amount);
	RUN(PAY_DISTRICT, NULL, district, amount);
	RUN(PAY_CUSTOMER, NULL, customer, amount);
	GET(GET_CUSTOMER, row, customer);
	if (row[1])
		RUN(NOTE_CUSTOMER, NULL, customer, district, amount);
	RUN(ADD_HISTORY, NULL, customer, district, amount, date());
	commit();
	s->paid += amount;
}

static void order_status(struct shop *s)
{
	int64_t customer, order[COLUMNS], lines[COLUMNS];

	begin();
	customer = customer_who_comes(s, any_district(s));
	if (RUN(LAST_ORDER, order, customer)) {
		GET(SUM_LINES, lines, order[0] * 16);
		if (lines[0] != order[1])
			printf("shop: BAD order %" PRId64 ": %" PRId64 " lines of %" PRId64 "\n",
			       order[0], lines[0], order[1]);
	}
	commit();
}

/* The oldest order of each district of a warehouse. */
static void delivery(struct shop *s)
{
	int64_t first = between(s, 0, s->warehouses - 1) * DISTRICTS, carrier = between(s, 2, 10);
	int64_t new[COLUMNS], order[COLUMNS], lines[COLUMNS];

	begin();
	for (int64_t district = first; district < first + DISTRICTS; district++) {
		if (!RUN(OLDEST_NEW, new, order_id(district, 0), order_id(district + 1, 0) - 1))
			continue;
		RUN(END_NEW, NULL, new[0]);
		GET(GET_ORDER, order, new[0]);
		RUN(CARRY_ORDER, NULL, new[0], carrier);
		RUN(CARRY_LINES, NULL, new[0] * 16, date());
		GET(SUM_LINES, lines, new[0] * 16);
		RUN(DELIVER, NULL, order[0], lines[1]);
	}
	commit();
}

static void stock_level(struct shop *s)
{
	int64_t district = any_district(s), row[COLUMNS];
	int64_t next = s->next[district];

	begin();
	GET(STOCK_LEVEL, row, order_id(district, next > 20 ? next - 20 : 0) * 16,
	    order_id(district, next) * 16, between(s, 10, 20));
	commit();
}

static void transact(struct shop *s)
{
	int64_t percent = between(s, 1, 100);

	if (percent <= 45)
		new_order(s);
	else if (percent <= 88)
		payment(s);
	else if (percent <= 92)
		order_status(s);
	else if (percent <= 96)
		delivery(s);
	else
		stock_level(s);
}

static void must(bool right, const char *what, int64_t of, unsigned int *bad)
{
	if (right)
		return;
	(*bad)++;
	printf("shop: BAD %s of %" PRId64 "\n", what, of);
}

/* TPC-C's conditions 2 and 3, and that no order is missing that we know of. */
static void check_district(const struct shop *s, int64_t district, unsigned int *bad)
{
	int64_t first = order_id(district, 0), last = order_id(district + 1, 0) - 1;
	int64_t order[COLUMNS], new[COLUMNS];

	GET(CHECK_ORDERS, order, first, last, district);
	must(order[0] == s->next[district], "next order", district, bad);
	must(order[1] == order_id(district, order[0] - 1), "last order", district, bad);
	GET(CHECK_NEW, new, first, last);
	must(!new[0] || (new[2] == order[1] && new[2] - new[1] + 1 == new[0]), "new orders",
	     district, bad);
}

/*
 * All that is cheap, and of one district, another one each time, condition 4:
 * that its orders have the lines that they say.
 */
static void check(struct shop *s, uint64_t number, unsigned int *bad)
{
	static int64_t history, last; /* sum of payments, and up to which */
	int64_t district = (int64_t)(number % (s->warehouses * DISTRICTS));
	int64_t row[COLUMNS], paid = 0;

	for (uint32_t i = 0; i < s->warehouses; i++) {
		GET(CHECK_WAREHOUSE, row, i, i * DISTRICTS, i * DISTRICTS + DISTRICTS - 1);
		must(row[0] == row[1], "sum of the districts of warehouse", i, bad);
		paid += row[0];
	}
	must(paid == s->paid, "sum of payments", paid, bad);
	GET(CHECK_HISTORY, row, last);
	history += row[0];
	last = row[1];
	must(history == s->paid, "history of payments", history, bad);
	for (uint32_t i = 0; i < s->warehouses * DISTRICTS; i++)
		check_district(s, i, bad);
	GET(CHECK_LINES, row, order_id(district, 0), order_id(district + 1, 0) - 1);
	must(row[0] == row[1], "order lines", district, bad);
}

static void open_database(struct shop *s, const char *path)
{
	if (sqlite3_open(path, &db) != SQLITE_OK)
		fail(path);
	/* Nobody else comes: no locks on the file, no log index in shared memory. */
	shop_execute("PRAGMA locking_mode=EXCLUSIVE");
	shop_fill(s);
	shop_execute("PRAGMA journal_mode=WAL");
	shop_execute("PRAGMA synchronous=NORMAL");
	shop_execute("PRAGMA wal_autocheckpoint=500");
	shop_execute("PRAGMA mmap_size=2147418112");
	for (size_t i = 0; i < NR_STATEMENTS; i++)
		prepared[i] = shop_prepare(statements[i]);
}

int shop_main(int argc, char **argv)
{
	struct shop s = { .random = mix64(1) };
	uint64_t rate, percent, due, report, transactions = 0, checks = 0;

	if (argc < 2)
		die(0, "FILE is missing; usage: shop FILE WAREHOUSES RATE [PERCENT]");
	s.warehouses = (uint32_t)argument(argc, argv, 2, "WAREHOUSES", 1, 100, -1);
	rate = argument(argc, argv, 3, "RATE", 1, 100000, -1);
	percent = argument(argc, argv, 4, "PERCENT", 1, 100, 100);
	s.customers = (uint32_t)(CUSTOMERS * percent / 100);
	s.items = (uint32_t)(ITEMS * percent / 100);
	s.orders = ORDERS;
	s.next = calloc(s.warehouses * DISTRICTS, sizeof(*s.next));
	if (!s.next)
		die(0, "no memory");
	remove(argv[1]);
	open_database(&s, argv[1]);
	puts("shop: filled");

	due = report = now_ns();
	for (;;) {
		uint64_t now;

		transact(&s);
		transactions++;
		due += NSEC_PER_SEC / rate;
		now = now_ns();
		if (now - report >= NSEC_PER_SEC) {
			unsigned int bad = 0;

			check(&s, checks++, &bad);
			if (!bad)
				printf("shop: %" PRIu64 " transactions ok\n", transactions);
			report = now;
		}
		if (now > due + LATE_NS)
			due = now;
		sleep_until(due);
	}
}
