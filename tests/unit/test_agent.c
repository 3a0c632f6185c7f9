// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * test_agent.c - a host and a guest's agent: answers that are cut, that follow what is left of
 * others, and all that no honest guest says; and where its frames and disks are.
 */
#include "unit.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/socket.h>
#include <unistd.h>

#include "agent.h"
#include "clock.h"
#include "codec.h"
#include "page.h"
#include "physical.h"

#define SOON (gw_now() + 60 * GW_S)
#define LOW  ((1ULL << 48) - 1)

/* What the guest sends once it was asked: as it is, but for the id after each magic. */
static struct {
	int fd;
	uint8_t bytes[1 << 20];
	size_t len, piece;
	uint8_t request[32];
	bool hangs_up;
} guest;

/* What was heard. */
static struct {
	unsigned int disks, runs;
	char text[GW_AGENT_TEXT_MAX + 1];
	uint64_t sectors, frame, count, sector;
	unsigned int index;
	int rc;
} heard;

static void *answer(void *arg)
{
	size_t at = 0;

	(void)arg;
	while (at < sizeof(guest.request)) {
		const ssize_t n = read(guest.fd, guest.request + at, sizeof(guest.request) - at);

		if (n <= 0)
			return NULL;
		at += (size_t)n;
	}
	for (size_t i = 0; i + 16 <= guest.len; i++)
		if (!memcmp(guest.bytes + i, "GWAGENT!", 8) && !gw_get64(guest.bytes + i + 8))
			memcpy(guest.bytes + i + 8, guest.request + 8, 8);
	for (size_t i = 0; i < guest.len; i += guest.piece) {
		const size_t n = guest.len - i < guest.piece ? guest.len - i : guest.piece;

		if (write(guest.fd, guest.bytes + i, n) != (ssize_t)n)
			return NULL;
	}
	if (guest.hangs_up)
		shutdown(guest.fd, SHUT_WR);
	return NULL;
}

static void put(const void *bytes, size_t len)
{
	assert_true(guest.len + len <= sizeof(guest.bytes));
	memcpy(guest.bytes + guest.len, bytes, len);
	guest.len += len;
}

static void frame(unsigned int kind, const void *body, size_t len)
{
	uint8_t head[32] = "GWAGENT!";

	gw_put32(head + 16, 1);
	gw_put32(head + 20, kind);
	gw_put32(head + 24, (uint32_t)len);
	put(head, sizeof(head));
	put(body, len);
}

static void pair(uint8_t *at, uint64_t first, uint64_t second)
{
	gw_put64(at, first);
	gw_put64(at + 8, second);
}

static void end(uint64_t runs, uint64_t pages)
{
	uint8_t body[24] = { 0 };

	pair(body, runs, pages);
	gw_put32(body + 16, 1);
	frame(2, body, sizeof(body));
}

/* A header, a disk and two runs; @pairs of it. */
static void stream(uint8_t *at)
{
	memcpy(at, "GWCACHE\1\0\20\0\0\0\0\0\0", 16);
	pair(at + 16, LOW | 1ULL << 48, 2048 | 3ULL << 48);
	memcpy(at + 32, "pci:0000:00:03.0", 16);
	pair(at + 48, 100 | 4ULL << 48, 80 | 3ULL << 48);
	pair(at + 64, 7, 8 | 3ULL << 48);
}

#define STREAM_LEN 80

static int hear_disk(void *arg, unsigned int index, const char *text, uint64_t sectors)
{
	(void)arg;
	heard.disks++;
	heard.index = index;
	heard.sectors = sectors;
	snprintf(heard.text, sizeof(heard.text), "%s", text);
	return heard.rc;
}

static int hear_run(void *arg, uint64_t first, uint64_t count, unsigned int index, uint64_t sector)
{
	(void)arg;
	heard.runs++;
	heard.frame = first;
	heard.count = count;
	heard.index = index;
	heard.sector = sector;
	return heard.rc;
}

static struct gw_agent_told told;

static int ask_by(int64_t deadline, uint64_t most)
{
	const struct gw_agent_hears hears = { hear_disk, hear_run, NULL };
	pthread_t thread;
	int pair_of[2], rc;

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair_of), 0);
	assert_int_equal(fcntl(pair_of[0], F_SETFL, O_NONBLOCK), 0);
	guest.fd = pair_of[1];
	assert_int_equal(pthread_create(&thread, NULL, answer, NULL), 0);
	rc = gw_agent_ask(pair_of[0], deadline, most, &hears, &told);
	close(pair_of[0]);
	pthread_join(thread, NULL);
	close(pair_of[1]);
	return rc;
}

