// SPDX-License-Identifier: GPL-2.0-or-later
/* hinter.c - a guest's agent, and the indexes of its disks; see hinter.h. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "agent.h"
#include "cleanup.h"
#include "clock.h"
#include "error.h"
#include "hinter.h"
#include "index.h"
#include "io.h"
#include "log.h"
#include "opened.h"
#include "own.h"
#include "urgency.h"
#include "xxh.h"

/* How long disks are read for their index; beyond that: one read, and what was found put in order.
 */
#define INDEX_NS (2 * GW_S)
#define GRACE_NS (3 * GW_S)

/* After which an index that nobody has used is removed. */
#define KEPT_DAYS 60

/* How long a guest may take to answer, from when the destination is called. */
#define AGENT_NS (3 * GW_S)

/*
 * How often it is asked again, at most. In rounds that last so many times as long as its last
 * answer took, or its vCPUs would have little else to do. And twice that time before the end, and
 * such a part of the round, since its end is not known better than to some chunks.
 */
#define AGAIN_MAX   8U
#define AGAIN_SHARE 4
#define AGAIN_LEAD  2
#define AGAIN_PART  8

/* A disk, by its name, and the index of its image. */
struct indexed {
	char *disk;
	struct gw_index *index;
	unsigned int number; /* in READY's list; GW_HINT_DISKS: it is not in it */
};

/* What the guest has told: pages in a row, of a disk by its place in h->disks. */
struct told {
	size_t page;
	uint64_t sector;
	uint32_t count;
	uint32_t disk;
};

struct gw_hinter {
	enum gw_hinter_by by;
	json_t *images, *keys;
	pid_t pid;
	char *dir, *lib, *agent;
	struct gw_physical physical;
	size_t nr_pages;
	int64_t until; /* nobody waits for longer */
	struct gw_lookup lookup;
	struct indexed *disks;
	unsigned int nr_disks;
	_Atomic bool stopped;
	/* The thread's, until done; then the caller's. */
	struct told *told;
	size_t nr_told, room;
	uint32_t *numbers; /* of the guest's disks: in h->disks; UINT32_MAX: none of them */
	unsigned int nr_numbers;
	const char *answered;
	int64_t took;	   /* the guest, to answer */
	unsigned int asks; /* that are left */
	/* The caller's: its calls for hints, and which of them the last question is for. */
	unsigned int calls, asked_for;
	int news; /* eventfd: readable once it is done */
	/* The rest under the lock. */
	pthread_mutex_t lock;
	unsigned int refs; /* the caller, and the thread */
	bool done;
};

static void unref(struct gw_hinter *h)
{
	bool last;

	pthread_mutex_lock(&h->lock);
	last = !--h->refs;
	pthread_mutex_unlock(&h->lock);
	if (!last)
		return;
	for (unsigned int i = 0; i < h->nr_disks; i++) {
		gw_index_close(h->disks[i].index);
		free(h->disks[i].disk);
	}
	pthread_mutex_destroy(&h->lock);
	if (h->news >= 0)
		close(h->news);
	json_decref(h->images);
	json_decref(h->keys);
	free(h->disks);
	free(h->told);
	free(h->numbers);
	free(h->dir);
	free(h->lib);
	free(h->agent);
	free(h);
}

/* The guest tells of disk @index, which is one of the VM's, or nobody's. */
static int hear_disk(void *arg, unsigned int index, const char *text, uint64_t sectors)
{
	struct gw_hinter *h = arg;
	const char *name = gw_agent_match(h->keys, text, sectors);

	if (index >= h->nr_numbers) {
		uint32_t *more = realloc(h->numbers, (index + 1) * sizeof(*more));

		if (!more)
			return gw_fail(-ENOMEM, "no memory for what the guest tells");
		memset(more + h->nr_numbers, 0xff, (index + 1 - h->nr_numbers) * sizeof(*more));
		h->numbers = more;
		h->nr_numbers = index + 1;
	}
	h->numbers[index] = UINT32_MAX;
	for (unsigned int i = 0; name && i < h->nr_disks; i++)
		if (!strcmp(h->disks[i].disk, name))
			h->numbers[index] = i;
	return 0;
}

