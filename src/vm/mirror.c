// SPDX-License-Identifier: GPL-2.0-or-later
/* mirror.c - copies of disks, by QEMU's monitor; see mirror.h. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "cleanup.h"
#include "clock.h"
#include "error.h"
#include "images.h"
#include "io.h"
#include "mirror.h"
#include "sockets.h"

#define OURS   "godwit-"
#define JOB    OURS "mirror-"
#define TARGET OURS "target-"

/* Between two looks at jobs that are about to end. */
#define LOOK_MS 1

/* A name of the @i-th disk. */
struct name {
	char text[48];
};

static struct name name_of(const char *kind, size_t i)
{
	struct name n;

	snprintf(n.text, sizeof(n.text), "%s%zu", kind, i);
	return n;
}

bool gw_mirror_is_ours(const char *name)
{
	return !strncmp(name, OURS, strlen(OURS));
}

static const char *disk_name(const json_t *disks, size_t i)
{
	return gw_qmp_text(json_array_get(disks, i), "disk");
}

/* What is in an image of format qcow2 and would not be in a copy; NULL: nothing. */
static const char *more_in(const json_t *image)
{
	const json_t *data = json_object_get(json_object_get(image, "format-specific"), "data");

	if (json_array_size(json_object_get(image, "snapshots")))
		return "internal snapshots ('qemu-img snapshot -l')";
	if (json_array_size(json_object_get(data, "bitmaps")))
		return "persistent dirty bitmaps";
	if (json_object_get(data, "data-file"))
		return "an external data file";
	if (json_object_get(data, "encrypt"))
		return "encryption";
	return NULL;
}

static json_t *disk_of(const char *disk, const json_t *inserted, const json_t *image)
{
	const json_t *data = json_object_get(json_object_get(image, "format-specific"), "data");
	const json_t *format = json_object_get(image, "backing-filename-format")
				       ?: json_object_get(json_object_get(image, "backing-image"),
							  "format");

	return json_pack("{s:s,s:O,s:O,s:O,s:O,s:O*,s:O*,s:O*,s:O*,s:O*}", "disk", disk, "node",
			 json_object_get(inserted, "node-name"), "file",
			 json_object_get(image, "filename"), "format",
			 json_object_get(image, "format"), "size",
			 json_object_get(image, "virtual-size"), "backing",
			 json_object_get(image, "backing-filename"), "backing-format", format,
			 "cluster-size", json_object_get(image, "cluster-size"), "compat",
			 json_object_get(data, "compat"), "extended-l2",
			 json_object_get(data, "extended-l2"));
}

bool gw_mirror_has_format(const char *format)
{
	/* The last two: a raw image without a format's node above it. */
	static const char *const formats[] = { "raw", "qcow2", "file", "host_device" };

	for (size_t i = 0; i < GW_ARRAY_SIZE(formats); i++)
		if (!strcmp(formats[i], format))
			return true;
	return false;
}

static int add_disk(void *disks, const char *disk, const json_t *entry)
{
	const json_t *inserted = json_object_get(entry, "inserted");
	const json_t *image = json_object_get(inserted, "image");
	const char *file = gw_qmp_text(image, "filename"), *format = gw_qmp_text(image, "format");
	const char *more = more_in(image);

	if (json_is_true(json_object_get(inserted, "ro")) ||
	    (strncmp(file, "json:", 5) != 0 && !gw_image_is_file(file)))
		return 0;
	if (!strncmp(file, "json:", 5))
		return gw_fail(-ENOTSUP,
			       "disk '%s' cannot be copied: its image is opened with options that "
			       "Godwit cannot make another of (%.300s)",
			       disk, file);
	if (!gw_mirror_has_format(format))
		return gw_fail(-ENOTSUP,
			       "disk '%s' cannot be copied: its format is '%s', and "
			       "copies are raw or qcow2",
			       disk, format);
	if (more)
		return gw_fail(-ENOTSUP,
			       "disk '%s' cannot be copied: %s has %s, which a copy made while it "
			       "is in use would not have",
			       disk, file, more);
	if (json_array_size(disks) == GW_MIRRORS_MAX)
		return gw_fail(-ENOTSUP, "the VM has more than %d disks to copy", GW_MIRRORS_MAX);
	json_array_append_new(disks, disk_of(disk, inserted, image));
	return 0;
}

