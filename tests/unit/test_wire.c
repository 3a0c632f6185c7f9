// SPDX-License-Identifier: GPL-2.0-or-later
/* test_wire.c - codec, OPEN, and frames whole and damaged, over a real socket (invariant 10). */
#include "unit.h"

#include <errno.h>
#include <sys/socket.h>

#include "clock.h"
#include "codec.h"
#include "feature.h"
#include "faults.h"
#include "frame.h"
#include "messages.h"
#include "rng.h"
#include "xxh.h"

#define SOON (gw_now() + 120 * GW_S)

static void integers_are_little_endian(void **state)
{
	uint8_t b[8];

	(void)state;
	gw_put16(b, 0x0102);
	assert_memory_equal(b, "\x02\x01", 2);
	assert_int_equal(gw_get16(b), 0x0102);
	gw_put32(b, 0x01020304);
	assert_memory_equal(b, "\x04\x03\x02\x01", 4);
	assert_int_equal(gw_get32(b), 0x01020304);
	gw_put64(b, 0x0102030405060708);
	assert_memory_equal(b, "\x08\x07\x06\x05\x04\x03\x02\x01", 8);
	assert_int_equal(gw_get64(b), 0x0102030405060708);
}

static void reader_stays_within(void **state)
{
	const uint8_t bytes[10] = { 0 };
	struct gw_reader r = { bytes, sizeof(bytes) };

	(void)state;
	assert_ptr_equal(gw_take(&r, 4), bytes);
	assert_null(gw_take(&r, 7));
	assert_null(gw_take(&r, SIZE_MAX));
	assert_int_equal(r.left, 6); /* what was refused was not taken */
	assert_ptr_equal(gw_take(&r, 0), bytes + 4);
	assert_ptr_equal(gw_take(&r, 6), bytes + 4);
	assert_int_equal(r.left, 0);
	assert_null(gw_take(&r, 1));
	assert_non_null(gw_take(&r, 0));
}

static struct gw_open an_open(unsigned int min, unsigned int max)
{
	struct gw_open open = {
		.version_min = (uint16_t)min,
		.version_max = (uint16_t)max,
		.kind = GW_OPEN_STREAM,
		.stream = 0x01020304,
	};

	for (int i = 0; i < GW_ID_LEN; i++)
		open.id[i] = (uint8_t)(i * 17);
	return open;
}

static void open_round_trip(void **state)
{
	struct gw_open open = an_open(GW_VERSION_MIN, GW_VERSION), back;
	uint8_t wire[GW_OPEN_LEN];
	uint16_t version = 0;

	(void)state;
	gw_open_encode(&open, wire);
	assert_int_equal(gw_open_decode(wire, sizeof(wire), &back, &version), 0);
	assert_int_equal(version, GW_VERSION);
	assert_memory_equal(&back, &open, sizeof(open));
}

static void open_settles_on_a_version(void **state)
{
	static const struct {
		unsigned int min, max;
		int rc;
		unsigned int version;
	} tries[] = {
		{ GW_VERSION, GW_VERSION, 0, GW_VERSION },
		{ GW_VERSION_MIN, GW_VERSION_MIN, 0, GW_VERSION_MIN },
		{ GW_VERSION_MIN, GW_VERSION + 1, 0, GW_VERSION },
		{ GW_VERSION, UINT16_MAX, 0, GW_VERSION },
		{ 1, UINT16_MAX, 0, GW_VERSION },
		{ GW_VERSION + 1, GW_VERSION + 2, -EPROTONOSUPPORT, 0 },
		{ UINT16_MAX, UINT16_MAX, -EPROTONOSUPPORT, 0 },
		{ 0, 0, -EPROTO, 0 },
		{ 0, GW_VERSION, -EPROTO, 0 },
		{ GW_VERSION + 1, GW_VERSION, -EPROTO, 0 },
	};
	uint8_t wire[GW_OPEN_LEN];

	(void)state;
	for (size_t i = 0; i < GW_ARRAY_SIZE(tries); i++) {
		struct gw_open open = an_open(tries[i].min, tries[i].max), back;
		uint16_t version = 0;

		gw_open_encode(&open, wire);
		assert_int_equal(gw_open_decode(wire, sizeof(wire), &back, &version), tries[i].rc);
		if (!tries[i].rc)
			assert_int_equal(version, tries[i].version);
		if (tries[i].rc == -EPROTONOSUPPORT)
			assert_message("install neighbouring releases");
	}
#if GW_VERSION_MIN > 1
	struct gw_open old = an_open(1, GW_VERSION_MIN - 1), back;
	uint16_t version;

	gw_open_encode(&old, wire);
	assert_int_equal(gw_open_decode(wire, sizeof(wire), &back, &version), -EPROTONOSUPPORT);
#endif
}