static int keep(struct gw_hinter *h, struct told told)
{
	struct told *more;

	if (h->nr_told == h->room) {
		more = realloc(h->told, (2 * h->room + 1024) * sizeof(*more));
		if (!more)
			return gw_fail(-ENOMEM, "no memory for what the guest tells");
		h->told = more;
		h->room = 2 * h->room + 1024;
	}
	h->told[h->nr_told++] = told;
	return 0;
}

static int hear_run(void *arg, uint64_t frame, uint64_t count, unsigned int index, uint64_t sector)
{
	struct gw_hinter *h = arg;
	const uint32_t disk = index < h->nr_numbers ? h->numbers[index] : UINT32_MAX;
	int rc = 0;

	while (!rc && count && disk != UINT32_MAX) {
		size_t page;
		const uint64_t n = gw_physical_pages(&h->physical, frame, count, &page);

		if (!n) /* it is no memory of ours, nor is what is behind it likely to be */
			break;
		rc = keep(h, (struct told){ page, sector, (uint32_t)n, disk });
		frame += n;
		sector += n * GW_PAGE_SECTORS;
		count -= n;
	}
	return rc;
}

static int ask_agent(struct gw_hinter *h)
{
	const struct gw_agent_hears hears = { hear_disk, hear_run, h };
	const int64_t began = gw_now();
	struct gw_agent_told told;
	gw_autofd int fd = -1;
	int rc;

	h->nr_told = 0;
	h->nr_numbers = 0;
	if (!h->agent)
		return gw_fail(-ENOENT, "the VM has no port for a guest's agent");
	fd = gw_agent_connect(h->pid, h->agent);
	if (fd < 0)
		return fd;
	rc = gw_agent_ask(fd, began + AGENT_NS, h->nr_pages, &hears, &told);
	if (!rc && !h->nr_told)
		rc = gw_fail(-ENODATA, "it tells of no page on a disk that is known here");
	if (rc) {
		h->nr_told = 0;
		return rc;
	}
	h->answered = told.module ? "module" : "agent";
	h->took = gw_now() - began;
	return 0;
}

/* An image that is being read. */
struct reading {
	struct gw_opened o;
	const struct gw_hinter *h;
};

static int read_blocks(void *env, void *buf, size_t len, uint64_t offset)
{
	return gw_opened_read(&((struct reading *)env)->o, buf, len, offset);
}

/* A view looks through a part of a disk at a time, and an index takes "nothing" for all of it. */
static int64_t find_data(void *env, uint64_t offset)
{
	const struct gw_opened *o = &((struct reading *)env)->o;
	int64_t at;

	if (!o->view) {
		at = gw_opened_data(o, offset);
		return at >= 0 ? at : errno == ENXIO ? -ENODATA : -errno;
	}
	do {
		at = gw_opened_data(o, offset);
		offset += GW_VIEW_LOOK;
	} while (at == -ENODATA && offset < o->size);
	return at;
}

static bool is_stopped(void *env)
{
	return ((struct reading *)env)->h->stopped;
}

/* What tells images apart, and one state of an image from the next; 0: its times do not tell. */
static void identify(const json_t *image, const struct gw_opened *o, char name[40], uint64_t *stamp)
{
	gw_autofree char *node = json_dumps(json_object_get(image, "node"), JSON_SORT_KEYS);
	struct stat st = { 0 };
	uint64_t who[3] = { 0 }, state[4] = { 0 };

	if (o->fd >= 0 && !fstat(o->fd, &st)) {
		who[0] = st.st_dev;
		who[1] = st.st_ino;
		who[2] = st.st_rdev;
		state[0] = (uint64_t)st.st_mtim.tv_sec;
		state[1] = (uint64_t)st.st_mtim.tv_nsec;
		state[2] = (uint64_t)st.st_size;
	}
	/* Of a device, and of what a view shows, nobody knows when it was written. */
	if (o->view || S_ISBLK(st.st_mode)) {
		state[3] = (uint64_t)gw_now() | 1;
		state[0] = (uint64_t)time(NULL);
	}
	*stamp = XXH3_64bits(state, sizeof(state)) | 1;
	snprintf(name, 40, "%016" PRIx64 ".index",
		 node ? XXH3_64bits(node, strlen(node)) : XXH3_64bits(who, sizeof(who)));
}

