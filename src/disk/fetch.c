// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * fetch.c - threads that read disks; see fetch.h.
 *
 * One of them opens the images, since a view ends with its thread (view.h), and closes them; all
 * serve one queue. Whoever is last frees what they share: a read that hangs may be it.
 */
#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cleanup.h"
#include "clock.h"
#include "error.h"
#include "fetch.h"
#include "hints.h"
#include "opened.h"
#include "urgency.h"

#define THREADS	   4U
#define QUEUE_MAX  64U
#define BUFFER_LEN (GW_FETCH_MAX + 2 * GW_READ_ALIGN)

struct request {
	unsigned int disk;
	uint64_t offset;
	size_t len;
	void (*done)(void *arg, const uint8_t *bytes);
	void *arg;
};

struct disk {
	struct gw_opened image;
	pthread_mutex_t lock; /* of a view */
};

struct gw_fetch {
	json_t *images, *names, *refused;
	pid_t pid;
	char *dir;
	struct disk *disks; /* as many as names */
	pthread_mutex_t lock;
	pthread_cond_t news;
	struct request queue[QUEUE_MAX];
	unsigned int first, waiting; /* of it */
	unsigned int refs, threads, telling;
	bool open, closing;
};

static void unref(struct gw_fetch *f)
{
	bool last;

	pthread_mutex_lock(&f->lock);
	last = !--f->refs;
	pthread_mutex_unlock(&f->lock);
	if (!last)
		return;
	pthread_mutex_destroy(&f->lock);
	pthread_cond_destroy(&f->news);
	json_decref(f->images);
	json_decref(f->names);
	json_decref(f->refused);
	free(f->disks);
	free(f->dir);
	free(f);
}

/* What cannot be opened is no disk to read, and the migration does without. */
static void open_all(struct gw_fetch *f)
{
	const json_t *image;
	unsigned int nr = 0;
	size_t i;

	json_array_foreach(f->images, i, image) {
		const json_t *disk = json_object_get(image, "disk");

		if (json_integer_value(json_object_get(image, "depth")) || nr == GW_HINT_DISKS)
			continue;
		if (gw_opened_open(&f->disks[nr].image, image, f->pid, f->dir)) {
			json_object_set_new(f->refused, json_string_value(disk) ?: "?",
					    json_string(gw_error()));
			gw_opened_close(&f->disks[nr].image);
			continue;
		}
		pthread_mutex_init(&f->disks[nr++].lock, NULL);
		json_array_append(f->names, (json_t *)(uintptr_t)disk);
	}
}

static void close_all(struct gw_fetch *f)
{
	for (size_t i = 0; i < json_array_size(f->names); i++) {
		gw_opened_close(&f->disks[i].image);
		pthread_mutex_destroy(&f->disks[i].lock);
	}
}

/* From a block's first byte on; the bytes asked for, in @buffer, or NULL. */
static const uint8_t *read_request(struct gw_fetch *f, const struct request *r, uint8_t *buffer)
{
	const size_t before = r->offset % GW_READ_ALIGN;
	const size_t len = (before + r->len + GW_READ_ALIGN - 1) / GW_READ_ALIGN * GW_READ_ALIGN;
	struct disk *d = &f->disks[r->disk];
	int rc;

	if (d->image.view)
		pthread_mutex_lock(&d->lock);
	rc = gw_opened_read(&d->image, buffer, len, r->offset - before);
	if (d->image.view)
		pthread_mutex_unlock(&d->lock);
	return rc ? NULL : buffer + before;
}

/* With the lock. */
static void tell(struct gw_fetch *f, const struct request *r, const uint8_t *bytes)
{
	if (f->closing)
		return;
	f->telling++;
	pthread_mutex_unlock(&f->lock);
	r->done(r->arg, bytes);
	pthread_mutex_lock(&f->lock);
	f->telling--;
	pthread_cond_broadcast(&f->news);
}

static void serve(struct gw_fetch *f, uint8_t *buffer)
{
	pthread_mutex_lock(&f->lock);
	while (!f->closing) {
		const uint8_t *bytes;
		struct request r;

		if (!f->waiting) {
			pthread_cond_wait(&f->news, &f->lock);
			continue;
		}
		r = f->queue[f->first];
		f->first = (f->first + 1) % QUEUE_MAX;
		f->waiting--;
		pthread_mutex_unlock(&f->lock);
		bytes = buffer ? read_request(f, &r, buffer) : NULL;
		pthread_mutex_lock(&f->lock);
		tell(f, &r, bytes);
	}
	f->threads--;
	pthread_cond_broadcast(&f->news);
	pthread_mutex_unlock(&f->lock);
}

