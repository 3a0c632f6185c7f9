// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * test_teleport.c - pages of disks at the destination: a real file read by real threads, whose
 * ends come whenever they like; what is right is placed, all else is told, and nothing comes later.
 */
#include "unit.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "cleanup.h"
#include "clock.h"
#include "fetch.h"
#include "place.h"
#include "ram.h"
#include "rng.h"
#include "runs.h"
#include "teleport.h"

#define PAGES  2048UL
#define BLOCKS 3000UL

struct world {
	struct gw_dest d;
	struct gw_ram ram;
	uint8_t *memory; /* as it lies there */
	struct gw_place place;
	struct gw_teleport *t;
	struct gw_fetch *fetch;
	struct gw_transport *source; /* its end of the control connection */
	uint8_t *disk;
	char *path;
	int fd;
	bool never; /* reads do not end */
	bool late;  /* one ends when it has been given up, and before that was told */
	void (*late_done)(void *arg, const uint8_t *bytes);
	void *late_arg;
	unsigned int waits;
	/* Post-copy: what is refused, and that memory has no room. */
	struct gw_bitmap refused;
	_Atomic size_t nr_refused;
	bool full;
	_Atomic unsigned int reads;
	pthread_mutex_t lock;
	pthread_cond_t news;
};

static int64_t op_now(void *env)
{
	(void)env;
	return gw_now();
}

static int op_wait(void *env, bool (*done)(void *arg), void *arg, int64_t deadline)
{
	const struct timespec until = { deadline / GW_S, deadline % GW_S };
	struct world *w = env;
	int rc = 0;

	if (w->late && ++w->waits == 2)
		w->late_done(w->late_arg, w->disk + 8 * GW_SECTOR_SIZE);
	pthread_mutex_lock(&w->lock);
	while (!done(arg) && rc != ETIMEDOUT)
		rc = pthread_cond_timedwait(&w->news, &w->lock, &until);
	pthread_mutex_unlock(&w->lock);
	return rc != ETIMEDOUT || done(arg) ? 0 : gw_fail(-ETIMEDOUT, "time is over");
}

static void op_notify(void *env)
{
	struct world *w = env;

	pthread_mutex_lock(&w->lock);
	pthread_cond_broadcast(&w->news);
	pthread_mutex_unlock(&w->lock);
}

static void op_fetch(void *env, unsigned int disk, uint64_t offset, size_t len,
		     void (*done)(void *arg, const uint8_t *bytes), void *arg)
{
	struct world *w = env;

	w->reads++;
	w->late_done = done;
	w->late_arg = arg;
	if (!w->never)
		gw_fetch_read(w->fetch, disk, offset, len, done, arg);
}

static void op_fetch_end(void *env)
{
	struct world *w = env;

	gw_fetch_close(w->fetch);
	w->fetch = NULL;
}

static const struct gw_dest_ops ops = {
	.now = op_now,
	.wait = op_wait,
	.notify = op_notify,
	.fetch = op_fetch,
	.fetch_end = op_fetch_end,
};