static const char *letter(unsigned int i)
{
	static const char *const letters[] = { "a", NULL, "c", "d" };

	return letters[i];
}

static void names_travel(void **state)
{
	json_t *list = gw_names_json(0xf, 4, letter);
	gw_autofree char *text = json_dumps(list, JSON_COMPACT);
	uint32_t set = 77;

	(void)state;
	assert_string_equal(text, "[\"a\",\"c\",\"d\"]"); /* 1 has no name */
	assert_int_equal(gw_names_parse(list, 4, letter, &set), 0);
	assert_int_equal(set, 0xd);
	/* What a release to come has says nothing here. */
	json_array_append_new(list, json_string("z"));
	json_array_append_new(list, json_string(""));
	json_array_remove(list, 0);
	assert_int_equal(gw_names_parse(list, 4, letter, &set), 0);
	assert_int_equal(set, 0xc);
	json_decref(list);
	assert_int_equal(gw_names_parse(NULL, 4, letter, &set), 0);
	assert_int_equal(set, 0);
	for (unsigned int i = 0; i < GW_FEATURE_COUNT; i++)
		assert_non_null(gw_feature_name(i));
	assert_null(gw_feature_name(GW_FEATURE_COUNT));
}

static void names_that_are_none(void **state)
{
	static const char *const tries[] = { "{}",	     "7",	 "null", "\"a\"", "[1]",
					     "[\"a\",null]", "[[\"a\"]]" };

	(void)state;
	for (size_t i = 0; i < GW_ARRAY_SIZE(tries); i++) {
		json_t *list = json_loads(tries[i], JSON_DECODE_ANY, NULL);
		uint32_t set = 77;

		assert_non_null(list);
		assert_int_equal(gw_names_parse(list, 4, letter, &set), -EPROTO);
		assert_message("a list of names");
		json_decref(list);
	}
}

static void open_refuses_garbage(void **state)
{
	struct gw_open open = an_open(GW_VERSION, GW_VERSION), back;
	static const uint16_t kinds[] = { 0, GW_OPEN_KINDS, UINT16_MAX };
	uint8_t wire[GW_OPEN_LEN + 1] = { 0 };
	uint16_t version;

	(void)state;
	gw_open_encode(&open, wire);
	assert_int_equal(gw_open_decode(wire, GW_OPEN_LEN - 1, &back, &version), -EPROTO);
	assert_int_equal(gw_open_decode(wire, GW_OPEN_LEN + 1, &back, &version), -EPROTO);
	assert_int_equal(gw_open_decode(wire, 0, &back, &version), -EPROTO);
	for (size_t i = 0; i < GW_ARRAY_SIZE(kinds); i++) {
		gw_put16(wire + 4, kinds[i]);
		assert_int_equal(gw_open_decode(wire, GW_OPEN_LEN, &back, &version), -EPROTO);
	}
}

