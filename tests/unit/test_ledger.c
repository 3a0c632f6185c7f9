// SPDX-License-Identifier: GPL-2.0-or-later
/* test_ledger.c - digests and generations over a VM's departures, on file and on the wire. */
#include "unit.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <zstd.h>

#include "codec.h"
#include "ledger.h"
#include "rng.h"

#define PAGES (GW_LEDGER_PART + 300) /* two parts, the second of them short */

static void make_id(uint8_t id[GW_ID_LEN], uint32_t number)
{
	memset(id, 0x5a, GW_ID_LEN);
	gw_put32(id, number);
}

static struct gw_digest digest_of(size_t page, uint32_t version)
{
	struct rng rng = { (uint64_t)version << 32 | page };

	if (!version)
		return (struct gw_digest){ 0, 0 };
	return (struct gw_digest){ rng_next(&rng), rng_next(&rng) };
}

/* The digests of memory where page P has version[P]. */
static void digests(struct gw_digests *d, const uint32_t version[PAGES])
{
	assert_int_equal(gw_digests_init(d, PAGES), 0);
	for (size_t page = 0; page < PAGES; page++)
		gw_digests_set(d, page, digest_of(page, version[page]));
}

/* A ledger after the departures 1 to @nr: page P changes at departure N if P % (N + 1) == 0. */
static void history(struct gw_ledger *l, uint32_t nr)
{
	static uint32_t version[PAGES];
	struct gw_ledger before = { 0 };

	memset(version, 0, sizeof(version));
	for (uint32_t n = 1; n <= nr; n++) {
		struct gw_digests now;
		uint8_t id[GW_ID_LEN];

		for (size_t page = 0; page < PAGES; page++)
			if (page % (n + 1) == 0)
				version[page] = page % 11 ? n : 0; /* some become zero again */
		digests(&now, version);
		make_id(id, n);
		assert_int_equal(gw_ledger_create(l, NULL, PAGES), 0);
		assert_int_equal(gw_ledger_depart(l, n > 1 ? &before : NULL, &now, id), 0);
		gw_digests_free(&now);
		gw_ledger_close(&before);
		before = *l;
	}
}

static bool equal(const struct gw_ledger *a, const struct gw_ledger *b)
{
	return a->nr_pages == b->nr_pages &&
	       !memcmp(a->generations, b->generations, a->nr_pages * 4) &&
	       !memcmp(a->digests, b->digests, a->nr_pages * sizeof(*a->digests));
}

static void sealed_and_opened(void **state)
{
	gw_autofree char *path = gw_path("%s/ledger", (char *)*state);
	gw_autofree char *new = gw_path("%s/ledger.new", (char *)*state);
	uint8_t id[GW_ID_LEN];
	struct gw_ledger l, back;
	struct stat st;

	make_id(id, 1);
	assert_int_equal(gw_ledger_create(&l, path, PAGES), 0);
	gw_ledger_add(&l, id);
	l.generations[7] = 1;
	l.digests[7] = digest_of(7, 1);
	l.digests[PAGES - 1] = digest_of(8, 1);
	/* Nobody finds it before it is whole. */
	assert_int_equal(gw_ledger_open(&back, path), -ENOENT);
	gw_ledger_close(&back);
	assert_int_equal(gw_ledger_seal(&l), 0);
	assert_int_equal(access(new, F_OK), -1);
	assert_int_equal(gw_ledger_open(&back, path), 0);
	assert_true(equal(&l, &back));
	assert_int_equal(gw_ledger_departures(&back), 1);
	assert_memory_equal(gw_ledger_id(&back, 1), id, GW_ID_LEN);
	gw_ledger_close(&l);
	assert_int_equal(stat(path, &st), 0);
	assert_true((uint64_t)st.st_blocks * 512 < (uint64_t)st.st_size / 2); /* sparse */
	gw_ledger_close(&back);
	/* A new one replaces it only when it is sealed. */
	assert_int_equal(gw_ledger_create(&l, path, 1), 0);
	assert_int_equal(access(new, F_OK), 0);
	gw_ledger_close(&l);
	assert_int_equal(access(new, F_OK), -1);
	assert_int_equal(gw_ledger_open(&back, path), 0);
	assert_int_equal(back.nr_pages, PAGES);
	gw_ledger_close(&back);
	gw_ledger_close(&back);
}