static int ask(void)
{
	return ask_by(SOON, 1000);
}

static int fresh(void **state)
{
	(void)state;
	memset(&guest, 0, sizeof(guest));
	memset(&heard, 0, sizeof(heard));
	guest.piece = sizeof(guest.bytes);
	guest.hangs_up = true;
	return 0;
}

static void assert_all_heard(void)
{
	assert_int_equal(heard.disks, 1);
	assert_int_equal(heard.runs, 2);
	assert_string_equal(heard.text, "pci:0000:00:03.0");
	assert_int_equal(heard.sectors, 2048);
	assert_int_equal(heard.frame, 7);
	assert_int_equal(heard.count, 1);
	assert_int_equal(heard.index, 3);
	assert_int_equal(heard.sector, 8);
	assert_int_equal(told.runs, 2);
	assert_int_equal(told.pages, 6);
	assert_true(told.module);
}

static void in_one(void **state)
{
	uint8_t bytes[STREAM_LEN];

	(void)state;
	stream(bytes);
	frame(1, bytes, sizeof(bytes));
	end(2, 6);
	assert_int_equal(ask(), 0);
	assert_all_heard();
	assert_memory_equal(guest.request, "GWAGENT?", 8);
	assert_int_equal(gw_get32(guest.request + 16), 1);
	assert_int_equal(gw_get32(guest.request + 20), 1);
	assert_int_equal(gw_get64(guest.request + 24), 0);
}

/* A pair at a time, in frames that arrive a byte at a time, after what is left of others. */
static void in_pieces(void **state)
{
	uint8_t bytes[STREAM_LEN], foreign[40] = "GWAGENT!foreign!";

	(void)state;
	stream(bytes);
	put("AGENT! and the rest of it", 25);
	gw_put32(foreign + 24, 60000); /* whose length must not be believed */
	put(foreign, sizeof(foreign));
	for (size_t i = 0; i < STREAM_LEN; i += 8)
		frame(1, bytes + i, 8);
	put("GWAGENT!", 8);
	end(2, 6);
	guest.piece = 1;
	assert_int_equal(ask(), 0);
	assert_all_heard();
}

static void never_whole(void **state)
{
	uint8_t bytes[STREAM_LEN];

	(void)state;
	stream(bytes);
	frame(1, bytes, STREAM_LEN);
	assert_int_equal(ask(), -ECONNRESET);
	fresh(NULL);
	frame(1, bytes, STREAM_LEN);
	guest.hangs_up = false;
	assert_int_equal(ask_by(gw_now() + 200 * GW_MS, 1000), -ETIMEDOUT);
	fresh(NULL);
	guest.hangs_up = false;
	assert_int_equal(ask_by(gw_now() + 200 * GW_MS, 1000), -ETIMEDOUT);
}

static void ends_that_cannot_be(void **state)
{
	uint8_t bytes[STREAM_LEN];

	(void)state;
	stream(bytes);
	for (int i = 0; i < 5; i++) {
		const size_t len = i == 2 ? STREAM_LEN - 8 : i == 3 ? 32 : STREAM_LEN;

		fresh(NULL);
		if (i != 4)
			frame(1, bytes, len);
		end(i == 0 ? 1 : i >= 3 ? 0 : 2, i == 1 ? 7 : i >= 3 ? 0 : 6);
		assert_int_equal(ask(), -EPROTO);
	}
}

static void that_cannot_be(void **state)
{
	uint8_t bytes[STREAM_LEN], body[8] = { 0 };

	(void)state;
	stream(bytes);
	bytes[7] = 2; /* another version of the stream */
	frame(1, bytes, sizeof(bytes));
	assert_int_equal(ask(), -EPROTO);
	fresh(NULL);
	stream(bytes);
	bytes[9] = 0x40; /* pages of 16 KiB */
	frame(1, bytes, sizeof(bytes));
	assert_int_equal(ask(), -EPROTO);
	fresh(NULL);
	frame(9, body, sizeof(body));
	assert_int_equal(ask(), -EPROTO);
	fresh(NULL);
	frame(1, body, 0);
	assert_int_equal(ask(), -EPROTO);
	fresh(NULL);
	frame(3, "no\33[2J", 6);
	assert_int_equal(ask(), -ENOTSUP);
	assert_non_null(strstr(gw_error(), "no?[2J"));
	fresh(NULL);
	frame(1, bytes, 8);
	gw_put32(guest.bytes + 24, 65536); /* longer than any frame */
	assert_int_equal(ask(), -EPROTO);
}

