// SPDX-License-Identifier: GPL-2.0-or-later
/* test_index.c - blocks of a disk image found by their bytes, and the file that says where. */
#include "indexed.h"

#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/* In the file: see index.h. */
#define HEAD	      64
#define ENTRY	      24
#define DIGESTS	      (SEGMENT * 8)
#define ENTRY_AT(s)   (HEAD + (s) * (off_t)ENTRY)
#define DIGESTS_AT(s) (4096 + (s) * (off_t)DIGESTS)

static void change_byte(const char *folder, off_t at)
{
	gw_autofree char *path = gw_path("%s/index", folder);
	gw_autofd int fd = open(path, O_RDWR | O_CLOEXEC);
	uint8_t byte;

	assert_int_equal(pread(fd, &byte, 1, at), 1);
	byte ^= (uint8_t)(1U << at % 8);
	assert_int_equal(pwrite(fd, &byte, 1, at), 1);
}

static void all_blocks_are_found(void **state)
{
	uint8_t page[GW_PAGE_SIZE];

	for (uint64_t seed = 1; seed <= 20; seed++) {
		struct gw_index *x = opened(*state);
		struct gw_index_refreshed done;
		struct rng rng = { ~seed };

		fill_as_images_are(seed);
		assert_int_equal(found(x, block(0)), GW_INDEX_NONE);
		done = refreshed(x, seed, FOREVER);
		assert_int_equal(done.read, segments_stored());
		assert_int_equal(done.holes, SEGMENTS - segments_stored());
		assert_int_equal(done.failed + done.left, 0);
		assert_found(x, 0, BLOCKS);
		for (int i = 0; i < 1000; i++) {
			rng_fill(&rng, page, sizeof(page));
			assert_int_equal(found(x, page), GW_INDEX_NONE);
		}
		/* It is kept, and nothing is read again. */
		gw_index_close(x);
		x = opened(*state);
		assert_int_equal(gw_index_prepare(x), 0);
		assert_found(x, 0, BLOCKS);
		done = refreshed(x, seed, FOREVER);
		assert_int_equal(done.read + done.holes + done.left, 0);
		gw_index_close(x);
	}
}

/* The file takes no more than what is stored in the image. */
static void sparse_as_the_image(void **state)
{
	gw_autofree char *path = gw_path("%s/index", (char *)*state);
	struct rng rng = { 3 };
	struct gw_index *x;
	struct stat st;

	fill(1);
	memset(disk.stored, 0, sizeof(disk.stored));
	store(&rng, 3 * SEGMENT);
	x = opened(*state);
	assert_int_equal(refreshed(x, 1, FOREVER).read, 1);
	gw_index_close(x);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_size, DIGESTS_AT(SEGMENTS));
	assert_true(st.st_blocks * 512 <= 2L * 4096);
}

static void changed_content(void **state)
{
	static const size_t changed[] = { 700, 3 * SEGMENT, 4 * SEGMENT };
	uint8_t before[GW_ARRAY_SIZE(changed)][GW_PAGE_SIZE];
	struct gw_index *x = opened(*state), *other;
	struct rng rng = { 5 };

	fill(1);
	refreshed(x, 1, FOREVER);
	other = opened(*state);
	for (size_t i = 0; i < GW_ARRAY_SIZE(changed); i++)
		memcpy(before[i], block(changed[i]), GW_PAGE_SIZE);
	/* A block, a segment of zeros, and one that becomes a hole. */
	store(&rng, 700);
	memset(block(3 * SEGMENT), 0, SEGMENT * GW_PAGE_SIZE);
	memset(block(4 * SEGMENT), 0, SEGMENT * GW_PAGE_SIZE);
	memset(&disk.stored[4 * SEGMENT], 0, SEGMENT);
	/* A hint is of what was. */
	for (size_t i = 0; i < GW_ARRAY_SIZE(changed); i++)
		assert_int_equal(found(x, before[i]), changed[i]);
	assert_not_found(x, 700, 1);
	refreshed(x, 2, FOREVER);
	/* Here, for who knew what was, and for who opens it now. */
	for (int i = 0; i < 3; i++) {
		for (size_t k = 0; k < GW_ARRAY_SIZE(changed); k++)
			assert_int_equal(gw_index_find(x, gw_index_digest(x, before[k]),
						       (uint32_t)changed[k]),
					 GW_INDEX_NONE);
		assert_found(x, 0, BLOCKS);
		gw_index_close(x);
		x = i ? opened(*state) : other;
		assert_int_equal(refreshed(x, 2, FOREVER).read, 0);
	}
	gw_index_close(x);
}