static void ids_are_hex(void **state)
{
	static const char *const bad[] = {
		"",
		"0123456789abcdef0123456789abcde",
		"0123456789abcdef0123456789abcdef0",
		"0123456789abcdef0123456789abcdeg",
		" 123456789abcdef0123456789abcdef",
		"+1234567-9abcdef0123456789abcdef",
		"0x23456789abcdef0123456789abcdef",
		"../../../../etc/passwd/xxxxxxxxx",
	};
	struct gw_open open = an_open(1, 1);
	uint8_t id[GW_ID_LEN];
	char text[2 * GW_ID_LEN + 1];

	(void)state;
	gw_id_format(open.id, text);
	assert_string_equal(text, "00112233445566778899aabbccddeeff");
	assert_int_equal(gw_id_parse(text, id), 0);
	assert_memory_equal(id, open.id, sizeof(id));
	assert_int_equal(gw_id_parse(NULL, id), -EINVAL);
	for (size_t i = 0; i < GW_ARRAY_SIZE(bad); i++)
		if (gw_id_parse(bad[i], id) != -EINVAL)
			fail_msg("'%s' was taken for an id", bad[i]);
}

static void every_message_is_known(void **state)
{
	(void)state;
	for (unsigned int type = 1; type < GW_MSG_COUNT; type++) {
		assert_string_not_equal(gw_message_name(type), "unknown");
		assert_true(gw_message_max(type) >= 0);
	}
	assert_string_equal(gw_message_name(0), "unknown");
	assert_int_equal(gw_message_max(0), -1);
	assert_int_equal(gw_message_max(GW_MSG_COUNT), -1);
	assert_int_equal(gw_message_max(UINT32_MAX), -1);
	assert_string_equal(gw_message_name(UINT32_MAX), "unknown");
}

/* Two ends of a socket: `raw` is a peer that may send anything. */
struct ends {
	struct gw_transport *t;
	struct gw_frame f;
	int raw;
};

static int connect_ends(void **state)
{
	struct ends *e = calloc(1, sizeof(*e));
	int socks[2];

	*state = e;
	if (!e || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, socks))
		return -1;
	e->raw = socks[0];
	e->t = gw_tcp_adopt(socks[1]);
	return e->t ? 0 : -1;
}

static int close_ends(void **state)
{
	struct ends *e = *state;

	gw_transport_close(&e->t);
	gw_frame_free(&e->f);
	if (e->raw >= 0)
		close(e->raw);
	free(e);
	return 0;
}

static void hang_up(struct ends *e)
{
	close(e->raw);
	e->raw = -1;
}

/* A frame as frame.h describes it, made without frame.c; @room bytes at @out. */
static size_t make_frame(uint8_t *out, unsigned int type, uint64_t arg, const void *payload,
			 size_t len)
{
	gw_autofree uint8_t *covered = calloc(1, 24 + len);

	memset(out, 0, GW_FRAME_HEADER);
	memcpy(out, "GWF1", 4);
	gw_put16(out + 4, (uint16_t)type);
	gw_put32(out + 8, (uint32_t)len);
	gw_put64(out + 16, arg);
	memcpy(covered, out, 24);
	memcpy(covered + 24, payload, len);
	gw_put64(out + 24, XXH3_64bits(covered, 24 + len));
	memcpy(out + GW_FRAME_HEADER, payload, len);
	return GW_FRAME_HEADER + len;
}

static void frames_look_as_documented(void **state)
{
	struct ends *e = *state;
	uint8_t expected[64], sent[64];
	size_t len = make_frame(expected, GW_MSG_ERROR, 77, "sorry", 5);
	struct iovec parts[] = { { (void *)"so", 2 }, { NULL, 0 }, { (void *)"rry", 3 } };

	assert_int_equal(gw_frame_send(e->t, GW_MSG_ERROR, 77, parts, 3), 0);
	assert_int_equal(recv(e->raw, sent, sizeof(sent), 0), len);
	assert_memory_equal(sent, expected, len);
	assert_int_equal(e->t->sent, len);
	assert_int_equal(gw_write_all(e->raw, expected, len), 0);
	assert_int_equal(gw_frame_recv(e->t, &e->f, SOON), 0);
	assert_int_equal(e->f.type, GW_MSG_ERROR);
	assert_int_equal(e->f.arg, 77);
	assert_int_equal(e->f.len, 5);
	assert_memory_equal(e->f.payload, "sorry", 5);
	assert_int_equal(e->t->received, len);
}

