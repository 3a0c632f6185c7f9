// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * storage_dest.c - a VM's disks are copied with its memory: the destination's half; see storage.h.
 *
 * storage.json is {"files":[{"file":"/d/web1.qcow2","aside":"/d/web1.qcow2.godwit-1f2e..."},...]},
 * written before each is touched. It loses that name once the guest may run here, since then what
 * is in the images may be nowhere else.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cleanup.h"
#include "clock.h"
#include "dest_env.h"
#include "error.h"
#include "io.h"
#include "live.h"
#include "log.h"
#include "mirror.h"
#include "own.h"
#include "peers.h"
#include "run.h"
#include "sockets.h"
#include "storage.h"
#include "tunnel.h"

#define TOOL	 "qemu-img"
#define NOTE_MAX (1UL << 20)
#define FLUSH_NS (GW_S / 2)

/*
 * What was copied is written down as it comes, so that little is left of that when the guest
 * stands still. Storage may hang: its thread is then left alone.
 */
struct flusher {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	int fds[GW_MIRRORS_MAX];
	size_t nr;
	bool ends;
	_Atomic int users;
};

struct gw_storage_here {
	json_t *disks; /* mirror.h's, with this host's names */
	json_t *note;
	char *socket; /* of the server */
	bool serves;
	struct gw_tunnel tunnels[GW_MIRRORS_MAX];
	size_t nr;
	struct flusher *flusher;
};

static char *note_path(const struct gw_paths *p, const char *name, bool committed)
{
	gw_autofree char *dir = gw_vm_dir(p, name);

	return gw_path("%s/storage.json%s", dir, committed ? ".committed" : "");
}

static int write_note(struct gw_dest_env *e)
{
	gw_autofree char *path = note_path(e->w->paths, e->vm.def.name, false);
	gw_autofree char *text = json_dumps(e->storage->note, JSON_COMPACT);

	return text ? gw_write_file(path, text) : gw_fail(-ENOMEM, "no memory for disks");
}

static json_t *read_note(const char *path)
{
	gw_autofree char *text = gw_own_read(path, NOTE_MAX, NULL);
	json_t *note = text ? json_loads(text, 0, NULL) : NULL;

	gw_error_clear();
	return note;
}

static int note_file(struct gw_dest_env *e, const char *file, const char *aside)
{
	json_array_append_new(json_object_get(e->storage->note, "files"),
			      json_pack("{s:s,s:s*}", "file", file, "aside", aside));
	return write_note(e);
}

/* What a peer says of a disk is what a QEMU could have said. */
static int check_disk(const json_t *disk)
{
	static const char *const compats[] = { "", "0.10", "1.1" };
	const char *compat = gw_qmp_text(disk, "compat");
	bool has = false;

	for (size_t i = 0; i < GW_ARRAY_SIZE(compats); i++)
		has = has || !strcmp(compats[i], compat);
	return has && gw_mirror_has_format(gw_qmp_text(disk, "format")) &&
			       gw_qmp_text(disk, "disk")[0] &&
			       json_integer_value(json_object_get(disk, "size")) > 0 &&
			       json_integer_value(json_object_get(disk, "cluster-size")) >= 0
		       ? 0
		       : gw_fail(-EPROTO, "source: a disk to copy that is none");
}

static bool is_qcow2(const json_t *disk)
{
	return !strcmp(gw_qmp_text(disk, "format"), "qcow2");
}

