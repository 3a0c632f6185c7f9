// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * read.c - blocks of images, from the files that a QEMU has open; see samples.h.
 *
 * The file is not opened by its name: that may be another's by now. Reads are
 * O_DIRECT, so that they wait for what this host has yet to write, and see what
 * another host has written; they are of a file description of our own.
 *
 * Storage can hang for as long as it likes. So a thread of its own does all of it,
 * and is left alone when the time is over: the job is its, then.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "cleanup.h"
#include "clock.h"
#include "error.h"
#include "io.h"
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
	struct gw_key key;
	struct gw_samples s; /* at[] and nr: under the lock; images is a copy */
};

static void job_free(struct job *j)
{
	gw_samples_free(&j->s);
	pthread_cond_destroy(&j->done);
	pthread_mutex_destroy(&j->lock);
	free(j);
}

static bool same_file(const struct stat *a, const struct stat *b)
{
	if (S_ISBLK(a->st_mode) && S_ISBLK(b->st_mode))
		return a->st_rdev == b->st_rdev;
	return S_ISREG(a->st_mode) && S_ISREG(b->st_mode) && a->st_dev == b->st_dev &&
	       a->st_ino == b->st_ino;
}

/* The name, as its process sees it, absolute; caller frees. */
static char *whole_name(pid_t pid, const char *name)
{
	gw_autofree char *link = gw_path("/proc/%d/cwd", (int)pid);
	char cwd[4096];
	ssize_t n = name[0] == '/' ? 0 : readlink(link, cwd, sizeof(cwd) - 1);

	if (n < 0)
		return NULL;
	cwd[n] = '\0';
	return n ? gw_path("%s/%s", strcmp(cwd, "/") ? cwd : "", name) : strdup(name);
}