static void *run(void *arg)
{
	struct gw_fetch *f = arg;
	gw_autofree uint8_t *buffer = aligned_alloc(GW_READ_ALIGN, BUFFER_LEN);

	gw_thread_urgency(GW_BULK);
	serve(f, buffer);
	unref(f);
	return NULL;
}

static bool start_thread(struct gw_fetch *f, void *(*fn)(void *arg))
{
	pthread_t thread;

	f->refs++;
	f->threads++;
	if (!pthread_create(&thread, NULL, fn, f)) {
		pthread_detach(thread);
		return true;
	}
	f->refs--;
	f->threads--;
	return false;
}

/* The one that opens and closes: the last that reads. */
static void *run_first(void *arg)
{
	struct gw_fetch *f = arg;
	gw_autofree uint8_t *buffer = aligned_alloc(GW_READ_ALIGN, BUFFER_LEN);

	gw_thread_urgency(GW_BULK);
	open_all(f);
	pthread_mutex_lock(&f->lock);
	f->open = true;
	for (unsigned int i = 1; i < THREADS && !f->closing && json_array_size(f->names); i++)
		start_thread(f, run);
	pthread_cond_broadcast(&f->news);
	pthread_mutex_unlock(&f->lock);
	serve(f, buffer);
	pthread_mutex_lock(&f->lock);
	while (f->threads)
		pthread_cond_wait(&f->news, &f->lock);
	pthread_mutex_unlock(&f->lock);
	close_all(f);
	unref(f);
	return NULL;
}

static struct gw_fetch *make(const json_t *images, pid_t pid, const char *dir)
{
	struct gw_fetch *f = calloc(1, sizeof(*f));

	if (!f)
		return NULL;
	pthread_mutex_init(&f->lock, NULL);
	pthread_cond_init(&f->news, NULL);
	f->refs = 1;
	f->pid = pid;
	f->dir = strdup(dir);
	f->images = json_deep_copy(images);
	f->names = json_array();
	f->refused = json_object();
	f->disks = calloc(json_array_size(images) + 1, sizeof(*f->disks));
	return f;
}

int gw_fetch_open(struct gw_fetch **fetch, const json_t *images, pid_t pid, const char *dir,
		  int64_t ns, json_t **names, json_t **refused)
{
	const int64_t deadline = gw_now() + ns;
	struct gw_fetch *f = make(images, pid, dir);
	bool begun;

	*names = NULL;
	if (refused)
		*refused = NULL;
	*fetch = f;
	if (!f || !f->dir || !f->disks || !f->names)
		return gw_fail(-ENOMEM, "no memory to read disks");
	pthread_mutex_lock(&f->lock);
	begun = start_thread(f, run_first);
	while (begun && !f->open && gw_wait_until(&f->news, &f->lock, deadline) != ETIMEDOUT)
		;
	if (f->open && json_array_size(f->names))
		*names = json_deep_copy(f->names);
	if (f->open && refused)
		*refused = json_deep_copy(f->refused);
	pthread_mutex_unlock(&f->lock);
	return begun ? 0 : gw_fail(-ENOMEM, "no thread to read disks");
}

void gw_fetch_read(struct gw_fetch *f, unsigned int disk, uint64_t offset, size_t len,
		   void (*done)(void *arg, const uint8_t *bytes), void *arg)
{
	const struct request r = { disk, offset, len, done, arg };

	pthread_mutex_lock(&f->lock);
	if (f->closing || disk >= json_array_size(f->names) || len > GW_FETCH_MAX ||
	    f->waiting == QUEUE_MAX) {
		tell(f, &r, NULL);
	} else {
		f->queue[(f->first + f->waiting++) % QUEUE_MAX] = r;
		pthread_cond_broadcast(&f->news);
	}
	pthread_mutex_unlock(&f->lock);
}

void gw_fetch_close(struct gw_fetch *f)
{
	if (!f)
		return;
	pthread_mutex_lock(&f->lock);
	f->closing = true;
	pthread_cond_broadcast(&f->news);
	while (f->telling)
		pthread_cond_wait(&f->news, &f->lock);
	pthread_mutex_unlock(&f->lock);
	unref(f);
}
