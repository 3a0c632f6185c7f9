// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * read.c - blocks of images, from the files that a QEMU has open; see samples.h.
 *
 * Where the bytes of a file are the guest's, they are read from it, of other formats
 * and of storage on a network through a view (view.h). Reads are O_DIRECT, so
 * that they wait for what this host has yet to write, and see what another host
 * has written; they are of a file description of our own.
 *
 * Storage can hang for as long as it likes. So a thread of its own does all of it,
 * and is left alone when the time is over: the job is its, then.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "cleanup.h"
#include "clock.h"
#include "error.h"
#include "opened.h"
#include "samples.h"

/* Where partitioning tools begin the first one: the file system's superblock is here. */
#define FIRST_PARTITION (1ULL << 20)

struct job {
	pthread_mutex_t lock;
	pthread_cond_t done;
	bool finished;	   /* by its thread */
	_Atomic bool left; /* by who waited for it */
	bool pick;
	pid_t pid;
	char *dir;
	struct gw_key key;
	struct gw_samples s; /* at[], nr and why: under the lock; images is a copy */
};

static void job_free(struct job *j)
{
	gw_samples_free(&j->s);
	pthread_cond_destroy(&j->done);
	pthread_mutex_destroy(&j->lock);
	free(j->dir);
	free(j);
}

static struct gw_digest read_block(const struct job *j, const struct gw_opened *o, uint64_t offset,
				   uint8_t *block)
{
	return gw_opened_read(o, block, GW_SAMPLE_SIZE, offset) ? GW_DIGEST_UNKNOWN
								: gw_key_page(&j->key, block);
}

static bool add(struct job *j, uint32_t image, uint64_t offset)
{
	gw_locked(&j->lock);

	if (j->left || j->s.nr == GW_SAMPLES_MAX)
		return false;
	for (size_t i = j->s.nr; i-- && j->s.at[i].image == image;)
		if (j->s.at[i].offset == offset)
			return true;
	j->s.at[j->s.nr++] = (struct gw_sample){
		.image = image,
		.offset = offset,
		.digest = GW_DIGEST_UNKNOWN,
	};
	return true;
}

/* Choose the blocks of an image that is open. */
static void pick(struct job *j, uint32_t image, const struct gw_opened *o)
{
	const size_t images = json_array_size(j->s.images);
	const size_t each = GW_SAMPLES_MAX / images < GW_SAMPLES_OF_IMAGE ? GW_SAMPLES_MAX / images
									  : GW_SAMPLES_OF_IMAGE;
	uint64_t places[GW_SAMPLES_OF_IMAGE], blocks;

	if (!o->size || getrandom(places, sizeof(places), 0) != (ssize_t)sizeof(places))
		return;
	blocks = (o->size + GW_SAMPLE_SIZE - 1) / GW_SAMPLE_SIZE;
	places[0] = 0;
	places[1] = blocks - 1;
	places[2] = FIRST_PARTITION / GW_SAMPLE_SIZE;
	for (size_t i = 0; i < each && !j->left; i++) {
		uint64_t offset = places[i] % blocks * GW_SAMPLE_SIZE;
		int64_t data = i < 3 ? -1 : gw_opened_data(o, offset);

		if (data > 0 && (uint64_t)data < o->size)
			offset = (uint64_t)data / GW_SAMPLE_SIZE * GW_SAMPLE_SIZE;
		if (!add(j, image, offset))
			return;
	}
}

static bool is_asked_for(const struct job *j, uint32_t image)
{
	for (size_t i = 0; i < j->s.nr; i++)
		if (j->s.at[i].image == image)
			return true;
	return j->pick;
}

static void note(struct job *j, const json_t *of, bool moved)
{
	gw_locked(&j->lock);

	if (!j->s.why[0] || (moved && !j->s.moved))
		snprintf(j->s.why, sizeof(j->s.why), "disk '%.100s': %.300s",
			 json_string_value(json_object_get(of, "disk")) ?: "?", gw_error());
	j->s.moved = j->s.moved || moved;
}