static int make(void **state)
{
	struct world *w = calloc(1, sizeof(*w));
	struct rng rng = { 7 };
	pthread_condattr_t attr;
	gw_autofree void *folder = NULL;
	json_t *images;
	int pair[2], ram = memfd_create("ram", MFD_CLOEXEC);

	*state = w;
	if (!w || unit_folder(&folder))
		return -1;
	w->path = gw_path("%s/disk", (char *)folder);
	w->fd = open(w->path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	w->disk = malloc(BLOCKS * GW_PAGE_SIZE);
	rng_fill(&rng, w->disk, BLOCKS * GW_PAGE_SIZE);
	if (gw_pwrite_all(w->fd, w->disk, BLOCKS * GW_PAGE_SIZE, 0) ||
	    socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) || ram < 0 ||
	    ftruncate(ram, PAGES * GW_PAGE_SIZE) ||
	    gw_ram_add(&w->ram, "main", ram, PAGES * GW_PAGE_SIZE, 0))
		return -1;
	w->memory = mmap(NULL, PAGES * GW_PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, ram, 0);
	if (w->memory == MAP_FAILED)
		return -1;
	pthread_mutex_init(&w->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&w->news, &attr);
	pthread_condattr_destroy(&attr);
	w->source = gw_tcp_adopt(pair[0]);
	w->d = (struct gw_dest){ .ops = &ops,
				 .env = w,
				 .version = GW_VERSION,
				 .control = gw_tcp_adopt(pair[1]),
				 .memory = &w->ram.memory };
	images = json_pack("[{s:s,s:i,s:s}]", "disk", "vda", "depth", 0, "file", w->path);
	if (gw_key_init(&w->d.key, (const uint8_t *)"thirty-two bytes of a secret ...") ||
	    gw_fetch_open(&w->fetch, images, getpid(), folder, 60 * GW_S, &w->d.disks, NULL))
		return -1;
	json_decref(images);
	gw_place_init(&w->place, w->d.memory);
	return gw_teleport_open(&w->d, &w->place.sink, &w->t);
}

static int drop(void **state)
{
	struct world *w = *state;
	char *folder = w->path;

	gw_teleport_close(w->t);
	gw_transport_close(&w->source);
	gw_transport_close(&w->d.control);
	json_decref(w->d.disks);
	munmap(w->memory, PAGES * GW_PAGE_SIZE);
	gw_ram_close(&w->ram);
	close(w->fd);
	unlink(w->path);
	*strrchr(folder, '/') = '\0';
	rmdir(folder);
	free(folder);
	free(w->disk);
	free(w);
	return 0;
}

/* @page is to be what the disk has at @sector, and @count - 1 after it; @lie: it is not. */
static int put(struct world *w, uint64_t page, unsigned int count, uint64_t sector, bool lie)
{
	uint8_t digests[GW_CHUNK_PAGES * GW_DIGEST_LEN];
	const uint64_t at = sector * GW_SECTOR_SIZE;

	for (unsigned int i = 0; i < count; i++) {
		uint8_t bytes[GW_PAGE_SIZE] = { 0 };

		if (at + i * GW_PAGE_SIZE + GW_PAGE_SIZE <= BLOCKS * GW_PAGE_SIZE)
			memcpy(bytes, w->disk + at + i * GW_PAGE_SIZE, GW_PAGE_SIZE);
		bytes[0] ^= lie;
		gw_put_digest(digests + i * GW_DIGEST_LEN, gw_key_page(&w->d.key, bytes));
	}
	return gw_teleport_put(w->t, page, count, (struct gw_hint){ 0, sector }, digests);
}

static void assert_placed(const struct world *w, uint64_t page, unsigned int count, uint64_t sector)
{
	assert_memory_equal(w->memory + page * GW_PAGE_SIZE, w->disk + sector * GW_SECTOR_SIZE,
			    count * GW_PAGE_SIZE);
}

/* What the source is told; the pages that are lacking are set in @lacks, and counted. */
static size_t settle(struct world *w, struct gw_bitmap *lacks)
{
	struct gw_frame f = { 0 };
	size_t n = 0;

	assert_int_equal(gw_bitmap_init(lacks, PAGES), 0);
	assert_int_equal(gw_teleport_settle(w->t, 0), 0);
	assert_int_equal(gw_frame_send(w->d.control, GW_MSG_ROUND_DONE, 1, NULL, 0), 0);
	while (!gw_frame_recv(w->source, &f, gw_now() + 60 * GW_S) && f.type != GW_MSG_ROUND_DONE) {
		struct gw_reader r = { f.payload, f.len };
		size_t first = 0, count = 0;

		if (f.type == GW_MSG_WAIT)
			continue;
		assert_int_equal(f.type, GW_MSG_REFUSED);
		while (gw_runs_take(&r, PAGES, &first, &count) > 0) {
			gw_bitmap_set_range(lacks, first, count);
			n += count;
		}
	}
	assert_int_equal(f.type, GW_MSG_ROUND_DONE);
	gw_frame_free(&f);
	return n;
}