/* 0, or why its pages cannot be found. */
static int index_image(struct gw_hinter *h, const json_t *image, struct indexed *d, int64_t by)
{
	struct gw_index_refreshed done = { 0 };
	struct reading r = { .h = h };
	struct gw_index_source from = {
		.read = read_blocks, .data = find_data, .cancelled = is_stopped, .env = &r
	};
	gw_autofree char *path = NULL;
	uint64_t stamp = 0;
	char name[40];
	int rc = gw_opened_open(&r.o, image, h->pid, h->dir);

	if (!rc) {
		identify(image, &r.o, name, &stamp);
		path = gw_path("%s/index/%s", h->lib, name);
		utimensat(AT_FDCWD, path, NULL, AT_SYMLINK_NOFOLLOW); /* it is in use */
		rc = gw_index_open(path, r.o.size, &d->index);
	}
	if (!rc)
		rc = gw_index_refresh(d->index, &from, stamp, by, &done);
	/* What is there is of use, whoever else is at it, and whatever could not be written. */
	if (d->index)
		rc = gw_index_prepare(d->index);
	gw_opened_close(&r.o);
	if (done.left)
		gw_info("disk '%s': %zu MiB of its image are still to be read for its index",
			d->disk, done.left);
	return rc;
}

/* The image of a disk that is worth an index: the last of its chain that is a file, or itself. */
static const json_t *image_of(const json_t *images, const char *disk)
{
	const json_t *image, *best = NULL;
	size_t i;

	json_array_foreach(images, i, image) {
		const bool deeper = json_integer_value(json_object_get(image, "depth")) > 0;

		if (strcmp(json_string_value(json_object_get(image, "disk")) ?: "", disk) != 0)
			continue;
		if (!best || (deeper && !json_object_get(image, "node")))
			best = image;
	}
	return best;
}

static void index_all(struct gw_hinter *h)
{
	const int64_t by = gw_now() + INDEX_NS; /* for all of them */

	for (unsigned int i = 0; i < h->nr_disks && !h->stopped; i++) {
		struct indexed *d = &h->disks[i];

		if (index_image(h, image_of(h->images, d->disk), d, by))
			gw_info("disk '%s' has no index: %s", d->disk, gw_error());
		else
			h->answered = "index";
	}
}

/* Of images that nobody has moved with for long, or that are gone. */
static void drop_old(const struct gw_hinter *h)
{
	gw_autofree char *folder = gw_path("%s/index", h->lib);
	gw_autofd int at = gw_own_folder(folder);
	DIR *dir = at >= 0 ? opendir(folder) : NULL;
	const time_t oldest = time(NULL) - KEPT_DAYS * 86400L;
	const struct dirent *entry;
	struct stat st;

	while (dir && (entry = readdir(dir)))
		if (!fstatat(at, entry->d_name, &st, AT_SYMLINK_NOFOLLOW) && S_ISREG(st.st_mode) &&
		    st.st_mtime < oldest)
			unlinkat(at, entry->d_name, 0);
	if (dir)
		closedir(dir);
}

static void *end(struct gw_hinter *h)
{
	pthread_mutex_lock(&h->lock);
	h->done = true;
	pthread_mutex_unlock(&h->lock);
	eventfd_write(h->news, 1);
	unref(h);
	return NULL;
}

