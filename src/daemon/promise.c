// SPDX-License-Identifier: GPL-2.0-or-later
/* promise.c - what this host's memory server holds; see promise.h. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cleanup.h"
#include "clock.h"
#include "error.h"
#include "io.h"
#include "own.h"
#include "promise.h"

#define RECORD_MAX (64UL << 10)
#define LOCK_MS	   10

static char *dir_of(const struct gw_paths *p, const char *id)
{
	return gw_path("%s/held/%s", p->run, id);
}

char *gw_promise_store(const struct gw_paths *p, const char *id, const struct gw_promise *promise)
{
	return promise->swap[0] ? gw_path("%s/%s", promise->swap, id)
				: gw_path("%s/held/%s", p->ram_small, id);
}

/* Locked, and still there: whoever had it before may have removed it. */
static int try_lock(const char *dir)
{
	gw_autofd int fd = -1;
	struct stat st;
	int rc = gw_own_mkdirs(dir);

	if (rc)
		return rc == -ENOENT ? -EAGAIN : rc; /* what is above it was just removed */
	fd = open(dir, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return errno == ENOENT ? -EAGAIN : gw_fail(-errno, "%s: %s", dir, strerror(errno));
	if (flock(fd, LOCK_EX | LOCK_NB))
		return errno == EWOULDBLOCK || errno == EINTR
			       ? -EBUSY
			       : gw_fail(-errno, "%s: %s", dir, strerror(errno));
	if (fstat(fd, &st))
		return gw_fail(-errno, "%s: %s", dir, strerror(errno));
	return st.st_nlink ? gw_steal_fd(&fd) : -EAGAIN;
}

int gw_promise_lock(const struct gw_paths *p, const char *id, int64_t deadline)
{
	gw_autofree char *dir = dir_of(p, id);

	for (;;) {
		const int fd = try_lock(dir);

		if (fd != -EBUSY && fd != -EAGAIN)
			return fd;
		if (gw_now() > deadline)
			return gw_fail(-EBUSY,
				       "another godwitd[hold] process works on what is held here; "
				       "try again");
		usleep(LOCK_MS * 1000);
	}
}

/* Without it the pages lie in memory. */
static int parse_place(struct gw_promise *promise, const json_t *json)
{
	const json_t *swap = json_object_get(json, "swap");

	gw_copy_whole(promise->swap, sizeof(promise->swap), json_string_value(swap));
	promise->failed = json_is_true(json_object_get(json, "failed"));
	return swap && promise->swap[0] != '/' ? -EINVAL : 0;
}

int gw_promise_load(const struct gw_paths *p, const char *id, struct gw_promise *promise)
{
	gw_autofree char *dir = dir_of(p, id);
	gw_autofree char *path = gw_path("%s/record.json", dir);
	gw_autofree char *text = access(path, F_OK) ? NULL : gw_own_read(path, RECORD_MAX, NULL);
	json_t *json = text ? json_loads(text, 0, NULL) : NULL;
	int rc;

	if (!text && errno == ENOENT)
		return -ENOENT;
	rc = json ? gw_hold_parse(&promise->hold, json) : -EINVAL;
	if (!rc)
		rc = parse_place(promise, json);
	json_decref(json);
	return rc ? gw_fail(-EINVAL, "%s is damaged", path) : 0;
}

int gw_promise_save(const struct gw_paths *p, const char *id, const struct gw_promise *promise)
{
	gw_autofree char *dir = dir_of(p, id);
	gw_autofree char *path = gw_path("%s/record.json", dir);
	json_t *json = gw_hold_json(&promise->hold);
	gw_autofree char *text = NULL;

	if (json && promise->swap[0])
		json_object_set_new(json, "swap", json_string(promise->swap));
	if (json && promise->failed)
		json_object_set_new(json, "failed", json_true());
	text = json ? json_dumps(json, JSON_INDENT(1)) : NULL;
	json_decref(json);
	return text ? gw_write_file(path, text) : gw_fail(-ENOMEM, "%s: no memory", path);
}

uint64_t gw_promise_used(const struct gw_paths *p, const char *id, const struct gw_promise *promise)
{
	gw_autofree char *path = gw_promise_store(p, id, promise);
	DIR *dir = opendir(path);
	const struct dirent *e;
	uint64_t used = 0;
	struct stat st;

	while (dir && (e = readdir(dir)))
		if (e->d_name[0] != '.' &&
		    !fstatat(dirfd(dir), e->d_name, &st, AT_SYMLINK_NOFOLLOW) &&
		    S_ISREG(st.st_mode))
			used += (uint64_t)st.st_blocks * 512;
	if (dir)
		closedir(dir);
	return used;
}

static int open_main(const struct gw_paths *p, const char *id, int flags)
{
	gw_autofree char *dir = dir_of(p, id);
	gw_autofree char *path = gw_path("%s/main", dir);

	return gw_own_open(path, O_RDWR | flags, 0600);
}

int gw_promise_connect(const struct gw_paths *p, const char *id)
{
	gw_autofd int fd = open_main(p, id, O_CREAT);

	if (fd < 0)
		return fd;
	/* Whoever looks whether it is locked has it for a moment. */
	while (flock(fd, LOCK_EX))
		if (errno != EINTR)
			return gw_fail(-errno, "flock: %s", strerror(errno));
	return gw_steal_fd(&fd);
}

bool gw_promise_connected(const struct gw_paths *p, const char *id)
{
	gw_autofd int fd = open_main(p, id, 0);

	if (fd < 0)
		gw_error_clear();
	return fd >= 0 && flock(fd, LOCK_SH | LOCK_NB) && errno == EWOULDBLOCK;
}

int gw_promise_remove(const struct gw_paths *p, const char *id)
{
	struct gw_promise promise = { .swap = "" };
	gw_autofree char *dir = dir_of(p, id);
	gw_autofree char *store = NULL;
	int rc = gw_promise_load(p, id, &promise);

	/* What a damaged one has on a disk gw_swap_tidy() finds. */
	if (rc) {
		promise.swap[0] = '\0';
		gw_error_clear();
	}
	store = gw_promise_store(p, id, &promise);
	rc = gw_remove_tree(store);
	return rc ? rc : gw_remove_tree(dir);
}

void gw_promise_each(const struct gw_paths *p,
		     void (*fn)(void *arg, const char *id, const struct gw_promise *promise),
		     void *arg)
{
	gw_autofree char *path = gw_path("%s/held", p->run);
	DIR *dir = opendir(path);
	const struct dirent *e;

	while (dir && (e = readdir(dir))) {
		uint8_t id[GW_ID_LEN];
		struct gw_promise promise;

		if (e->d_name[0] != '.' && !gw_id_parse(e->d_name, id) &&
		    !gw_promise_load(p, e->d_name, &promise))
			fn(arg, e->d_name, &promise);
	}
	if (dir)
		closedir(dir);
	gw_error_clear();
}