static void in_any_order(void **state)
{
	struct world *w = *state;
	struct gw_bitmap lacks;

	for (uint64_t page = 0; page < PAGES; page++) /* backwards, and in pieces */
		assert_int_equal(put(w, page, 1, (PAGES - page) * GW_PAGE_SECTORS, page % 100 == 7),
				 0);
	assert_int_equal(settle(w, &lacks), PAGES / 100 + 1);
	for (uint64_t page = 0; page < PAGES; page++) {
		assert_int_equal(gw_bitmap_test(&lacks, page), page % 100 == 7);
		if (page % 100 != 7)
			assert_placed(w, page, 1, (PAGES - page) * GW_PAGE_SECTORS);
	}
	/* It was the disk's order, and much at a time. */
	assert_true(w->reads < PAGES / 4);
	gw_bitmap_free(&lacks);
}

/* As file systems of 1 KiB blocks have them, and with what lies between. */
static void at_any_sector(void **state)
{
	struct world *w = *state;
	struct gw_bitmap lacks;

	assert_int_equal(put(w, 0, 3, 2, false), 0);
	assert_int_equal(put(w, 10, 256, 2 * GW_PAGE_SECTORS * 30 + 4, false), 0);
	assert_int_equal(put(w, 300, 1, 6, false), 0);
	assert_int_equal(settle(w, &lacks), 0);
	assert_placed(w, 0, 3, 2);
	assert_placed(w, 10, 256, 2 * GW_PAGE_SECTORS * 30 + 4);
	assert_placed(w, 300, 1, 6);
	gw_bitmap_free(&lacks);
}

/* Its last pages are there, what is behind them is zeros, and far away is nothing. */
static void at_the_end(void **state)
{
	struct world *w = *state;
	struct gw_bitmap lacks;
	static const uint8_t zeros[GW_PAGE_SIZE];

	memset(w->memory, 1, 8 * GW_PAGE_SIZE);
	assert_int_equal(put(w, 0, 2, (BLOCKS - 1) * GW_PAGE_SECTORS, false), 0);
	assert_int_equal(put(w, 4, 2, BLOCKS * 1000 * GW_PAGE_SECTORS, false), 0);
	assert_int_equal(put(w, 6, 2, GW_HINT_SECTORS - 1, false), 0);
	assert_int_equal(settle(w, &lacks), 4);
	assert_placed(w, 0, 1, (BLOCKS - 1) * GW_PAGE_SECTORS);
	assert_memory_equal(w->memory + GW_PAGE_SIZE, zeros, GW_PAGE_SIZE);
	assert_int_equal(gw_bitmap_count(&lacks, 4, 4), 4);
	gw_bitmap_free(&lacks);
}

static void that_cannot_be(void **state)
{
	struct world *w = *state;
	uint8_t digests[GW_CHUNK_PAGES * GW_DIGEST_LEN] = { 0 };
	struct gw_bitmap lacks;

	w->never = true;
	assert_int_equal(gw_teleport_put(w->t, 0, 1, (struct gw_hint){ 1, 0 }, digests), -EPROTO);
	for (uint64_t page = 0; page < PAGES; page += GW_CHUNK_PAGES)
		assert_int_equal(gw_teleport_put(w->t, page, GW_CHUNK_PAGES,
						 (struct gw_hint){ 0, 0 }, digests),
				 0);
	assert_int_equal(gw_teleport_put(w->t, 0, 1, (struct gw_hint){ 0, 0 }, digests), -EPROTO);
	assert_int_equal(settle(w, &lacks), PAGES);
	gw_bitmap_free(&lacks);
}

/* Reads that never end are not waited for; the next round has its own. */
static void that_hang(void **state)
{
	struct world *w = *state;
	struct gw_bitmap lacks;

	w->never = true;
	assert_int_equal(put(w, 5, 3, 8, false), 0);
	assert_int_equal(settle(w, &lacks), 3);
	assert_int_equal(gw_bitmap_count(&lacks, 5, 3), 3);
	gw_bitmap_free(&lacks);
	w->never = false;
	assert_int_equal(put(w, 5, 2, 80, false), 0);
	assert_int_equal(settle(w, &lacks), 0);
	assert_placed(w, 5, 2, 80);
	gw_bitmap_free(&lacks);
}