/* Who has not answered once is not asked any more. */
static void *run_again(void *arg)
{
	struct gw_hinter *h = arg;

	gw_thread_urgency(GW_BULK);
	if (ask_agent(h)) {
		gw_info("the guest does not tell of its page cache again: %s", gw_error());
		gw_error_clear();
		h->asks = 0;
	}
	return end(h);
}

static void *run(void *arg)
{
	struct gw_hinter *h = arg;

	gw_thread_urgency(GW_BULK);
	drop_old(h);
	if (h->by != GW_HINTER_INDEX && ask_agent(h)) {
		gw_info("the guest does not tell of its page cache: %s", gw_error());
		gw_error_clear();
	}
	if (h->by != GW_HINTER_AGENT && !h->answered)
		index_all(h);
	return end(h);
}

static bool start(struct gw_hinter *h, void *(*fn)(void *arg))
{
	pthread_t thread;
	bool begun;

	pthread_mutex_lock(&h->lock);
	h->done = pthread_create(&thread, NULL, fn, h) != 0;
	h->refs += !h->done;
	begun = !h->done;
	pthread_mutex_unlock(&h->lock);
	if (begun)
		pthread_detach(thread);
	return begun;
}

/* A chunk's digests in a row, disk by disk: each index has its own key. */
static void find(void *arg, const uint8_t *chunk, const struct gw_pageset *left,
		 struct gw_pageset *found, struct gw_hint at[GW_CHUNK_PAGES])
{
	const struct gw_hinter *h = arg;

	for (unsigned int k = 0; k < h->nr_disks; k++) {
		const struct indexed *d = &h->disks[k];
		uint32_t next = GW_INDEX_NONE;

		if (!d->index || d->number == GW_HINT_DISKS)
			continue;
		for (unsigned int i = 0; i < GW_CHUNK_PAGES; i++) {
			uint32_t block;

			if (!gw_pageset_test(left, i) || gw_pageset_test(found, i))
				continue;
			block = gw_index_find(d->index,
					      gw_index_digest(d->index, chunk + i * GW_PAGE_SIZE),
					      next);
			if (block == GW_INDEX_NONE)
				continue;
			next = block + 1;
			gw_pageset_set(found, i);
			at[i] = (struct gw_hint){ d->number, (uint64_t)block * GW_PAGE_SECTORS };
		}
	}
}

static void wrong(void *arg, struct gw_hint at)
{
	const struct gw_hinter *h = arg;

	for (unsigned int i = 0; i < h->nr_disks; i++)
		if (h->disks[i].index && h->disks[i].number == at.disk)
			gw_index_stale(h->disks[i].index, (uint32_t)(at.sector / GW_PAGE_SECTORS));
}

static char *copy(const char *text)
{
	return text ? strdup(text) : NULL;
}

static struct gw_hinter *make(const struct gw_hinter_from *from)
{
	struct gw_hinter *h = calloc(1, sizeof(*h));
	const json_t *image;
	size_t i;

	if (!h)
		return NULL;
	pthread_mutex_init(&h->lock, NULL);
	h->news = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	h->refs = 1;
	h->by = from->by;
	h->images = json_deep_copy(from->images);
	h->keys = json_deep_copy(from->disks);
	h->pid = from->pid;
	h->dir = copy(from->dir);
	h->lib = copy(from->lib);
	h->agent = copy(from->agent);
	h->physical = from->physical;
	h->nr_pages = from->nr_pages;
	h->asks = AGAIN_MAX;
	h->until = gw_now() + GRACE_NS + (h->by == GW_HINTER_AGENT || !h->agent ? 0 : AGENT_NS) +
		   (h->by == GW_HINTER_AGENT ? AGENT_NS : INDEX_NS);
	h->lookup = (struct gw_lookup){ find, wrong, h };
	h->disks = calloc(json_array_size(from->images) + 1, sizeof(*h->disks));
	json_array_foreach(from->images, i, image) {
		const char *disk = json_string_value(json_object_get(image, "disk"));

		if (h->disks && disk && !json_integer_value(json_object_get(image, "depth")))
			h->disks[h->nr_disks++] = (struct indexed){ .disk = strdup(disk),
								    .number = GW_HINT_DISKS };
	}
	return h;
}