static void too_much_is_not_sent(void **state)
{
	struct ends *e = *state;
	static struct iovec parts[GW_FRAME_PARTS + 1];
	static uint8_t big[8192];

	assert_int_equal(gw_frame_send_buf(e->t, GW_MSG_ERROR, 0, big, 4097), -EMSGSIZE);
	assert_int_equal(gw_frame_send_buf(e->t, GW_MSG_COMMIT, 0, big, 1), -EMSGSIZE);
	assert_int_equal(gw_frame_send_buf(e->t, GW_MSG_COUNT, 0, NULL, 0), -EMSGSIZE);
	assert_int_equal(gw_frame_send(e->t, GW_MSG_PAGES, 0, parts, GW_FRAME_PARTS + 1), -EINVAL);
	assert_int_equal(e->t->sent, 0);
}

static int receive_bytes(struct ends *e, const void *bytes, size_t len)
{
	assert_int_equal(gw_write_all(e->raw, bytes, len), 0);
	return gw_frame_recv(e->t, &e->f, SOON);
}

/* Sizes and types that lie are refused before anything is allocated or waited for. */
static void headers_that_lie(void **state)
{
	struct ends *e = *state;
	static const struct {
		size_t at;
		uint8_t value;
	} lies[] = {
		{ 0, 'X' },	     /* magic */
		{ 4, 0 },	     /* type 0 */
		{ 4, GW_MSG_COUNT }, /* type beyond */
		{ 5, 1 },	     /* type beyond, high byte */
		{ 6, 1 },
		{ 7, 0x80 }, /* reserved */
		{ 9, 0x11 },
		{ 11, 0x80 }, /* length over the maximum */
		{ 12, 1 },
		{ 15, 0x80 }, /* reserved */
	};
	uint8_t frame[64];

	for (size_t i = 0; i < GW_ARRAY_SIZE(lies); i++) {
		make_frame(frame, GW_MSG_ERROR, 0, "", 0);
		frame[lies[i].at] = lies[i].value;
		/* With a checksum that is right, so that only the field is wrong. */
		gw_put64(frame + 24, XXH3_64bits(frame, 24));
		assert_int_equal(receive_bytes(e, frame, GW_FRAME_HEADER), -EPROTO);
	}
	assert_int_equal(e->f.room, 0);
	make_frame(frame, GW_MSG_COMMIT, 0, "x", 1);
	assert_int_equal(receive_bytes(e, frame, GW_FRAME_HEADER + 1), -EPROTO);
	assert_message("COMMIT");
}

static void any_flipped_bit_is_noticed(void **state)
{
	struct ends *e = *state;
	uint8_t frame[64];
	size_t len = make_frame(frame, GW_MSG_PAGES, 5, "0123456789abcdef", 16);

	for (size_t bit = 0; bit < len * 8; bit++) {
		struct gw_frame header;
		uint8_t bad[64];

		memcpy(bad, frame, len);
		bad[bit / 8] ^= (uint8_t)(1U << bit % 8);
		if (!gw_frame_parse_header(bad, &header) && header.len != 16) {
			/* A length that is still possible: what follows decides. */
			assert_int_equal(gw_frame_check(bad, bad + GW_FRAME_HEADER, 16), -EPROTO);
			continue;
		}
		assert_int_equal(receive_bytes(e, bad, len), -EPROTO);
		close_ends(state); /* what is left of it is of no use to the next */
		assert_int_equal(connect_ends(state), 0);
		e = *state;
	}
	assert_int_equal(gw_frame_check(frame, frame + GW_FRAME_HEADER, 16), 0);
}

/* The peer closes after each number of bytes: lost, never a frame. */
static void cut_frames(void **state)
{
	struct ends *e = *state;
	uint8_t frame[64];
	size_t len = make_frame(frame, GW_MSG_ERROR, 5, "01234567", 8);

	for (size_t cut = 0; cut < len; cut++) {
		int rc;

		assert_int_equal(gw_write_all(e->raw, frame, cut), 0);
		hang_up(e);
		rc = gw_frame_recv(e->t, &e->f, cut % 2 ? GW_FOREVER : SOON);
		assert_int_equal(rc, -ECONNRESET);
		assert_true(gw_transport_lost(rc));
		close_ends(state);
		assert_int_equal(connect_ends(state), 0);
		e = *state;
	}
}