/* It ends just as it is given up: nobody may forget its pages. */
static void that_end_too_late(void **state)
{
	struct world *w = *state;
	struct gw_bitmap lacks;
	int64_t began;

	w->never = w->late = true;
	assert_int_equal(put(w, 5, 3, 8, false), 0);
	assert_int_equal(settle(w, &lacks), 3);
	assert_int_equal(gw_bitmap_count(&lacks, 5, 3), 3);
	gw_bitmap_free(&lacks);
	/* And nothing is waited for any more. */
	w->late = false;
	began = gw_now();
	assert_int_equal(settle(w, &lacks), 0);
	assert_true(gw_now() - began < 200 * GW_MS);
	gw_bitmap_free(&lacks);
}

static void on_refuse(void *arg, uint64_t page, unsigned int count)
{
	struct world *w = arg;

	pthread_mutex_lock(&w->lock);
	gw_bitmap_set_range(&w->refused, page, count);
	w->nr_refused += count;
	pthread_cond_broadcast(&w->news);
	pthread_mutex_unlock(&w->lock);
}

static int place_or_not(struct gw_sink *sink, uint64_t page, unsigned int count,
			const uint8_t *bytes)
{
	struct gw_place *p = (struct gw_place *)sink;
	struct world *w = (struct world *)((uint8_t *)p - offsetof(struct world, place));

	return w->full ? gw_fail(-ENOSPC, "no room")
		       : gw_memory_write(p->memory, page, count, bytes);
}

static void follow(struct world *w)
{
	assert_int_equal(gw_bitmap_init(&w->refused, PAGES), 0);
	w->place.sink.place = place_or_not;
	gw_teleport_follow(w->t, &w->place.sink, on_refuse, w);
}

struct until {
	struct world *w;
	uint64_t page, sector; /* @count pages are there */
	unsigned int count;
	size_t refused; /* so many are, at least */
};

static bool is_so(void *arg)
{
	const struct until *u = arg;

	return u->w->nr_refused >= u->refused &&
	       (!u->count ||
		!memcmp(u->w->memory + u->page * GW_PAGE_SIZE,
			u->w->disk + u->sector * GW_SECTOR_SIZE, u->count * GW_PAGE_SIZE));
}

static void await_it(struct until u)
{
	assert_int_equal(op_wait(u.w, is_so, &u, gw_now() + 60 * GW_S), 0);
}

/* There is no round whose end tells: each is placed or refused as soon as it is known. */
static void that_follow(void **state)
{
	struct world *w = *state;

	follow(w);
	for (uint64_t page = PAGES; page--;)
		assert_int_equal(put(w, page, 1, page * GW_PAGE_SECTORS, page < 300), 0);
	await_it((struct until){ .w = w,
				 .page = 300,
				 .sector = 300 * GW_PAGE_SECTORS,
				 .count = PAGES - 300,
				 .refused = 300 });
	assert_int_equal(w->nr_refused, 300);
	assert_int_equal(gw_bitmap_count(&w->refused, 0, 300), 300);
	for (size_t i = 0; i < 300 * GW_PAGE_SIZE; i += GW_PAGE_SIZE)
		assert_int_equal(w->memory[i], 0);
	gw_bitmap_free(&w->refused);
}

/* What cannot be placed is refused like what is not there; who sends it finds out why. */
static void without_room(void **state)
{
	struct world *w = *state;

	follow(w);
	w->full = true;
	for (uint64_t page = 0; page < 320; page += 64)
		assert_int_equal(put(w, page, 64, page * GW_PAGE_SECTORS, false), 0);
	await_it((struct until){ .w = w, .refused = 320 });
	assert_int_equal(gw_bitmap_count(&w->refused, 0, 320), 320);
	gw_bitmap_free(&w->refused);
}

