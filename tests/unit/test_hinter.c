// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * test_hinter.c - what a guest tells, and when it is asked again: a real socket on which an agent
 * answers, in time, late, or not; and who is heard while it is waited for.
 */
#include "unit.h"

#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "cleanup.h"
#include "clock.h"
#include "codec.h"
#include "hinter.h"

#define LOW   ((1ULL << 48) - 1)
#define PAGES 4096UL
#define HOUR  (3600 * GW_S)

/* An agent that answers one call after the other, each with one page more. */
static struct {
	int listener;
	pthread_t thread;
	sem_t may; /* an answer */
	_Atomic unsigned int asked;
	_Atomic bool refuses;
} agent;

/* While nobody asks. */
static unsigned int idle_threads;

static struct gw_hints hints;
static json_t *disks;

static size_t frame(uint8_t *at, uint64_t id, unsigned int kind, size_t len)
{
	memcpy(at, "GWAGENT!", 8);
	gw_put64(at + 8, id);
	gw_put32(at + 16, 1);
	gw_put32(at + 20, kind);
	gw_put32(at + 24, (uint32_t)len);
	gw_put32(at + 28, 0);
	return 32 + len;
}

/* A header, a disk, and so many pages of it from frame 16 and sector 80 on. */
static size_t answer(uint8_t *at, uint64_t id, unsigned int pages)
{
	const size_t piece = frame(at, id, 1, 64);
	uint8_t *body = at + 32;

	memcpy(body, "GWCACHE\1\0\20\0\0\0\0\0\0", 16);
	gw_put64(body + 16, LOW | 1ULL << 48);
	gw_put64(body + 24, 2048);
	memcpy(body + 32, "pci:0000:00:03.0", 16);
	gw_put64(body + 48, 16 | (pages - 1ULL) << 48);
	gw_put64(body + 56, 80);
	body = at + piece + 32;
	gw_put64(body, 1);
	gw_put64(body + 8, pages);
	gw_put32(body + 16, 1);
	gw_put32(body + 20, 0);
	return piece + frame(at + piece, id, 2, 24);
}

static void *serve(void *arg)
{
	int fd;

	(void)arg;
	while ((fd = accept(agent.listener, NULL, NULL)) >= 0) {
		uint8_t request[32], bytes[256];

		if (recv(fd, request, sizeof(request), MSG_WAITALL) == sizeof(request)) {
			const unsigned int n = ++agent.asked;
			const size_t len = answer(bytes, gw_get64(request + 8), n);

			while (sem_wait(&agent.may))
				;
			if (!agent.refuses)
				send(fd, bytes, len, MSG_NOSIGNAL);
		}
		close(fd);
	}
	return NULL;
}

static unsigned int threads(void)
{
	DIR *dir = opendir("/proc/self/task");
	unsigned int n = 0;

	while (readdir(dir))
		n++;
	closedir(dir);
	return n;
}

static int begin(void **state)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };

	if (unit_folder(state))
		return -1;
	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s/agent", (const char *)*state);
	agent.asked = 0;
	agent.refuses = false;
	sem_init(&agent.may, 0, 0);
	agent.listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	disks = json_pack("[s]", "vda");
	if (bind(agent.listener, (const struct sockaddr *)&addr, sizeof(addr)) ||
	    listen(agent.listener, 4) || gw_hints_init(&hints, PAGES) ||
	    pthread_create(&agent.thread, NULL, serve, NULL))
		return -1;
	idle_threads = threads();
	return 0;
}

static int finish(void **state)
{
	shutdown(agent.listener, SHUT_RDWR);
	pthread_join(agent.thread, NULL);
	close(agent.listener);
	sem_destroy(&agent.may);
	gw_hints_free(&hints);
	json_decref(disks);
	return unit_folder_remove(state);
}

static struct gw_hinter *start(const char *folder)
{
	gw_autofree char *path = gw_path("%s/agent", folder);
	json_t *images = json_pack("[{s:s,s:i,s:s}]", "disk", "vda", "depth", 0, "file", "/none");
	json_t *keys = json_pack("[{s:s,s:s,s:i}]", "disk", "vda", "key", "03.0", "sectors", 2048);
	const struct gw_hinter_from from = { .by = GW_HINTER_AGENT,
					     .images = images,
					     .disks = keys,
					     .pid = getpid(),
					     .dir = folder,
					     .lib = folder,
					     .agent = path,
					     .physical = { .ranges = { { 0, PAGES, 0 } }, .nr = 1 },
					     .nr_pages = PAGES };
	struct gw_hinter *h = gw_hinter_start(&from);

	json_decref(images);
	json_decref(keys);
	assert_non_null(h);
	return h;
}

/* Until nobody asks: there is a thread for each question. */
static void await_end(void)
{
	while (threads() > idle_threads)
		usleep(1000);
}

/* So many pages are told of, in place; the others are not. */
static void is_told(struct gw_hinter *h, unsigned int pages)
{
	struct gw_hint hint;

	assert_int_equal(gw_hinter_hints(h, disks, &hints), 0);
	assert_string_equal(hints.by, "module");
	for (size_t page = 0; page < PAGES; page++) {
		assert_int_equal(gw_hints_get(&hints, page, &hint), page - 16 < pages);
		if (page - 16 < pages)
			assert_int_equal(hint.sector, 80 + (page - 16) * 8);
	}
	gw_hints_clear(&hints);
}