static void damaged_at_any_byte(void **state)
{
	gw_autofree char *path = gw_path("%s/ledger", (char *)*state);
	struct gw_ledger l, back;
	gw_autofd int fd = -1;
	struct stat st;

	assert_int_equal(gw_ledger_create(&l, path, 100), 0);
	for (size_t page = 0; page < 100; page++)
		l.digests[page] = digest_of(page, 1);
	assert_int_equal(gw_ledger_seal(&l), 0);
	gw_ledger_close(&l);
	fd = open(path, O_RDWR | O_CLOEXEC);
	assert_int_equal(fstat(fd, &st), 0);
	for (off_t at = 0; at < st.st_size; at++) {
		uint8_t byte, bad;

		assert_int_equal(pread(fd, &byte, 1, at), 1);
		bad = byte ^ (uint8_t)(1U << at % 8);
		assert_int_equal(pwrite(fd, &bad, 1, at), 1);
		if (gw_ledger_open(&back, path) != -EBADMSG)
			fail_msg("byte %lld", (long long)at);
		gw_ledger_close(&back);
		assert_int_equal(pwrite(fd, &byte, 1, at), 1);
	}
	assert_int_equal(gw_ledger_open(&back, path), 0);
	gw_ledger_close(&back);
	assert_int_equal(ftruncate(fd, st.st_size + 1), 0);
	assert_int_equal(gw_ledger_open(&back, path), -EBADMSG);
	gw_ledger_close(&back);
	for (off_t len = st.st_size; len--; len -= len > 300 ? 200 : 0) {
		assert_int_equal(ftruncate(fd, len), 0);
		assert_int_equal(gw_ledger_open(&back, path), -EBADMSG);
		gw_ledger_close(&back);
	}
}

/* The number of pages alone must not make us map, or multiply, what is not there. */
static void absurd_sizes(void **state)
{
	static const uint64_t sizes[] = { 0,	      101,	  1ULL << 40,
					  1ULL << 60, UINT64_MAX, UINT64_MAX / 20 };
	gw_autofree char *path = gw_path("%s/ledger", (char *)*state);
	struct gw_ledger l, back;
	gw_autofd int fd = -1;

	assert_int_equal(gw_ledger_create(&l, path, 100), 0);
	assert_int_equal(gw_ledger_seal(&l), 0);
	gw_ledger_close(&l);
	fd = open(path, O_RDWR | O_CLOEXEC);
	for (size_t i = 0; i < GW_ARRAY_SIZE(sizes); i++) {
		assert_int_equal(pwrite(fd, &sizes[i], 8, 16), 8);
		assert_int_equal(gw_ledger_open(&back, path), -EBADMSG);
		gw_ledger_close(&back);
	}
}

static void generations_rise_with_content(void **state)
{
	uint32_t version[PAGES] = { 0 };
	struct gw_ledger first, second, third;
	struct gw_digests now;
	uint8_t id[GW_ID_LEN];

	(void)state;
	version[1] = version[2] = version[3] = version[4] = 1;
	digests(&now, version);
	make_id(id, 1);
	assert_int_equal(gw_ledger_create(&first, NULL, PAGES), 0);
	assert_int_equal(gw_ledger_depart(&first, NULL, &now, id), 0);
	gw_digests_free(&now);
	version[2] = 2; /* changed */
	version[3] = 0; /* became zero */
	version[5] = 2; /* was zero */
	digests(&now, version);
	make_id(id, 2);
	assert_int_equal(gw_ledger_create(&second, NULL, PAGES), 0);
	assert_int_equal(gw_ledger_depart(&second, &first, &now, id), 0);
	for (size_t page = 0; page < PAGES; page++) {
		uint32_t expected = page == 1 || page == 4		  ? 1
				    : page == 2 || page == 3 || page == 5 ? 2
									  : 0;

		assert_int_equal(first.generations[page], page >= 1 && page <= 4);
		assert_int_equal(second.generations[page], expected);
		assert_true(gw_digest_equal(second.digests[page], digest_of(page, version[page])));
	}
	/* Nothing changed: no generation does, but there was a departure. */
	make_id(id, 3);
	assert_int_equal(gw_ledger_create(&third, NULL, PAGES), 0);
	assert_int_equal(gw_ledger_depart(&third, &second, &now, id), 0);
	assert_true(equal(&second, &third));
	assert_int_equal(gw_ledger_departures(&third), 3);
	for (uint32_t n = 1; n <= 3; n++) {
		make_id(id, n);
		assert_int_equal(gw_ledger_find(&third, id), n);
	}
	gw_digests_free(&now);
	gw_ledger_close(&first);
	gw_ledger_close(&second);
	gw_ledger_close(&third);
}