int gw_mirror_disks(struct gw_qmp *q, json_t **disks)
{
	*disks = json_array();
	return gw_images_each(q, add_disk, *disks);
}

static int start_job(struct gw_qmp *q, const json_t *disks, size_t i, const char *sync)
{
	const struct name job = name_of(JOB, i), target = name_of(TARGET, i);

	return gw_qmp_call(q, "blockdev-mirror",
			   json_pack("{s:s,s:s,s:s,s:s,s:b}", "job-id", job.text, "device",
				     gw_qmp_text(json_array_get(disks, i), "node"), "target",
				     target.text, "sync", sync, "auto-dismiss", 0),
			   NULL);
}

int gw_mirror_begin(struct gw_qmp *q, const json_t *disks, size_t i, int fd)
{
	const struct name conn = name_of(OURS "storage-", i), export = name_of("", i);
	const json_t *disk = json_array_get(disks, i);
	int rc = gw_qmp_send_fd(q, conn.text, fd);

	if (!rc)
		rc = gw_qmp_call(q, "blockdev-add",
				 json_pack("{s:s,s:s,s:{s:s,s:s},s:s}", "driver", "nbd",
					   "node-name", name_of(TARGET, i).text, "server", "type",
					   "fd", "str", conn.text, "export", export.text),
				 NULL);
	if (!rc)
		rc = start_job(q, disks, i, json_object_get(disk, "backing") ? "top" : "full");
	return rc ? gw_fail_prefix(rc, "disk '%s' cannot be copied: ", gw_qmp_text(disk, "disk"))
		  : 0;
}

static const json_t *find_job(const json_t *list, size_t i)
{
	const struct name job = name_of(JOB, i);
	const json_t *entry;
	size_t k;

	json_array_foreach((json_t *)list, k, entry) {
		if (!strcmp(gw_qmp_text(entry, "id"), job.text))
			return entry;
	}
	return NULL;
}

static int failed(const json_t *disks, size_t i, const json_t *job)
{
	const char *error = gw_qmp_text(job, "error");

	return gw_fail(-EIO, "the copy of disk '%s' has failed: %s", disk_name(disks, i),
		       error[0] ? error : "QEMU has ended it");
}

int gw_mirror_look(struct gw_qmp *q, const json_t *disks, struct gw_mirrors *m)
{
	json_t *list = NULL;
	int rc = gw_qmp_call(q, "query-jobs", NULL, &list);

	*m = (struct gw_mirrors){ .ready = true };
	for (size_t i = 0; !rc && i < json_array_size(disks); i++) {
		const json_t *job = find_job(list, i);
		const char *status = gw_qmp_text(job, "status");

		if (!job || json_object_get(job, "error") || !strcmp(status, "concluded") ||
		    !strcmp(status, "aborting"))
			rc = failed(disks, i, job);
		m->total += (uint64_t)json_integer_value(json_object_get(job, "total-progress"));
		m->done += (uint64_t)json_integer_value(json_object_get(job, "current-progress"));
		m->ready = m->ready && !strcmp(status, "ready");
	}
	json_decref(list);
	return rc;
}

/* Jobs that were told to end do. */
static int await_end(struct gw_qmp *q, const json_t *disks, int64_t deadline)
{
	size_t over = 0;

	while (over < json_array_size(disks)) {
		json_t *list = NULL;
		int rc = gw_qmp_call(q, "query-jobs", NULL, &list);
		const json_t *job = find_job(list, over);

		if (!rc && (!job || json_object_get(job, "error")))
			rc = failed(disks, over, job);
		else if (!rc && !strcmp(gw_qmp_text(job, "status"), "concluded"))
			over++;
		else if (!rc && gw_now() >= deadline)
			rc = gw_fail(-ETIMEDOUT,
				     "disk '%s' is copied, but the destination has not written it "
				     "down in time",
				     disk_name(disks, over));
		else if (!rc)
			poll(NULL, 0, LOOK_MS);
		json_decref(list);
		if (rc)
			return rc;
	}
	return 0;
}