/* A qcow2 image in place of what is at @path, which is ours to write. */
static int format(const json_t *disk, const char *path)
{
	const char *backing = gw_qmp_text(disk, "backing");
	const char *compat = gw_qmp_text(disk, "compat");
	const json_int_t cluster = json_integer_value(json_object_get(disk, "cluster-size"));
	gw_autofree char *size =
		gw_path("%lld", (long long)json_integer_value(json_object_get(disk, "size")));
	gw_autofree char *options = gw_path(
		"compat=%s,cluster_size=%lld%s", compat[0] ? compat : "1.1",
		(long long)(cluster ? cluster : 65536),
		json_is_true(json_object_get(disk, "extended-l2")) ? ",extended_l2=on" : "");
	const char *args[] = { TOOL, "create", "-q", "-f", "qcow2", "-o", options,
			       NULL, NULL,     NULL, NULL, NULL,    NULL, NULL };
	char said[600];
	size_t n = 7;
	int status;

	if (backing[0]) {
		args[n++] = "-b";
		args[n++] = backing;
		args[n++] = "-F";
		args[n++] = gw_qmp_text(disk, "backing-format");
	}
	args[n++] = path;
	args[n] = size;
	status = gw_run((char *const *)(uintptr_t)args, true, said, sizeof(said));
	said[strcspn(said, "\n")] = '\0';
	if (status < 0)
		return gw_fail_prefix(status, "it is made by " TOOL " (Debian's package "
					      "qemu-utils): ");
	return status ? gw_fail(-EIO, "%s", said[0] ? said : TOOL " failed") : 0;
}

static int check_device(const json_t *disk, const char *path)
{
	const json_int_t wants = json_integer_value(json_object_get(disk, "size"));
	gw_autofd int fd = open(path, O_RDONLY | O_CLOEXEC);
	uint64_t size = 0;

	if (fd < 0 || ioctl(fd, BLKGETSIZE64, &size))
		return gw_fail(-errno, "%s", strerror(errno));
	return size >= (uint64_t)wants ? 0
				       : gw_fail(-ENOSPC, "it has %llu bytes, and the disk %lld",
						 (unsigned long long)size, (long long)wants);
}

/* Something has its name: it is put where it can be had back from. */
static int put_aside(struct gw_dest_env *e, const char *path)
{
	char id[2 * GW_ID_LEN + 1];
	gw_autofree char *aside = NULL;
	int rc;

	gw_id_format(e->journal.id, id);
	aside = gw_path("%s.godwit-%.8s", path, id);
	rc = note_file(e, path, aside);
	if (!rc && rename(path, aside))
		rc = gw_fail(-errno, "%s", strerror(errno));
	return rc;
}

static int make_file(struct gw_dest_env *e, const json_t *disk, const char *path, bool noted)
{
	json_t *files = json_object_get(e->storage->note, "files");
	gw_autofd int fd = -1;
	int rc = noted ? 0 : note_file(e, path, NULL);

	if (rc)
		return rc;
	fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0) {
		rc = gw_fail(-errno, "%s", strerror(errno));
		/* Not ours to remove. */
		if (!noted && !json_array_remove(files, json_array_size(files) - 1))
			(void)!write_note(e);
		return rc;
	}
	if (is_qcow2(disk))
		return format(disk, path);
	return ftruncate(fd, json_integer_value(json_object_get(disk, "size")))
		       ? gw_fail(-errno, "%s", strerror(errno))
		       : 0;
}

static int make_image(struct gw_dest_env *e, const json_t *disk, const char *path, bool overwrite)
{
	struct stat st;
	const bool there = !lstat(path, &st);
	bool device;

	if (!there)
		return make_file(e, disk, path, false);
	device = !stat(path, &st) && S_ISBLK(st.st_mode);
	if (!overwrite)
		return gw_fail(-EEXIST,
			       "it is there already, and would be lost: %s, or use "
			       "--copy-storage=overwrite",
			       device ? "make sure that nobody needs what is on it"
				      : "remove it if nobody needs it");
	if (device)
		return check_device(disk, path) ?: is_qcow2(disk) ? format(disk, path) : 0;
	return put_aside(e, path) ?: make_file(e, disk, path, true);
}