static void ask_again(struct gw_hinter *h, unsigned int number)
{
	gw_hinter_again(h, HOUR, 0);
	while (agent.asked < number)
		usleep(1000);
}

static struct gw_hinter *first(const char *folder)
{
	struct pollfd others[GW_HINTER_OTHERS] = { { .fd = -1 }, { .fd = -1 } };
	struct gw_hinter *h = start(folder);

	sem_post(&agent.may);
	assert_int_equal(gw_hinter_wait(h, others), 0);
	is_told(h, 1);
	return h;
}

static void before_the_end(void **state)
{
	struct gw_hinter *h = first(*state);

	assert_int_equal(gw_hinter_hints(h, disks, &hints), -ENODATA);
	gw_hinter_again(h, HOUR, HOUR); /* too early */
	gw_hinter_again(h, 0, 0);	/* too short a round */
	await_end();
	assert_int_equal(agent.asked, 1);
	sem_post(&agent.may);
	ask_again(h, 2);
	await_end();
	gw_hinter_again(h, HOUR, 0); /* it has been, for the next round */
	is_told(h, 2);
	assert_int_equal(gw_hinter_hints(h, disks, &hints), -ENODATA);
	assert_int_equal(agent.asked, 2);
	gw_hinter_stop(h);
}

static void too_late(void **state)
{
	struct gw_hinter *h = first(*state);

	ask_again(h, 2);
	assert_int_equal(gw_hinter_hints(h, disks, &hints), -ETIMEDOUT);
	gw_hinter_again(h, HOUR, 0);
	sem_post(&agent.may);
	await_end();
	/* It is of the round before. */
	assert_int_equal(gw_hinter_hints(h, disks, &hints), -ENODATA);
	sem_post(&agent.may);
	ask_again(h, 3);
	await_end();
	is_told(h, 3);
	gw_hinter_stop(h);
}

static void silent(void **state)
{
	struct gw_hinter *h = first(*state);

	agent.refuses = true;
	sem_post(&agent.may);
	ask_again(h, 2);
	await_end();
	for (int i = 0; i < 3; i++) {
		assert_int_equal(gw_hinter_hints(h, disks, &hints), -ENODATA);
		gw_hinter_again(h, HOUR, 0);
		await_end();
	}
	assert_int_equal(agent.asked, 2);
	gw_hinter_stop(h);
}

static void not_for_ever(void **state)
{
	struct gw_hinter *h = first(*state);

	for (unsigned int i = 0; i < 8; i++) {
		sem_post(&agent.may);
		ask_again(h, 2 + i);
		await_end();
		is_told(h, 2 + i);
	}
	gw_hinter_again(h, HOUR, 0);
	await_end();
	assert_int_equal(agent.asked, 9);
	gw_hinter_stop(h);
}

/* While nothing is told yet. */
static void others_are_heard(void **state)
{
	const int event = eventfd(1, EFD_CLOEXEC);
	struct gw_hinter *h = start(*state);
	struct pollfd others[GW_HINTER_OTHERS] = { { .fd = -1, .events = POLLIN },
						   { .fd = event, .events = POLLIN } };

	assert_int_equal(gw_hinter_wait(h, others), -EINTR);
	assert_false(others[0].revents);
	assert_true(others[1].revents);
	assert_int_equal(gw_hinter_hints(h, disks, &hints), -ETIMEDOUT);
	sem_post(&agent.may);
	gw_hinter_stop(h);
	close(event);
}

/* Nobody else says anything, and the guest's end of the port is closed. */
static void an_end_is_an_answer(void **state)
{
	struct pollfd others[GW_HINTER_OTHERS] = { { .fd = -1 }, { .fd = -1 } };
	struct gw_hinter *h = start(*state);

	agent.refuses = true;
	sem_post(&agent.may);
	assert_int_equal(gw_hinter_wait(h, others), 0);
	assert_int_equal(gw_hinter_hints(h, disks, &hints), -ENOENT);
	gw_hinter_stop(h);
}

/* A later question is not waited for. */
static void only_the_first(void **state)
{
	struct pollfd others[GW_HINTER_OTHERS] = { { .fd = -1 }, { .fd = -1 } };
	struct gw_hinter *h = first(*state);

	ask_again(h, 2);
	assert_int_equal(gw_hinter_wait(h, others), 0);
	assert_int_equal(gw_hinter_hints(h, disks, &hints), -ETIMEDOUT);
	sem_post(&agent.may);
	await_end();
	gw_hinter_stop(h);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(before_the_end, begin, finish),
		cmocka_unit_test_setup_teardown(too_late, begin, finish),
		cmocka_unit_test_setup_teardown(silent, begin, finish),
		cmocka_unit_test_setup_teardown(not_for_ever, begin, finish),
		cmocka_unit_test_setup_teardown(others_are_heard, begin, finish),
		cmocka_unit_test_setup_teardown(an_end_is_an_answer, begin, finish),
		cmocka_unit_test_setup_teardown(only_the_first, begin, finish),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