static void silence_ends_at_the_deadline(void **state)
{
	struct ends *e = *state;
	uint8_t frame[64];
	size_t len = make_frame(frame, GW_MSG_ERROR, 5, "01234567", 8);
	int64_t deadline = gw_now() + 30 * GW_MS;

	assert_int_equal(gw_frame_recv(e->t, &e->f, deadline), -ETIMEDOUT);
	assert_true(gw_now() >= deadline);
	deadline = gw_now() + 30 * GW_MS;
	assert_int_equal(gw_write_all(e->raw, frame, len - 1), 0);
	assert_int_equal(gw_frame_recv(e->t, &e->f, deadline), -ETIMEDOUT);
	assert_true(gw_now() >= deadline);
	/* A deadline in the past still takes what is there. */
	close_ends(state);
	assert_int_equal(connect_ends(state), 0);
	e = *state;
	assert_int_equal(gw_write_all(e->raw, frame, len), 0);
	assert_int_equal(gw_frame_recv(e->t, &e->f, 0), 0);
}

static void faults_travel(void **state)
{
	uint64_t numbers[GW_FAULT_NUMBERS], back[GW_FAULT_NUMBERS];
	uint8_t wire[GW_FAULTS_LEN + 8] = { 0 };

	(void)state;
	for (size_t i = 0; i < GW_FAULT_NUMBERS; i++)
		numbers[i] = i << 40;
	gw_faults_encode(numbers, wire);
	assert_int_equal(gw_faults_decode(wire, GW_FAULTS_LEN, back), 0);
	assert_memory_equal(back, numbers, sizeof(back));
	assert_int_equal(gw_faults_decode(wire, sizeof(wire), back), 0); /* of a later release */
	for (size_t len = 0; len < GW_FAULTS_LEN; len++)
		if (len < GW_FAULTS_LEAST || len % 8)
			assert_int_equal(gw_faults_decode(wire, len, back), -EPROTO);
	/* Of an earlier one: what it does not tell is 0, and the connection lives. */
	assert_int_equal(gw_faults_decode(wire, GW_FAULTS_LEAST, back), 0);
	assert_memory_equal(back, numbers, GW_FAULTS_LEAST);
	for (size_t i = GW_FAULT_VCPUS; i < GW_FAULT_NUMBERS; i++)
		assert_true(!back[i]);
	assert_int_equal(gw_faults_decode(wire, GW_FAULTS_LEN + 1, back), -EPROTO);
	numbers[0] = UINT64_MAX;
	gw_faults_encode(numbers, wire);
	assert_int_equal(gw_faults_decode(wire, GW_FAULTS_LEN, back), 0);
	assert_true(back[0] == INT64_MAX);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(integers_are_little_endian),
		cmocka_unit_test(faults_travel),
		cmocka_unit_test(reader_stays_within),
		cmocka_unit_test(open_round_trip),
		cmocka_unit_test(open_settles_on_a_version),
		cmocka_unit_test(open_refuses_garbage),
		cmocka_unit_test(names_travel),
		cmocka_unit_test(names_that_are_none),
		cmocka_unit_test(ids_are_hex),
		cmocka_unit_test(every_message_is_known),
		cmocka_unit_test_setup_teardown(frames_look_as_documented, connect_ends,
						close_ends),
		cmocka_unit_test_setup_teardown(too_much_is_not_sent, connect_ends, close_ends),
		cmocka_unit_test_setup_teardown(headers_that_lie, connect_ends, close_ends),
		cmocka_unit_test_setup_teardown(any_flipped_bit_is_noticed, connect_ends,
						close_ends),
		cmocka_unit_test_setup_teardown(cut_frames, connect_ends, close_ends),
		cmocka_unit_test_setup_teardown(silence_ends_at_the_deadline, connect_ends,
						close_ends),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