int gw_storage_make(struct gw_dest_env *e, const json_t *wanted)
{
	gw_autofree char *dir = gw_vm_dir(e->w->paths, e->vm.def.name);
	const bool overwrite = json_is_true(json_object_get(wanted, "overwrite"));
	const json_t *disks = json_object_get(wanted, "disks");
	json_t *disk;
	size_t i;
	int rc = 0;

	if (!json_array_size(disks) || json_array_size(disks) > GW_MIRRORS_MAX)
		return gw_fail(-EPROTO, "source: %zu disks to copy", json_array_size(disks));
	e->storage = calloc(1, sizeof(*e->storage));
	if (!e->storage)
		return gw_fail(-ENOMEM, "no memory for disks");
	e->storage->disks = json_deep_copy(disks);
	e->storage->note = json_pack("{s:[]}", "files");
	json_array_foreach(e->storage->disks, i, disk) {
		gw_autofree char *path = gw_live_file_here(dir, gw_qmp_text(disk, "file"));

		rc = rc ?: check_disk(disk);
		if (!rc && path[0] != '/')
			rc = gw_fail(-EPROTO, "source: a disk to copy without a path");
		if (rc)
			return rc;
		json_object_set_new(disk, "file", json_string(path));
		rc = make_image(e, disk, path, overwrite);
		if (rc)
			return gw_fail_prefix(rc, "disk '%s' cannot be copied to %s on host '%s': ",
					      gw_qmp_text(disk, "disk"), path, e->w->host);
	}
	return 0;
}

static void flusher_put(struct flusher *f)
{
	if (atomic_fetch_sub(&f->users, 1) > 1)
		return;
	for (size_t i = 0; i < f->nr; i++)
		close(f->fds[i]);
	pthread_mutex_destroy(&f->lock);
	pthread_cond_destroy(&f->changed);
	free(f);
}

static void *flush(void *arg)
{
	struct flusher *f = arg;
	bool ends = false;

	while (!ends) {
		for (size_t i = 0; i < f->nr; i++)
			fdatasync(f->fds[i]);
		gw_locked(&f->lock);
		if (!f->ends)
			gw_wait_until(&f->changed, &f->lock, gw_now() + FLUSH_NS);
		ends = f->ends;
	}
	flusher_put(f);
	return NULL;
}

static void start_flusher(struct gw_storage_here *s)
{
	struct flusher *f = calloc(1, sizeof(*f));
	pthread_t thread;
	const json_t *disk;
	size_t i;

	if (!f)
		return;
	pthread_mutex_init(&f->lock, NULL);
	pthread_cond_init(&f->changed, NULL);
	json_array_foreach(s->disks, i, disk) {
		const int fd = open(gw_qmp_text(disk, "file"), O_RDONLY | O_CLOEXEC);

		if (fd >= 0)
			f->fds[f->nr++] = fd;
	}
	f->users = 2;
	if (pthread_create(&thread, NULL, flush, f)) {
		f->users = 1;
		flusher_put(f);
		return;
	}
	pthread_detach(thread);
	s->flusher = f;
}

static void stop_flusher(struct gw_storage_here *s)
{
	struct flusher *f = s->flusher;

	if (!f)
		return;
	{
		gw_locked(&f->lock);
		f->ends = true;
		pthread_cond_signal(&f->changed);
	}
	s->flusher = NULL;
	flusher_put(f);
}

int gw_storage_serve(struct gw_dest_env *e)
{
	struct gw_storage_here *s = e->storage;
	gw_autofree char *dir = gw_vm_dir(e->w->paths, e->vm.def.name);
	int rc;

	s->socket = gw_path("%s/nbd.sock", dir);
	rc = gw_mirror_export(e->qmp, s->disks, s->socket);
	if (rc)
		return rc;
	s->serves = true;
	start_flusher(s);
	return 0;
}