/* Disks that hang keep nobody: all is refused, and what comes later at once. */
static void that_hang_behind_it(void **state)
{
	struct world *w = *state;
	const int64_t end = gw_now() + 60 * GW_S;

	follow(w);
	w->never = true;
	for (uint64_t page = 0; page < 1024; page += 256)
		assert_int_equal(put(w, page, 256, page * GW_PAGE_SECTORS, false), 0);
	while (!w->nr_refused && gw_now() < end)
		gw_teleport_look(w->t);
	assert_int_equal(w->nr_refused, 1024);
	assert_int_equal(gw_bitmap_count(&w->refused, 0, 1024), 1024);
	w->never = false;
	assert_int_equal(put(w, 1024, 7, 80, false), 0);
	assert_int_equal(w->nr_refused, 1024 + 7);
	gw_bitmap_free(&w->refused);
}

/* As long as there is nothing to wait for nobody is found to be slow. */
static void that_bring(void **state)
{
	struct world *w = *state;
	int64_t end;

	follow(w);
	for (uint64_t page = 0; page < PAGES; page += 256)
		assert_int_equal(put(w, page, 256, page * GW_PAGE_SECTORS, false), 0);
	await_it((struct until){ .w = w, .count = PAGES });
	end = gw_now() + GW_S;
	while (gw_now() < end)
		gw_teleport_look(w->t);
	assert_int_equal(put(w, 0, 1, 0, true), 0);
	assert_int_equal(put(w, 1, 1, 80, false), 0);
	await_it((struct until){ .w = w, .page = 1, .sector = 80, .count = 1, .refused = 1 });
	assert_int_equal(w->nr_refused, 1);
	gw_bitmap_free(&w->refused);
}

/* The source calls anew, and hears what is missing: of what was put aside before nothing comes. */
static void that_begin_anew(void **state)
{
	static const uint8_t zeros[8 * GW_PAGE_SIZE];
	struct world *w = *state;

	follow(w);
	w->never = true;
	assert_int_equal(put(w, 5, 3, 8, false), 0);
	assert_int_equal(gw_teleport_renew(w->t), 0);
	w->late_done(w->late_arg, w->disk + 8 * GW_SECTOR_SIZE);
	assert_memory_equal(w->memory, zeros, sizeof(zeros));
	assert_int_equal(w->nr_refused, 0);
	w->never = false;
	assert_int_equal(put(w, 5, 2, 80, false), 0);
	await_it((struct until){ .w = w, .page = 5, .sector = 80, .count = 2 });
	gw_bitmap_free(&w->refused);
}

/* It is over before any of it is, and nobody is told anything any more. */
static void left_alone(void **state)
{
	struct world *w = *state;

	for (uint64_t page = 0; page < PAGES; page += 2)
		assert_int_equal(put(w, page, 1, page * GW_PAGE_SECTORS, false), 0);
	gw_teleport_close(w->t);
	w->t = NULL;
	memset(w->memory, 3, PAGES * GW_PAGE_SIZE);
	for (size_t i = 0; i < PAGES * GW_PAGE_SIZE; i += GW_PAGE_SIZE)
		assert_int_equal(w->memory[i], 3);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(in_any_order, make, drop),
		cmocka_unit_test_setup_teardown(at_any_sector, make, drop),
		cmocka_unit_test_setup_teardown(at_the_end, make, drop),
		cmocka_unit_test_setup_teardown(that_cannot_be, make, drop),
		cmocka_unit_test_setup_teardown(that_hang, make, drop),
		cmocka_unit_test_setup_teardown(that_end_too_late, make, drop),
		cmocka_unit_test_setup_teardown(left_alone, make, drop),
		cmocka_unit_test_setup_teardown(that_follow, make, drop),
		cmocka_unit_test_setup_teardown(without_room, make, drop),
		cmocka_unit_test_setup_teardown(that_hang_behind_it, make, drop),
		cmocka_unit_test_setup_teardown(that_bring, make, drop),
		cmocka_unit_test_setup_teardown(that_begin_anew, make, drop),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