/* One that never stops talking, and says nothing. */
static void *talk(void *arg)
{
	static const uint8_t nothing[4096];

	(void)arg;
	while (send(guest.fd, nothing, sizeof(nothing), MSG_NOSIGNAL) > 0)
		;
	return NULL;
}

static void talks_for_ever(void **state)
{
	const struct gw_agent_hears hears = { hear_disk, hear_run, NULL };
	pthread_t thread;
	int pair_of[2];

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair_of), 0);
	assert_int_equal(fcntl(pair_of[0], F_SETFL, O_NONBLOCK), 0);
	guest.fd = pair_of[1];
	assert_int_equal(pthread_create(&thread, NULL, talk, NULL), 0);
	assert_int_equal(gw_agent_ask(pair_of[0], gw_now() + 200 * GW_MS, 1000, &hears, &told),
			 -ETIMEDOUT);
	close(pair_of[0]);
	pthread_join(thread, NULL);
	close(pair_of[1]);
}

/* It may say what it likes, but not for ever. */
static void without_end(void **state)
{
	static uint8_t bytes[65504];

	(void)state;
	stream(bytes);
	for (size_t i = 48; i < sizeof(bytes); i += 16)
		pair(bytes + i, i, 3ULL << 48);
	frame(1, bytes, sizeof(bytes));
	assert_int_equal(ask(), -EPROTO);
	assert_int_equal(heard.runs, 1000);
	/* Nor of more pages than twice the VM's, in however few runs. */
	fresh(NULL);
	stream(bytes);
	pair(bytes + 48, 1 | 65535ULL << 48, 3ULL << 48);
	frame(1, bytes, STREAM_LEN);
	assert_int_equal(ask(), -EPROTO);
	fresh(NULL);
	stream(bytes);
	pair(bytes + 16, LOW, 1 | 5000ULL << 48); /* the five-thousandth disk */
	frame(1, bytes, 64);
	assert_int_equal(ask(), -EPROTO);
	assert_int_equal(heard.disks, 0);
}

static void names_without_end(void **state)
{
	static uint8_t bytes[16 * 600];

	(void)state;
	stream(bytes);
	pair(bytes + 16, LOW | 500ULL << 48, 1);
	memset(bytes + 32, 'x', sizeof(bytes) - 32);
	frame(1, bytes, 32 + 500 * 16);
	end(0, 0);
	assert_int_equal(ask(), 0);
	assert_int_equal(heard.disks, 1);
	assert_true(strlen(heard.text) <= GW_AGENT_TEXT_MAX && strlen(heard.text) > 100);
}

static void who_hears_may_end_it(void **state)
{
	uint8_t bytes[STREAM_LEN];

	(void)state;
	stream(bytes);
	heard.rc = -ENOMEM;
	frame(1, bytes, sizeof(bytes));
	end(2, 6);
	assert_int_equal(ask(), -ENOMEM);
	assert_int_equal(heard.disks, 1);
	assert_int_equal(heard.runs, 0);
}

/* As QEMU 7.2 and 10 print it. */
static const char tree[] =
	"FlatView #0\r\n AS \"I/O\", root: io\r\n Root memory region: io\r\n"
	"  0000000000000000-0000000000000007 (prio 0, ram): ram0\r\n\r\n"
	"FlatView #1\r\n AS \"memory\", root: system\r\n AS \"cpu-memory-0\", root: system\r\n"
	" Root memory region: system\r\n"
	"  0000000000000000-00000000000bffff (prio 0, ram): ram0\r\n"
	"  00000000000c0000-00000000000dffff (prio 1, rom): pc.rom\r\n"
	"  0000000000100000-000000007fffffff (prio 0, ram): ram0 @0000000000100000\r\n"
	"  00000000fffc0000-00000000ffffffff (prio 0, rom): pc.bios\r\n"
	"  0000000100000000-000000013fffffff (prio 0, ram): ram0 @0000000080000000\r\n"
	"  0000000140000000-000000014fffffff (prio 0, ram): dimm1 KVM\r\n\r\n"
	"FlatView #2\r\n AS \"cpu-smm-0\", root: memory\r\n"
	"  0000000000000000-ffffffffffffffff (prio 0, ram): ram0\r\n";