static void runs_over_copies(void **state)
{
	struct gw_index *x = opened(*state);
	uint32_t hint = GW_INDEX_NONE;

	/* Three copies, of which the second lacks a block in the middle; all else is one block. */
	fill(1);
	for (size_t b = 200; b < BLOCKS; b++)
		memcpy(block(b), block(199), GW_PAGE_SIZE);
	memcpy(block(1000), block(100), 100 * GW_PAGE_SIZE);
	memcpy(block(2000), block(100), 100 * GW_PAGE_SIZE);
	memset(block(1050), 1, GW_PAGE_SIZE);
	refreshed(x, 1, FOREVER);
	for (size_t b = 100; b < 199; b++) {
		hint = gw_index_find(x, gw_index_digest(x, block(b)), hint) + 1;
		assert_int_equal(hint, b + 1);
	}
	hint = 2000;
	for (size_t b = 100; b < 200; b++)
		hint = gw_index_find(x, gw_index_digest(x, block(b)), hint) + 1;
	assert_int_equal(hint, 2100);
	/* A run that ends goes on where the first copy is. */
	hint = 1000;
	for (size_t b = 100; b < 199; b++)
		hint = gw_index_find(x, gw_index_digest(x, block(b)), hint) + 1;
	assert_int_equal(hint, 199);
	gw_index_close(x);
}

static void other_images_begin_anew(void **state)
{
	gw_autofree char *path = gw_path("%s/index", (char *)*state);
	struct gw_index *x = opened(*state), *old = opened(*state);
	struct gw_index_refreshed done;

	fill(1);
	refreshed(x, 1, FOREVER);
	gw_index_close(x);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(gw_index_open(path, SIZE - (uint64_t)i * 5000, &x), 0);
		assert_int_equal(gw_index_prepare(x), 0);
		if (!i)
			assert_found(x, 0, BLOCKS);
		else
			assert_not_found(x, 0, BLOCKS);
		gw_index_close(x);
	}
	/* Who had it open notices, and writes nothing. */
	x = opened(*state);
	refreshed(x, 1, FOREVER);
	assert_int_equal(gw_index_refresh(old, &source, 1, GW_FOREVER, &done), -ESTALE);
	assert_message("anew");
	gw_index_stale(old, 5);
	gw_index_close(old);
	assert_int_equal(refreshed(x, 1, FOREVER).read, 0);
	gw_index_close(x);
}

static void images_without_index(void **state)
{
	static const uint64_t sizes[] = { 0,	      4095,	 1ULL << 44, (1ULL << 44) + 1,
					  1ULL << 60, UINT64_MAX };
	gw_autofree char *path = gw_path("%s/index", (char *)*state);
	struct gw_index *x;

	for (size_t i = 0; i < GW_ARRAY_SIZE(sizes); i++) {
		assert_int_equal(gw_index_open(path, sizes[i], &x), -ENOTSUP);
		assert_null(x);
		assert_message("16 TiB");
		assert_int_equal(access(path, F_OK), -1);
	}
	assert_int_equal(gw_index_open(path, (1ULL << 44) - 1, &x), 0);
	assert_int_equal(gw_index_prepare(x), 0);
	gw_index_stale(x, GW_INDEX_NONE);
	gw_index_stale(x, GW_INDEX_NONE - 1);
	assert_int_equal(gw_index_find(x, 1, GW_INDEX_NONE - 1), GW_INDEX_NONE);
	gw_index_close(x);
	assert_int_equal(gw_index_open(path, 4096, &x), 0);
	gw_index_close(x);
}