/* One of the source's connections, to QEMU's server. */
static int join(struct gw_storage_here *s, struct gw_transport *t, uint16_t version)
{
	struct gw_tunnel *n = &s->tunnels[s->nr];
	gw_autofd int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int rc = fd < 0 ? -errno : gw_unix_connect(fd, s->socket);

	n->t = t;
	if (rc)
		gw_fail(rc, "the server of its disks: %s", strerror(-rc));
	else
		rc = gw_frame_send(t, GW_MSG_ACCEPT, version, NULL, 0);
	if (rc) {
		gw_transport_close(&n->t);
		return rc;
	}
	n->fd = gw_steal_fd(&fd);
	rc = gw_tunnel_start(n);
	s->nr += !rc;
	return rc;
}

void gw_storage_heed(struct gw_dest_env *e)
{
	struct gw_storage_here *s = e->storage;
	int fd;

	while ((fd = gw_worker_storage(e->w)) >= 0) {
		struct gw_transport *t = gw_peer_accept(fd);

		if (!t || !s || !s->serves || s->nr == GW_MIRRORS_MAX)
			gw_transport_close(&t); /* the source hears of it at once */
		else if (join(s, t, e->d.version))
			gw_warn("VM '%s': %s", e->vm.def.name, gw_error());
	}
}

void gw_storage_images(const struct gw_dest_env *e, json_t *images, bool compared)
{
	const struct gw_storage_here *s = e->storage;

	if (s && compared)
		gw_mirror_below(s->disks, images);
	else if (s && s->serves)
		gw_mirror_shown(s->disks, s->socket, images);
}

int gw_storage_sealed(void *env)
{
	struct gw_dest_env *e = env;
	struct gw_storage_here *s = e->storage;
	int rc;

	if (!s || !s->serves)
		return 0;
	stop_flusher(s);
	rc = gw_dest_because(e, gw_mirror_unexport(e->qmp));
	s->serves = rc != 0;
	return rc;
}

void gw_storage_here_free(struct gw_storage_here *s)
{
	if (!s)
		return;
	stop_flusher(s);
	for (size_t i = 0; i < s->nr; i++)
		gw_tunnel_stop(&s->tunnels[i]);
	json_decref(s->disks);
	json_decref(s->note);
	free(s->socket);
	free(s);
}

void gw_storage_committed(const struct gw_paths *p, const char *name, bool committed)
{
	gw_autofree char *from = note_path(p, name, !committed);
	gw_autofree char *to = note_path(p, name, committed);

	if (rename(from, to) && errno != ENOENT)
		gw_warn("%s: %s", from, strerror(errno));
}

void gw_storage_keep(const struct gw_paths *p, const char *name)
{
	gw_autofree char *path = note_path(p, name, true);
	json_t *note = read_note(path), *entry;
	size_t i;

	json_array_foreach(json_object_get(note, "files"), i, entry) {
		const char *aside = gw_qmp_text(entry, "aside");

		if (aside[0] && unlink(aside) && errno != ENOENT)
			gw_warn("%s, which VM '%s' has a newer copy of, is left: %s", aside, name,
				strerror(errno));
	}
	json_decref(note);
	unlink(path);
}

void gw_storage_undo(const struct gw_paths *p, const char *name)
{
	gw_autofree char *path = note_path(p, name, false);
	json_t *note, *entry;
	size_t i;

	gw_storage_committed(p, name, false);
	note = read_note(path);

	json_array_foreach(json_object_get(note, "files"), i, entry) {
		const char *aside = gw_qmp_text(entry, "aside"), *file = gw_qmp_text(entry, "file");
		struct stat st;
		int rc;

		/* Noted, and not put aside yet: it is where it was. */
		if (aside[0] && lstat(aside, &st) && errno == ENOENT)
			continue;
		rc = aside[0] ? rename(aside, file) : unlink(file);
		if (rc && errno != ENOENT)
			gw_err("%s of VM '%s' is left as it is: %s", file, name, strerror(errno));
	}
	json_decref(note);
	unlink(path);
}