static void other_sizes_are_refused(void **state)
{
	struct gw_ledger l, before;
	struct gw_digests now;
	const uint8_t id[GW_ID_LEN] = { 1 };

	(void)state;
	assert_int_equal(gw_digests_init(&now, 10), 0);
	assert_int_equal(gw_ledger_create(&l, NULL, 10), 0);
	assert_int_equal(gw_ledger_create(&before, NULL, 11), 0);
	assert_int_equal(gw_ledger_depart(&l, &before, &now, id), -EINVAL);
	assert_int_equal(gw_ledger_depart(&before, NULL, &now, id), -EINVAL);
	assert_int_equal(gw_ledger_departures(&l), 0);
	gw_ledger_close(&l);
	gw_ledger_close(&before);
	gw_digests_free(&now);
}

static void old_ids_are_forgotten(void **state)
{
	const uint32_t nr = 3 * GW_DEPARTURES_KEPT / 2;
	struct gw_ledger l;
	uint8_t id[GW_ID_LEN];

	(void)state;
	assert_int_equal(gw_ledger_create(&l, NULL, 1), 0);
	make_id(id, 1);
	assert_int_equal(gw_ledger_find(&l, id), 0);
	assert_null(gw_ledger_id(&l, 0));
	memset(id, 0, sizeof(id)); /* what the empty places have */
	assert_int_equal(gw_ledger_find(&l, id), 0);
	for (uint32_t n = 1; n <= nr; n++) {
		make_id(id, n);
		gw_ledger_add(&l, id);
		assert_int_equal(gw_ledger_departures(&l), n);
		assert_int_equal(gw_ledger_find(&l, id), n);
		memset(id, 0, sizeof(id));
		assert_int_equal(gw_ledger_find(&l, id), 0);
	}
	for (uint32_t n = 1; n <= nr; n++) {
		bool kept = n + GW_DEPARTURES_KEPT > nr;

		make_id(id, n);
		assert_int_equal(gw_ledger_find(&l, id), kept ? n : 0);
		assert_int_equal(gw_ledger_id(&l, n) != NULL, kept);
	}
	assert_null(gw_ledger_id(&l, nr + 1));
	gw_ledger_close(&l);
}

static void copy_head(struct gw_ledger *to, const struct gw_ledger *from)
{
	uint8_t id[GW_ID_LEN];

	for (uint32_t n = 1; n <= gw_ledger_departures(from); n++) {
		memcpy(id, gw_ledger_id(from, n), sizeof(id));
		gw_ledger_add(to, id);
	}
}

/* With every base that the reader may have, and with none. */
static void over_the_wire(void **state)
{
	enum {
		DEPARTURES = 4
	};
	static uint8_t part[GW_LEDGER_PART_MAX];
	struct gw_ledger l, base[DEPARTURES + 1] = { { 0 } }, back;
	size_t bytes[DEPARTURES + 1] = { 0 };

	(void)state;
	history(&l, DEPARTURES);
	for (uint32_t n = 1; n <= DEPARTURES; n++)
		history(&base[n], n);
	for (uint32_t n = 0; n <= DEPARTURES; n++) {
		assert_int_equal(gw_ledger_create(&back, NULL, PAGES), 0);
		copy_head(&back, &l);
		for (size_t first = 0; first < PAGES; first += GW_LEDGER_PART) {
			long len = gw_ledger_pack(&l, first, n, part);

			assert_true(len > 0 && len <= (long)sizeof(part));
			bytes[n] += (size_t)len;
			assert_int_equal(gw_ledger_unpack(&back, first, n ? &base[n] : NULL, n,
							  part, (size_t)len),
					 0);
		}
		assert_true(equal(&l, &back));
		gw_ledger_close(&back);
		gw_ledger_close(&base[n]);
	}
	/* The newer what the reader has, the less it needs. */
	for (uint32_t n = 1; n <= DEPARTURES; n++)
		assert_true(bytes[n] < bytes[n - 1]);
	gw_ledger_close(&l);
}