/* Open once more what @pid has open as @name, even if that is another file's name now. */
static int open_image(pid_t pid, const char *name)
{
	gw_autofree char *whole = whole_name(pid, name);
	gw_autofree char *path = gw_path("/proc/%d/root%s", (int)pid, whole ? whole : "");
	gw_autofree char *gone = gw_path("%s (deleted)", whole ? whole : "");
	gw_autofree char *folder = gw_path("/proc/%d/fd", (int)pid);
	struct stat named, open_now;
	const bool exists = whole && !stat(path, &named);
	DIR *dir = whole ? opendir(folder) : NULL;
	const struct dirent *entry;
	char target[4200];
	int fd = -1;

	while (dir && fd < 0 && (entry = readdir(dir))) {
		gw_autofree char *link = gw_path("%s/%s", folder, entry->d_name);
		ssize_t n = readlink(link, target, sizeof(target) - 1);

		if (n <= 0 || stat(link, &open_now) ||
		    !(S_ISREG(open_now.st_mode) || S_ISBLK(open_now.st_mode)))
			continue;
		target[n] = '\0';
		if (!(exists && same_file(&named, &open_now)) && strcmp(target, gone) != 0)
			continue;
		fd = open(link, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_DIRECT);
		if (fd < 0 && errno == EINVAL)
			fd = open(link, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	}
	if (dir)
		closedir(dir);
	return fd;
}

static ssize_t read_some(int fd, void *block, uint64_t offset)
{
	ssize_t n;

	do
		n = pread(fd, block, GW_SAMPLE_SIZE, (off_t)offset);
	while (n < 0 && errno == EINTR);
	return n;
}

static struct gw_digest read_block(const struct job *j, int fd, uint64_t offset, uint8_t *block)
{
	ssize_t n = fcntl(fd, F_GETFL) & O_DIRECT ? read_some(fd, block, offset) : -1;

	/* Where direct reads cannot be: through the page cache, but not out of it. */
	if (n < 0) {
		fcntl(fd, F_SETFL, 0);
		sync_file_range(fd, (off_t)offset, GW_SAMPLE_SIZE,
				SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE |
					SYNC_FILE_RANGE_WAIT_AFTER);
		posix_fadvise(fd, (off_t)offset, GW_SAMPLE_SIZE, POSIX_FADV_DONTNEED);
		n = read_some(fd, block, offset);
	}
	if (n <= 0)
		return GW_DIGEST_UNKNOWN;
	memset(block + n, 0, GW_SAMPLE_SIZE - (size_t)n); /* the end of a file */
	return gw_key_page(&j->key, block);
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
static void pick(struct job *j, uint32_t image, int fd)
{
	const size_t images = json_array_size(j->s.images);
	const size_t each = GW_SAMPLES_MAX / images < GW_SAMPLES_OF_IMAGE ? GW_SAMPLES_MAX / images
									  : GW_SAMPLES_OF_IMAGE;
	uint64_t places[GW_SAMPLES_OF_IMAGE], blocks;
	off_t size = lseek(fd, 0, SEEK_END);

	if (size <= 0 || getrandom(places, sizeof(places), 0) != (ssize_t)sizeof(places))
		return;
	blocks = ((uint64_t)size + GW_SAMPLE_SIZE - 1) / GW_SAMPLE_SIZE;
	places[0] = 0;
	places[1] = blocks - 1;
	places[2] = FIRST_PARTITION / GW_SAMPLE_SIZE;
	for (size_t i = 0; i < each; i++) {
		uint64_t offset = places[i] % blocks * GW_SAMPLE_SIZE;
		/* A block device knows no holes, and fails. */
		off_t data = i < 3 ? -1 : lseek(fd, (off_t)offset, SEEK_DATA);

		if (data > 0 && data < size)
			offset = (uint64_t)data / GW_SAMPLE_SIZE * GW_SAMPLE_SIZE;
		if (!add(j, image, offset))
			return;
	}
}

static void read_image(struct job *j, uint32_t image, uint8_t *block)
{
	const char *name =
		json_string_value(json_object_get(json_array_get(j->s.images, image), "file"));
	gw_autofd int fd = name ? open_image(j->pid, name) : -1;

	if (fd < 0)
		return;
	if (j->pick)
		pick(j, image, fd);
	for (size_t i = 0; i < j->s.nr && !j->left; i++) {
		struct gw_digest digest;

		if (j->s.at[i].image != image)
			continue;
		digest = read_block(j, fd, j->s.at[i].offset, block);
		gw_locked(&j->lock);
		j->s.at[i].digest = digest;
	}
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

static struct job *job_new(const struct gw_samples *s, pid_t pid, const struct gw_key *key,
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
	j->pid = pid;
	j->key = *key;
	j->s = *s;
	j->s.images = json_deep_copy(s->images);
	if (pick)
		j->s.nr = 0;
	for (size_t i = 0; i < j->s.nr; i++)
		j->s.at[i].digest = GW_DIGEST_UNKNOWN;
	return j;
}

static int work(struct gw_samples *s, pid_t pid, const struct gw_key *key, int64_t ns, bool pick)
{
	const int64_t deadline = gw_now() + ns;
	const struct timespec until = { deadline / GW_S, deadline % GW_S };
	struct job *j = job_new(s, pid, key, pick);
	pthread_t thread;
	bool finished;

	if (!j || pthread_create(&thread, NULL, run, j)) {
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
	pthread_mutex_unlock(&j->lock);
	if (finished)
		job_free(j);
	return 0;
}

int gw_samples_pick(struct gw_samples *s, pid_t pid, const struct gw_key *key, int64_t ns)
{
	int rc = work(s, pid, key, ns, true);

	for (size_t i = 0; !rc && i < s->nr; i++)
		s->at[i].first = s->at[i].digest;
	return rc;
}

int gw_samples_read(struct gw_samples *s, pid_t pid, const struct gw_key *key, int64_t ns)
{
	return work(s, pid, key, ns, false);
}