static int for_each_job(struct gw_qmp *q, const json_t *disks, const char *command, const char *key)
{
	struct gw_question asked[GW_MIRRORS_MAX] = { 0 };
	const size_t n = json_array_size(disks);
	int rc;

	for (size_t i = 0; i < n; i++)
		asked[i] = (struct gw_question){
			.command = command,
			.args = json_pack("{s:s}", key, name_of(JOB, i).text),
		};
	rc = gw_qmp_ask(q, asked, n);
	for (size_t i = 0; !rc && i < n; i++) {
		rc = gw_question_answer(&asked[i], NULL);
		if (rc)
			gw_fail_prefix(rc, "the copy of disk '%s': ", disk_name(disks, i));
	}
	gw_questions_free(asked, n);
	return rc;
}

int gw_mirror_end(struct gw_qmp *q, const json_t *disks, int64_t deadline)
{
	struct gw_mirrors m;
	int rc;

	/* One that is told to end cannot be told otherwise. */
	while (!(rc = gw_mirror_look(q, disks, &m)) && m.done < m.total) {
		if (gw_now() >= deadline)
			return gw_fail(-EAGAIN, "what the guest wrote last to its disks is still "
						"being copied");
		poll(NULL, 0, LOOK_MS);
	}
	if (!rc)
		rc = for_each_job(q, disks, "block-job-cancel", "device");
	if (!rc)
		rc = await_end(q, disks, deadline);
	return rc ? rc : for_each_job(q, disks, "job-dismiss", "id");
}

int gw_mirror_block(struct gw_qmp *q, const json_t *disks)
{
	int rc = 0;

	for (size_t i = 0; !rc && i < json_array_size(disks); i++)
		rc = gw_qmp_call(q, "block-job-change",
				 json_pack("{s:s,s:s,s:s}", "id", name_of(JOB, i).text, "type",
					   "mirror", "copy-mode", "write-blocking"),
				 NULL);
	return rc;
}

int gw_mirror_again(struct gw_qmp *q, const json_t *disks)
{
	int rc = 0;

	for (size_t i = 0; !rc && i < json_array_size(disks); i++)
		rc = start_job(q, disks, i, "none");
	return rc;
}

/* Jobs of ours that have not ended are told to (@tell); those that have are forgotten. */
static int end_jobs(struct gw_qmp *q, bool tell, size_t *left)
{
	json_t *list = NULL, *entry;
	size_t i;
	int rc = gw_qmp_call(q, "query-jobs", NULL, &list);

	*left = 0;
	json_array_foreach(list, i, entry) {
		const char *id = gw_qmp_text(entry, "id"), *status = gw_qmp_text(entry, "status");

		if (rc || !gw_mirror_is_ours(id))
			continue;
		if (!strcmp(status, "concluded")) {
			rc = gw_qmp_call(q, "job-dismiss", json_pack("{s:s}", "id", id), NULL);
			continue;
		}
		(*left)++;
		/* One that is ending by itself refuses, and ends. */
		if (tell &&
		    gw_qmp_call(q, "block-job-cancel",
				json_pack("{s:s,s:b}", "device", id, "force", 1), NULL) == -EPIPE)
			rc = -EPIPE;
	}
	json_decref(list);
	return rc;
}

static int remove_targets(struct gw_qmp *q)
{
	json_t *list = NULL, *entry;
	size_t i;
	int rc = gw_qmp_call(q, "query-named-block-nodes", json_pack("{s:b}", "flat", 1), &list);

	json_array_foreach(list, i, entry) {
		const char *node = gw_qmp_text(entry, "node-name");

		if (!rc && gw_mirror_is_ours(node))
			rc = gw_qmp_call(q, "blockdev-del", json_pack("{s:s}", "node-name", node),
					 NULL);
	}
	json_decref(list);
	return rc;
}

int gw_mirror_forget(struct gw_qmp *q)
{
	const int64_t deadline = gw_now() + GW_QMP_TIMEOUT_MS * GW_MS;
	size_t left;
	int rc = end_jobs(q, true, &left);

	while (!rc && left) {
		if (gw_now() >= deadline)
			return gw_fail(-ETIMEDOUT, "QEMU does not end the copy of its disks");
		poll(NULL, 0, LOOK_MS);
		rc = end_jobs(q, false, &left);
	}
	return rc ? rc : remove_targets(q);
}