static void cut_and_changed_parts(void **state)
{
	static uint8_t part[GW_LEDGER_PART_MAX], bad[GW_LEDGER_PART_MAX + 1];
	const size_t first = GW_LEDGER_PART;
	struct gw_ledger l, back;
	struct rng rng = { 9 };
	size_t frame, digests_at;
	long len;

	(void)state;
	history(&l, 3);
	len = gw_ledger_pack(&l, first, 0, part);
	assert_true(len > 4);
	frame = gw_get32(part);
	digests_at = 4 + frame;
	assert_int_equal(gw_ledger_create(&back, NULL, PAGES), 0);
	copy_head(&back, &l);
	/* Where it belongs, and nowhere else. */
	assert_int_equal(gw_ledger_unpack(&back, first, NULL, 0, part, (size_t)len), 0);
	assert_int_equal(gw_ledger_unpack(&back, 0, NULL, 0, part, (size_t)len), -EPROTO);
	assert_int_equal(gw_ledger_unpack(&back, 1, NULL, 0, part, (size_t)len), -EPROTO);
	assert_int_equal(gw_ledger_unpack(&back, 2 * first, NULL, 0, part, (size_t)len), -EPROTO);
	assert_int_equal(gw_ledger_unpack(&back, SIZE_MAX, NULL, 0, part, (size_t)len), -EPROTO);
	for (size_t cut = 0; cut < (size_t)len; cut++)
		assert_int_equal(gw_ledger_unpack(&back, first, NULL, 0, part, cut), -EPROTO);
	memcpy(bad, part, (size_t)len);
	bad[len] = 0;
	assert_int_equal(gw_ledger_unpack(&back, first, NULL, 0, bad, (size_t)len + 1), -EPROTO);
	/*
	 * A changed one is refused, or makes a ledger of other content and says so by its
	 * digests: frame.c has the checksum. What it never does is to touch other pages, or
	 * to name departures that were not.
	 */
	for (int i = 0; i < 20000; i++) {
		size_t at = rng_below(&rng, i % 2 ? digests_at : (uint64_t)len);

		memcpy(bad, part, (size_t)len);
		bad[at] ^= (uint8_t)(1U << rng_below(&rng, 8));
		memset(back.generations, 0, PAGES * 4);
		memset(back.digests, 0, PAGES * sizeof(*back.digests));
		if (gw_ledger_unpack(&back, first, NULL, 0, bad, (size_t)len))
			continue;
		if (at >= digests_at)
			assert_memory_equal(back.generations + first, l.generations + first,
					    (PAGES - first) * 4);
		for (size_t page = 0; page < PAGES; page++) {
			assert_true(back.generations[page] <= 3);
			assert_true(page >= first || (!back.generations[page] &&
						      gw_digest_is_zero(back.digests[page])));
		}
	}
	gw_ledger_close(&back);
	gw_ledger_close(&l);
}

/* Departures that the reader's ledger does not have, and a base of another size. */
static void contradictions_are_refused(void **state)
{
	static uint8_t part[GW_LEDGER_PART_MAX];
	struct gw_ledger l, back, small;
	uint8_t id[GW_ID_LEN];
	long len;

	(void)state;
	history(&l, 3);
	len = gw_ledger_pack(&l, 0, 0, part);
	assert_int_equal(gw_ledger_create(&back, NULL, PAGES), 0);
	assert_int_equal(gw_ledger_unpack(&back, 0, NULL, 0, part, (size_t)len), -EPROTO);
	for (uint32_t n = 1; n <= 3; n++) {
		assert_int_equal(gw_ledger_unpack(&back, 0, NULL, 0, part, (size_t)len), -EPROTO);
		make_id(id, n);
		gw_ledger_add(&back, id);
	}
	assert_int_equal(gw_ledger_unpack(&back, 0, NULL, 0, part, (size_t)len), 0);
	assert_int_equal(gw_ledger_create(&small, NULL, PAGES - 1), 0);
	assert_int_equal(gw_ledger_unpack(&back, 0, &small, 1, part, (size_t)len), -EPROTO);
	/* Packed for a reader that has more than this one. */
	len = gw_ledger_pack(&l, 0, 2, part);
	assert_int_equal(gw_ledger_unpack(&back, 0, NULL, 0, part, (size_t)len), -EPROTO);
	gw_ledger_close(&small);
	gw_ledger_close(&back);
	gw_ledger_close(&l);
}