struct gw_hinter *gw_hinter_start(const struct gw_hinter_from *from)
{
	gw_autofree char *folder = gw_path("%s/index", from->lib);
	struct gw_hinter *h = NULL;

	if (gw_own_mkdirs(folder))
		return NULL;
	h = make(from);
	if (h && h->disks && h->dir && h->lib && h->news >= 0 && start(h, run))
		return h;
	if (h)
		unref(h);
	gw_fail(-ENOMEM, "no memory to ask what disks hold");
	return NULL;
}

/* Which of them the destination has, too. */
static void number_disks(struct gw_hinter *h, const json_t *disks)
{
	const json_t *name;
	size_t i;

	json_array_foreach(disks, i, name)
		for (unsigned int k = 0; k < h->nr_disks; k++)
			if (!strcmp(h->disks[k].disk, json_string_value(name)))
				h->disks[k].number = (unsigned int)i;
}

static bool is_index(const struct gw_hinter *h)
{
	return !strcmp(h->answered, "index");
}

/* What the guest has told, once. */
static void give_told(struct gw_hinter *h, struct gw_hints *hints)
{
	for (size_t i = 0; i < h->nr_told; i++) {
		const struct told *t = &h->told[i];
		const unsigned int number = h->disks[t->disk].number;

		for (uint32_t k = 0; number != GW_HINT_DISKS && k < t->count; k++)
			gw_hints_set(hints, t->page + k,
				     (struct gw_hint){ number, t->sector + k * GW_PAGE_SECTORS });
	}
	free(h->told);
	h->told = NULL;
	h->nr_told = h->room = 0;
}

static bool is_done(struct gw_hinter *h)
{
	gw_locked(&h->lock);

	return h->done;
}

int gw_hinter_wait(struct gw_hinter *h, struct pollfd *others)
{
	while (!h->calls && !is_done(h)) {
		struct pollfd fds[1 + GW_HINTER_OTHERS] = { { .fd = h->news, .events = POLLIN } };
		int n;

		memcpy(fds + 1, others, GW_HINTER_OTHERS * sizeof(*others));
		n = poll(fds, GW_ARRAY_SIZE(fds), gw_poll_ms(h->until));
		memcpy(others, fds + 1, GW_HINTER_OTHERS * sizeof(*others));
		if (!n)
			return -ETIMEDOUT;
		for (size_t i = 0; n > 0 && i < GW_HINTER_OTHERS; i++)
			if (others[i].revents)
				return -EINTR;
	}
	return 0;
}

int gw_hinter_hints(struct gw_hinter *h, const json_t *disks, struct gw_hints *hints)
{
	const bool asked = h->asked_for == h->calls;
	const bool done = is_done(h);

	h->calls++;
	if (!done)
		return gw_fail(-ETIMEDOUT, "neither storage nor the guest answers");
	if (!h->answered)
		return gw_fail(-ENOENT, "nobody knows");
	number_disks(h, disks);
	hints->by = h->answered;
	if (is_index(h)) {
		hints->lookup = &h->lookup;
		return 0;
	}
	/* What came too late for the round before is older than what is due in this one. */
	if (!asked || !h->nr_told)
		return gw_fail(-ENODATA, "what the guest has told is of another moment");
	give_told(h, hints);
	return 0;
}

void gw_hinter_again(struct gw_hinter *h, int64_t ns, int64_t left_ns)
{
	if (!is_done(h) || !h->answered || is_index(h) || !h->asks || h->asked_for == h->calls ||
	    ns < AGAIN_SHARE * h->took || left_ns > AGAIN_LEAD * h->took + ns / AGAIN_PART)
		return;
	h->asks--;
	h->asked_for = h->calls;
	start(h, run_again);
}

void gw_hinter_stop(struct gw_hinter *h)
{
	if (!h)
		return;
	h->stopped = true;
	unref(h);
}