static int add_node(void *nodes, const char *disk, const json_t *entry)
{
	const json_t *inserted = json_object_get(entry, "inserted");

	json_object_set(nodes, disk, json_object_get(inserted, "node-name"));
	return 0;
}

static int start_server(struct gw_qmp *q, const char *path)
{
	gw_autofd int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int rc;

	unlink(path);
	rc = fd < 0 ? -errno : gw_unix_bind(fd, path);
	if (!rc && listen(fd, GW_MIRRORS_MAX))
		rc = -errno;
	if (rc)
		return gw_fail(rc, "%s: %s", path, strerror(-rc));
	rc = gw_qmp_send_fd(q, OURS "storage", fd);
	return rc ? rc
		  : gw_qmp_call(q, "nbd-server-start",
				json_pack("{s:{s:s,s:{s:s}}}", "addr", "type", "fd", "data", "str",
					  OURS "storage"),
				NULL);
}

int gw_mirror_export(struct gw_qmp *q, const json_t *disks, const char *path)
{
	json_t *nodes = json_object();
	int rc = start_server(q, path);

	if (!rc)
		rc = gw_images_each(q, add_node, nodes);
	for (size_t i = 0; !rc && i < json_array_size(disks); i++) {
		const char *disk = disk_name(disks, i), *node = gw_qmp_text(nodes, disk);

		rc = !node[0] ? gw_fail(-ENOTSUP, "the VM's command line makes no disk '%s' here",
					disk)
			      : gw_qmp_call(q, "block-export-add",
					    json_pack("{s:s,s:s,s:s,s:s,s:b}", "type", "nbd", "id",
						      name_of(OURS "export-", i).text, "node-name",
						      node, "name", name_of("", i).text, "writable",
						      1),
					    NULL);
	}
	json_decref(nodes);
	return rc;
}

/* The place of the disk @image is of in @disks; -1: it is not there. */
static int place_of(const json_t *disks, const json_t *image)
{
	for (size_t k = 0; k < json_array_size(disks); k++)
		if (!strcmp(gw_qmp_text(image, "disk"), disk_name(disks, k)))
			return (int)k;
	return -1;
}

static bool is_top(const json_t *image)
{
	return !json_integer_value(json_object_get(image, "depth"));
}

void gw_mirror_shown(const json_t *disks, const char *path, json_t *images)
{
	json_t *image;
	size_t i;

	json_array_foreach(images, i, image) {
		const int k = is_top(image) ? place_of(disks, image) : -1;

		if (k < 0)
			continue;
		json_object_del(image, "node");
		json_object_set_new(image, "nbd",
				    json_pack("{s:s,s:s}", "socket", path, "export",
					      name_of("", (size_t)k).text));
	}
}

/* Whether what is right below @image is one of @images already. */
static bool has_below(const json_t *images, const json_t *image)
{
	const json_t *other;
	size_t i;

	json_array_foreach((json_t *)images, i, other) {
		if (json_integer_value(json_object_get(other, "depth")) == 1 &&
		    json_equal(json_object_get(other, "disk"), json_object_get(image, "disk")))
			return true;
	}
	return false;
}

void gw_mirror_below(const json_t *disks, json_t *images)
{
	for (size_t i = json_array_size(images); i > 0; i--) {
		json_t *image = json_array_get(images, i - 1);
		json_t *below = json_object_get(json_object_get(image, "node"), "backing");

		if (!is_top(image) || place_of(disks, image) < 0)
			continue;
		if (!json_is_object(below) || has_below(images, image)) {
			json_array_remove(images, i - 1);
			continue;
		}
		json_object_set_new(image, "depth", json_integer(1));
		json_object_set(image, "file",
				json_object_get(json_object_get(below, "file"), "filename"));
		json_object_set(image, "node", below);
	}
}

int gw_mirror_unexport(struct gw_qmp *q)
{
	return gw_qmp_call(q, "nbd-server-stop", NULL, NULL);
}
