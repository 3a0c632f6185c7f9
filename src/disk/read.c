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
#include "samples.h"
#include "view.h"

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

static ssize_t read_some(int fd, void *block, uint64_t offset)
{
	ssize_t n;

	do
		n = pread(fd, block, GW_SAMPLE_SIZE, (off_t)offset);
	while (n < 0 && errno == EINTR);
	return n;
}

/* Where direct reads cannot be: through the page cache, but not out of it. */
static ssize_t read_cached(int fd, void *block, uint64_t offset)
{
	fcntl(fd, F_SETFL, 0);
	sync_file_range(fd, (off_t)offset, GW_SAMPLE_SIZE,
			SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE |
				SYNC_FILE_RANGE_WAIT_AFTER);
	posix_fadvise(fd, (off_t)offset, GW_SAMPLE_SIZE, POSIX_FADV_DONTNEED);
	return read_some(fd, block, offset);
}

/* One that is open: a file, or else a view. */
struct image {
	int fd;
	struct gw_view *view;
	uint64_t size; /* 0: not known */
};

static struct gw_digest read_block(const struct job *j, const struct image *m, uint64_t offset,
				   uint8_t *block)
{
	ssize_t n = -1;

	if (m->view && offset < m->size) {
		const uint64_t left = m->size - offset;

		n = (ssize_t)(left < GW_SAMPLE_SIZE ? left : GW_SAMPLE_SIZE);
		if (gw_view_read(m->view, block, (size_t)n, offset))
			n = -1;
	} else if (!m->view) {
		n = fcntl(m->fd, F_GETFL) & O_DIRECT ? read_some(m->fd, block, offset) : -1;
		if (n < 0)
			n = read_cached(m->fd, block, offset);
	}
	if (n <= 0)
		return GW_DIGEST_UNKNOWN;
	memset(block + n, 0, GW_SAMPLE_SIZE - (size_t)n); /* the end of a file */
	return gw_key_page(&j->key, block);
}

static int64_t find_data(const struct image *m, uint64_t offset)
{
	/* A block device knows no holes, and fails. */
	return m->view ? gw_view_data(m->view, offset) : lseek(m->fd, (off_t)offset, SEEK_DATA);
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
static void pick(struct job *j, uint32_t image, const struct image *m)
{
	const size_t images = json_array_size(j->s.images);
	const size_t each = GW_SAMPLES_MAX / images < GW_SAMPLES_OF_IMAGE ? GW_SAMPLES_MAX / images
									  : GW_SAMPLES_OF_IMAGE;
	uint64_t places[GW_SAMPLES_OF_IMAGE], blocks;

	if (!m->size || getrandom(places, sizeof(places), 0) != (ssize_t)sizeof(places))
		return;
	blocks = (m->size + GW_SAMPLE_SIZE - 1) / GW_SAMPLE_SIZE;
	places[0] = 0;
	places[1] = blocks - 1;
	places[2] = FIRST_PARTITION / GW_SAMPLE_SIZE;
	for (size_t i = 0; i < each && !j->left; i++) {
		uint64_t offset = places[i] % blocks * GW_SAMPLE_SIZE;
		int64_t data = i < 3 ? -1 : find_data(m, offset);

		if (data > 0 && (uint64_t)data < m->size)
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

static int open_image(const struct job *j, const json_t *of, struct image *m)
{
	const json_t *node = json_object_get(of, "node");
	const char *name = json_string_value(json_object_get(of, "file"));
	off_t size;
	int rc;

	if (node) {
		rc = gw_view_open(node, j->pid, j->dir, &m->view);
		m->size = rc ? 0 : gw_view_size(m->view);
		return rc;
	}
	m->fd = name ? gw_file_open(j->pid, name) : gw_fail(-ENOENT, "it is not on this host");
	size = m->fd < 0 ? 0 : lseek(m->fd, 0, SEEK_END);
	m->size = size > 0 ? (uint64_t)size : 0;
	return m->fd < 0 ? m->fd : 0;
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
	struct image m = { .fd = -1 };
	int rc;

	if (!is_asked_for(j, image))
		return;
	rc = open_image(j, of, &m);
	if (rc)
		note(j, of, rc == -ESTALE);
	else if (j->pick)
		pick(j, image, &m);
	for (size_t i = 0; i < j->s.nr && (m.view || m.fd >= 0) && !j->left; i++) {
		struct gw_digest digest;

		if (j->s.at[i].image != image)
			continue;
		digest = read_block(j, &m, j->s.at[i].offset, block);
		gw_locked(&j->lock);
		j->s.at[i].digest = digest;
	}
	gw_view_close(m.view);
	if (m.fd >= 0)
		close(m.fd);
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
	pthread_condattr_t attr;

	if (!j)
		return NULL;
	pthread_mutex_init(&j->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&j->done, &attr);
	pthread_condattr_destroy(&attr);
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
	const struct timespec until = { deadline / GW_S, deadline % GW_S };
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
	while (!j->finished && pthread_cond_timedwait(&j->done, &j->lock, &until) != ETIMEDOUT)
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