/* Formats of before zstd 1.0, a frame to be skipped, and one with something behind it. */
static void other_frames_are_refused(void **state)
{
	static const uint32_t magics[] = { 0xfd2fb51e, 0xfd2fb522, 0xfd2fb523, 0xfd2fb524,
					   0xfd2fb525, 0xfd2fb526, 0xfd2fb527, 0x184d2a50 };
	gw_autofree uint8_t *part = calloc(1, GW_LEDGER_PART_MAX);
	struct gw_ledger l, back;
	long len;

	(void)state;
	history(&l, 2);
	assert_int_equal(gw_ledger_create(&back, NULL, PAGES), 0);
	gw_ledger_begin(&back, 2);
	len = gw_ledger_pack(&l, 0, 0, part);
	assert_true(len > 0);
	assert_int_equal(gw_ledger_unpack(&back, 0, NULL, 0, part, (size_t)len), 0);
	for (size_t i = 0; i < GW_ARRAY_SIZE(magics); i++) {
		uint8_t frame[64] = { 60 };

		gw_put32(frame + 4, magics[i]);
		gw_put32(frame + 8, 52);
		assert_int_equal(gw_ledger_unpack(&back, 0, NULL, 0, frame, sizeof(frame)),
				 -EPROTO);
	}
	/* An empty frame behind the good one: libzstd itself takes both for one. */
	{
		const uint32_t frame = gw_get32(part);
		uint8_t empty[32];
		const size_t more = ZSTD_compress(empty, sizeof(empty), "", 0, 1);

		memmove(part + 4 + frame + more, part + 4 + frame, (size_t)len - 4 - frame);
		memcpy(part + 4 + frame, empty, more);
		gw_put32(part, frame + (uint32_t)more);
		assert_int_equal(gw_ledger_unpack(&back, 0, NULL, 0, part, (size_t)len + more),
				 -EPROTO);
	}
	gw_ledger_close(&l);
	gw_ledger_close(&back);
}

/* In a child with mounts of its own: a tmpfs of 256 KiB at @dir. Return: 0 is well. */
static int on_a_full_file_system(const char *dir)
{
	const size_t many = 1UL << 20;
	gw_autofree char *path = gw_path("%s/ledger", dir), *fill = gw_path("%s/fill", dir);
	const uint8_t id[GW_ID_LEN] = { 1 };
	uint8_t bytes[4096] = { 1 };
	struct gw_digests now;
	struct gw_ledger l;
	struct stat st;
	int fd;

	if (unshare(CLONE_NEWNS) || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
	    mount("unit", dir, "tmpfs", 0, "size=256k"))
		return 77;
	/* Little of it is not zero: it fits, and is read back when nothing else does. */
	if (gw_digests_init(&now, many))
		return 1;
	gw_digests_set(&now, 5, digest_of(5, 1));
	gw_digests_set(&now, many - 1, digest_of(9, 1));
	if (gw_ledger_create(&l, path, many) || gw_ledger_depart(&l, NULL, &now, id) ||
	    gw_ledger_seal(&l))
		return 2;
	gw_ledger_close(&l);
	fd = open(fill, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	while (write(fd, bytes, sizeof(bytes)) > 0)
		;
	if (gw_ledger_open(&l, path) || !gw_digest_equal(l.digests[5], digest_of(5, 1)) ||
	    !gw_digest_equal(l.digests[many - 1], digest_of(9, 1)) || l.generations[7])
		return 3;
	gw_ledger_close(&l);
	unlink(path);
	/* All of it is content: there is no room, which is said, and nothing stays. */
	for (size_t page = 0; page < many; page++)
		gw_digests_set(&now, page, digest_of(page, 1));
	if (gw_ledger_create(&l, path, many) || gw_ledger_depart(&l, NULL, &now, id))
		return 4;
	if (gw_ledger_seal(&l) != -ENOSPC || !strstr(gw_error(), "No space left"))
		return 5;
	gw_ledger_close(&l);
	return stat(path, &st) ? 0 : 6;
}

static void full_file_systems(void **state)
{
	pid_t child = fork();
	int status;

	if (child == 0)
		_exit(on_a_full_file_system(*state));
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFEXITED(status)); /* by SIGBUS, while it was a mapping */
	if (WEXITSTATUS(status) == 77)
		skip(); /* may not mount */
	assert_int_equal(WEXITSTATUS(status), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		unit_folder_test(sealed_and_opened),
		unit_folder_test(damaged_at_any_byte),
		unit_folder_test(absurd_sizes),
		unit_folder_test(full_file_systems),
		cmocka_unit_test(generations_rise_with_content),
		cmocka_unit_test(other_sizes_are_refused),
		cmocka_unit_test(old_ids_are_forgotten),
		cmocka_unit_test(over_the_wire),
		cmocka_unit_test(cut_and_changed_parts),
		cmocka_unit_test(contradictions_are_refused),
		cmocka_unit_test(other_frames_are_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