static void damaged_heads(void **state)
{
	gw_autofree char *path = gw_path("%s/index", (char *)*state);
	static const off_t sizes[] = {
		0, 10, HEAD, 4096, DIGESTS_AT(SEGMENTS) - 1, DIGESTS_AT(SEGMENTS) + 1
	};
	struct gw_index *x = opened(*state);

	fill(1);
	refreshed(x, 1, 1);
	gw_index_close(x);
	for (size_t i = 0; i < HEAD + GW_ARRAY_SIZE(sizes); i++) {
		if (i < HEAD)
			change_byte(*state, (off_t)i);
		else
			assert_int_equal(truncate(path, sizes[i - HEAD]), 0);
		x = opened(*state);
		assert_int_equal(gw_index_prepare(x), 0);
		assert_not_found(x, 0, SEGMENT);
		refreshed(x, 1, 1);
		assert_found(x, 0, SEGMENT);
		gw_index_close(x);
		/* And it is sound again. */
		x = opened(*state);
		assert_int_equal(gw_index_prepare(x), 0);
		assert_found(x, 0, SEGMENT);
		gw_index_close(x);
	}
}

/* A byte of segment 7's entry, or of its digests. */
static void damaged_segments(void **state)
{
	static const size_t seven[] = { 7 };
	struct gw_index *x = opened(*state);

	fill(1);
	refreshed(x, 1, FOREVER);
	gw_index_close(x);
	for (off_t i = 0; i < ENTRY + 50; i++) {
		change_byte(*state, i < ENTRY ? ENTRY_AT(7) + i : DIGESTS_AT(7) + (i - ENTRY) * 41);
		x = opened(*state);
		assert_int_equal(gw_index_prepare(x), 0);
		assert_not_found(x, 7 * SEGMENT, SEGMENT);
		assert_found(x, 0, 7 * SEGMENT);
		assert_found(x, 8 * SEGMENT, BLOCKS);
		refreshed(x, 1, FOREVER);
		assert_order(seven, 1);
		assert_found(x, 0, BLOCKS);
		gw_index_close(x);
	}
	x = opened(*state);
	assert_int_equal(refreshed(x, 1, FOREVER).read, 0);
	gw_index_close(x);
}

/* Digests of which the entry was never written, at what is a hole by now. */
static void torn_segments(void **state)
{
	static const uint8_t none[ENTRY];
	gw_autofree char *path = gw_path("%s/index", (char *)*state);
	gw_autofd int fd = -1;
	struct gw_index *x = opened(*state);

	fill(1);
	refreshed(x, 1, FOREVER);
	fd = open(path, O_RDWR | O_CLOEXEC);
	assert_int_equal(pwrite(fd, none, ENTRY, ENTRY_AT(2)), ENTRY);
	assert_int_equal(pwrite(fd, none, ENTRY, ENTRY_AT(3)), ENTRY);
	memset(&disk.stored[3 * SEGMENT], 0, SEGMENT);
	memset(block(3 * SEGMENT), 0, SEGMENT * GW_PAGE_SIZE);
	for (int again = 0; again < 3; again++) {
		const struct gw_index_refreshed done = refreshed(x, 1, FOREVER);

		assert_int_equal(done.read, !again);
		assert_int_equal(done.holes, !again);
		assert_found(x, 0, BLOCKS);
		gw_index_close(x);
		x = opened(*state);
	}
	gw_index_close(x);
}