static void frames_and_pages(void **state)
{
	static const struct gw_memory_ops none;
	struct gw_memory m = { .ops = &none };
	struct gw_physical p;
	size_t page;

	(void)state;
	assert_true(gw_memory_add(&m, "dimm1", 256 << 20) >= 0);
	assert_true(gw_memory_add(&m, "ram0", 3ULL << 30) >= 0);
	gw_physical_parse(&p, tree, &m);
	assert_int_equal(p.nr, 4);
	assert_int_equal(gw_physical_pages(&p, 5, 10, &page), 10);
	assert_int_equal(page, m.blocks[1].first_page + 5);
	assert_int_equal(gw_physical_pages(&p, 0xb0, 1000, &page), 0x10);
	assert_int_equal(gw_physical_pages(&p, 0xc0, 1, &page), 0);
	assert_int_equal(gw_physical_pages(&p, 0x100000, 1, &page), 1);
	assert_int_equal(page, m.blocks[1].first_page + 0x80000);
	assert_int_equal(gw_physical_pages(&p, 0x140000 + 5, 1ULL << 40, &page), 65536 - 5);
	assert_int_equal(page, m.blocks[0].first_page + 5);
	assert_int_equal(gw_physical_pages(&p, 0x150000, 1, &page), 0);
	assert_int_equal(gw_physical_pages(&p, UINT64_MAX, UINT64_MAX, &page), 0);
}

/* A block is never larger than it is, whatever somebody prints. */
static void frames_that_cannot_be(void **state)
{
	static const char *const lies[] = {
		"",
		"\n AS \"memory\", ",
		"\n AS \"memory\", \n 0-0 (prio 0, ram): ram0",
		"\n AS \"memory\", \n 10-5 (prio 0, ram): ram0\n",
		"\n AS \"memory\", \n 1000-1fff (prio 0, ram): ram0 @0000000000400000\n",
		"\n AS \"memory\", \n 1001-2000 (prio 0, ram): ram0\n",
		"\n AS \"memory\", \n 1000-1fff (prio 0, ram): other\n",
	};
	static const struct gw_memory_ops none;
	struct gw_memory m = { .ops = &none };
	struct gw_physical p;
	size_t page;

	(void)state;
	assert_true(gw_memory_add(&m, "ram0", 4 << 20) >= 0);
	for (size_t i = 0; i < sizeof(lies) / sizeof(lies[0]); i++) {
		gw_physical_parse(&p, lies[i], &m);
		assert_int_equal(p.nr, 0);
	}
	gw_physical_parse(&p, "\n AS \"memory\", \n 0-ffffffffff (prio 0, ram): ram0 @1000\n", &m);
	assert_int_equal(gw_physical_pages(&p, 0, UINT64_MAX, &page), 1023);
	assert_int_equal(page, 1);
}

static void disks(void **state)
{
	json_t *list = json_pack("[{s:s,s:s,s:i},{s:s,s:s,s:i},{s:s,s:s,s:i},{s:s,s:s,s:i}]",
				 "disk", "a", "key", "03.0", "sectors", 100, "disk", "b", "key",
				 "04.0/0:3:2", "sectors", 100, "disk", "c", "key", "00.0",
				 "sectors", 100, "disk", "d", "key", "00.0", "sectors", 100);

	(void)state;
	assert_string_equal(gw_agent_match(list, "pci:0000:00:03.0", 100), "a");
	assert_string_equal(gw_agent_match(list, "scsi:0000:00:04.0/0:3:2", 100), "b");
	assert_null(gw_agent_match(list, "pci:0000:00:03.0", 101));
	assert_null(gw_agent_match(list, "pci:0000:01:00.0", 100)); /* one of two */
	assert_null(gw_agent_match(list, "03.0", 100));
	assert_null(gw_agent_match(list, "", 100));
	assert_null(gw_agent_match(list, ":::", 100));
	json_decref(list);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(in_one, fresh),
		cmocka_unit_test_setup(in_pieces, fresh),
		cmocka_unit_test_setup(never_whole, fresh),
		cmocka_unit_test_setup(ends_that_cannot_be, fresh),
		cmocka_unit_test_setup(that_cannot_be, fresh),
		cmocka_unit_test_setup(talks_for_ever, fresh),
		cmocka_unit_test_setup(without_end, fresh),
		cmocka_unit_test_setup(names_without_end, fresh),
		cmocka_unit_test_setup(who_hears_may_end_it, fresh),
		cmocka_unit_test(frames_and_pages),
		cmocka_unit_test(frames_that_cannot_be),
		cmocka_unit_test(disks),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