static void read_image(struct job *j, uint32_t image, uint8_t *block)
{
	const json_t *of = json_array_get(j->s.images, image);
	struct gw_opened o;
	int rc;

	if (!is_asked_for(j, image))
		return;
	rc = gw_opened_open(&o, of, j->pid, j->dir);
	if (rc)
		note(j, of, rc == -ESTALE);
	else if (j->pick)
		pick(j, image, &o);
	for (size_t i = 0; i < j->s.nr && !rc && !j->left; i++) {
		struct gw_digest digest;

		if (j->s.at[i].image != image)
			continue;
		digest = read_block(j, &o, j->s.at[i].offset, block);
		gw_locked(&j->lock);
		j->s.at[i].digest = digest;
	}
	gw_opened_close(&o);
}

static void *run(void *arg)
{
	struct job *j = arg;
	gw_autofree uint8_t *block = aligned_alloc(GW_SAMPLE_SIZE, GW_SAMPLE_SIZE);
	bool left;

	for (uint32_t i = 0; block && !j->left && i < json_array_size(j->s.images); i++)
		read_image(j, i, block);
	pthread_mutex_lock(&j->lock);
	j->finished = true;
	left = j->left;
	pthread_cond_signal(&j->done);
	pthread_mutex_unlock(&j->lock);
	if (left)
		job_free(j);
	return NULL;
}

static struct job *job_new(const struct gw_samples *s, const struct gw_samples_from *from,
			   bool pick)
{
	struct job *j = calloc(1, sizeof(*j));

	if (!j)
		return NULL;
	pthread_mutex_init(&j->lock, NULL);
	pthread_cond_init(&j->done, NULL);
	j->pick = pick;
	j->pid = from->pid;
	j->dir = strdup(from->dir);
	j->key = *from->key;
	j->s = *s;
	j->s.images = json_deep_copy(s->images);
	j->s.why[0] = '\0';
	j->s.moved = false;
	if (pick)
		j->s.nr = 0;
	for (size_t i = 0; i < j->s.nr; i++)
		j->s.at[i].digest = GW_DIGEST_UNKNOWN;
	return j;
}

static int work(struct gw_samples *s, const struct gw_samples_from *from, bool pick)
{
	const int64_t deadline = gw_now() + from->ns;
	struct job *j = job_new(s, from, pick);
	pthread_t thread;
	bool finished;

	if (!j || !j->dir || pthread_create(&thread, NULL, run, j)) {
		if (j)
			job_free(j);
		return gw_fail(-ENOMEM, "no memory to compare disks with");
	}
	pthread_detach(thread);
	pthread_mutex_lock(&j->lock);
	while (!j->finished && gw_wait_until(&j->done, &j->lock, deadline) != ETIMEDOUT)
		;
	finished = j->finished;
	j->left = !finished;
	s->nr = j->s.nr;
	memcpy(s->at, j->s.at, sizeof(s->at[0]) * s->nr);
	memcpy(s->why, j->s.why, sizeof(s->why));
	s->moved = j->s.moved;
	pthread_mutex_unlock(&j->lock);
	if (finished)
		job_free(j);
	else if (!s->why[0])
		snprintf(s->why, sizeof(s->why), "storage did not answer in time");
	return 0;
}

int gw_samples_pick(struct gw_samples *s, const struct gw_samples_from *from)
{
	int rc = work(s, from, true);

	for (size_t i = 0; !rc && i < s->nr; i++)
		s->at[i].first = s->at[i].digest;
	if (!rc && s->moved)
		return gw_fail(
			-ENOTSUP,
			"%s: the destination's QEMU would open that; give the VM's image its "
			"name back, or start the VM anew",
			s->why);
	return rc;
}

int gw_samples_read(struct gw_samples *s, const struct gw_samples_from *from)
{
	return work(s, from, false);
}