/* In a child with mounts of its own: a tmpfs of four pages at @dir. Return: 0 is well. */
static int on_a_full_file_system(const char *dir)
{
	gw_autofree char *path = gw_path("%s/index", dir), *second = gw_path("%s/second", dir);
	struct gw_index_refreshed done;
	struct gw_index *x, *other;
	size_t read;

	if (unshare(CLONE_NEWNS) || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
	    mount("unit", dir, "tmpfs", 0, "size=16k"))
		return 77;
	if (gw_index_open(path, SIZE, &x))
		return 1;
	/* The head and the entries are a page, two segments' digests another. */
	if (gw_index_refresh(x, &source, 1, GW_FOREVER, &done) != -ENOSPC ||
	    !strstr(gw_error(), "No space left"))
		return 2;
	if (done.left != SEGMENTS - 6)
		return 3;
	/* What was read is found, now and later; there is no room for another. */
	read = SEGMENTS - done.left;
	if (gw_index_prepare(x))
		return 4;
	assert_found(x, 0, read * SEGMENT);
	if (gw_index_open(second, SIZE, &other) != -ENOSPC || other)
		return 5;
	gw_index_close(x);
	if (gw_index_open(path, SIZE, &x) || gw_index_prepare(x))
		return 6;
	assert_found(x, 0, read * SEGMENT);
	assert_not_found(x, read * SEGMENT, BLOCKS);
	/* With room it goes on. */
	if (mount("unit", dir, "tmpfs", MS_REMOUNT, "size=1m") ||
	    gw_index_refresh(x, &source, 1, GW_FOREVER, &done) || done.read != SEGMENTS - read)
		return 7;
	gw_index_close(x);
	return 0;
}

static void full_file_systems(void **state)
{
	pid_t child;
	int status;

	fill(1);
	child = fork();
	if (child == 0)
		_exit(on_a_full_file_system(*state));
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFEXITED(status)); /* a mapping would end it by SIGBUS */
	if (WEXITSTATUS(status) == 77)
		skip(); /* may not mount */
	assert_int_equal(WEXITSTATUS(status), 0);
}

/* Whatever is found has the bytes, while another thread hears of refused blocks. */
static void *find_all(void *arg)
{
	const struct gw_index *x = arg;
	uint32_t hint = GW_INDEX_NONE;
	size_t wrong = 0;

	for (size_t b = 0; b < BLOCKS; b++) {
		const uint32_t at = gw_index_find(x, gw_index_digest(x, block(b)), hint);

		hint = at == GW_INDEX_NONE ? at : at + 1;
		wrong += at != GW_INDEX_NONE && memcmp(block(at), block(b), GW_PAGE_SIZE) != 0;
	}
	return wrong ? arg : NULL;
}

static void *refuse_some(void *arg)
{
	for (uint32_t b = 0; b < BLOCKS; b += 7)
		gw_index_stale(arg, b);
	return NULL;
}

static void many_threads(void **state)
{
	pthread_t threads[5];
	struct gw_index *x = opened(*state);
	size_t failed = 0;

	fill_as_images_are(6);
	refreshed(x, 1, FOREVER);
	for (size_t i = 0; i < GW_ARRAY_SIZE(threads); i++)
		assert_int_equal(
			pthread_create(&threads[i], NULL, i < 3 ? find_all : refuse_some, x), 0);
	for (size_t i = 0; i < GW_ARRAY_SIZE(threads); i++) {
		void *wrong;

		assert_int_equal(pthread_join(threads[i], &wrong), 0);
		failed += wrong != NULL;
	}
	assert_int_equal(failed, 0);
	for (uint32_t b = 0; b < BLOCKS; b += 7)
		assert_int_not_equal(gw_index_find(x, gw_index_digest(x, block(b)), b), b);
	/* All segments had one. */
	assert_int_equal(refreshed(x, 1, FOREVER).read, segments_stored());
	assert_found(x, 0, BLOCKS);
	gw_index_close(x);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		unit_folder_test(all_blocks_are_found),
		unit_folder_test(sparse_as_the_image),
		unit_folder_test(changed_content),
		unit_folder_test(runs_over_copies),
		unit_folder_test(other_images_begin_anew),
		unit_folder_test(images_without_index),
		unit_folder_test(damaged_heads),
		unit_folder_test(damaged_segments),
		unit_folder_test(torn_segments),
		unit_folder_test(full_file_systems),
		unit_folder_test(many_threads),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
