// SPDX-License-Identifier: GPL-2.0-or-later
/* agent_find.c - which socket is the agent's, and what a guest calls its disks; see agent.h. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "abi.h"
#include "agent.h"
#include "cleanup.h"
#include "error.h"
#include "hints.h"
#include "images.h"
#include "io.h"

/* A property of an object; NULL: it has none. The caller's. */
static json_t *property(struct gw_qmp *q, const char *path, const char *name)
{
	json_t *value = NULL;

	if (gw_qmp_call(q, "qom-get", json_pack("{s:s,s:s}", "path", path, "property", name),
			&value)) {
		gw_error_clear();
		return NULL;
	}
	return value;
}

static json_int_t number_of(struct gw_qmp *q, const char *path, const char *name)
{
	json_t *value = property(q, path, name);
	const json_int_t n = json_is_integer(value) ? json_integer_value(value) : -1;

	json_decref(value);
	return n;
}

static bool is_port(struct gw_qmp *q, const char *path)
{
	json_t *name = property(q, path, "name");
	const bool is = json_is_string(name) && !strcmp(json_string_value(name), GW_AGENT_PORT);

	json_decref(name);
	return is;
}

/* The chardev of the agent's port, if it is below @folder; the caller's. */
static json_t *chardev_below(struct gw_qmp *q, const char *folder)
{
	json_t *list = NULL, *entry, *found = NULL;
	size_t i;

	if (gw_qmp_call(q, "qom-list", json_pack("{s:s}", "path", folder), &list))
		gw_error_clear();
	json_array_foreach(list, i, entry) {
		gw_autofree char *path = gw_path("%s/%s", folder, gw_qmp_text(entry, "name"));

		if (found || strcmp(gw_qmp_text(entry, "type"), "child<virtserialport>") != 0 ||
		    !is_port(q, path))
			continue;
		found = property(q, path, "chardev");
	}
	json_decref(list);
	return found;
}

/* "disconnected:unix:/run/x.sock,server=on" */
static char *socket_of(const char *filename)
{
	const char *unix_at = strstr(filename, "unix:");

	if (!unix_at || !strstr(unix_at, ",server"))
		return NULL;
	unix_at += strlen("unix:");
	return strndup(unix_at, strcspn(unix_at, ","));
}

int gw_agent_find(struct gw_qmp *q, char **path)
{
	json_t *label = chardev_below(q, "/machine/peripheral-anon")
				?: chardev_below(q, "/machine/peripheral");
	json_t *list = NULL, *entry;
	bool open = false;
	size_t i;
	int rc = label ? gw_qmp_call(q, "query-chardev", NULL, &list) : 0;

	*path = NULL;
	json_array_foreach(list, i, entry)
		if (!*path && json_is_string(label) &&
		    !strcmp(gw_qmp_text(entry, "label"), json_string_value(label))) {
			*path = socket_of(gw_qmp_text(entry, "filename"));
			open = json_is_true(json_object_get(entry, "frontend-open"));
		}
	json_decref(list);
	json_decref(label);
	if (!rc && !*path)
		rc = gw_fail(-ENOENT, "the VM has no port %s with a socket for it", GW_AGENT_PORT);
	else if (!rc && !open)
		rc = gw_fail(
			-ENOENT,
			"nobody in the guest has its port %s open: is godwit-agent running there?",
			GW_AGENT_PORT);
	if (rc) {
		free(*path);
		*path = NULL;
	}
	return rc;
}

/* Of a device whose bus is @bus's: slot and function of what that is, or of itself. */
static int slot_of(struct gw_qmp *q, const char *path, char key[64])
{
	const json_int_t own = number_of(q, path, "addr");
	json_t *bus = own < 0 ? property(q, path, "parent_bus") : NULL;
	gw_autofree char *above = json_is_string(bus) ? strdup(json_string_value(bus)) : NULL;
	char *end = above ? strrchr(above, '/') : NULL;
	json_int_t addr = own;

	if (end) {
		*end = '\0';
		end = strstr(above, "/virtio-backend");
		if (end)
			*end = '\0';
		addr = number_of(q, above, "addr");
	}
	json_decref(bus);
	if (addr < 0)
		return -ENOENT;
	snprintf(key, 64, "%02x.%x", (unsigned int)addr >> 3 & 0x1f, (unsigned int)addr & 7);
	if (own < 0)
		snprintf(key + strlen(key), 64 - strlen(key), "/%d:%d:%d",
			 (int)number_of(q, path, "channel"), (int)number_of(q, path, "scsi-id"),
			 (int)number_of(q, path, "lun"));
	return 0;
}

struct slots {
	struct gw_qmp *q;
	json_t *disks;
};

static int add_slot(void *arg, const char *disk, const json_t *entry)
{
	const struct slots *s = arg;
	const json_t *image = json_object_get(json_object_get(entry, "inserted"), "image");
	const char *qdev = gw_qmp_text(entry, "qdev");
	gw_autofree char *path = gw_path("%s%s", qdev[0] == '/' ? "" : "/machine/peripheral/",
					 qdev);
	char key[64], *end = strstr(path, "/virtio-backend");

	if (end)
		*end = '\0';
	if (!image || !qdev[0] || slot_of(s->q, path, key))
		return 0;
	json_array_append_new(s->disks,
			      json_pack("{s:s,s:s,s:I}", "disk", disk, "key", key, "sectors",
					json_integer_value(json_object_get(image, "virtual-size")) /
						(json_int_t)GW_SECTOR_SIZE));
	return 0;
}

int gw_agent_disks(struct gw_qmp *q, json_t **disks)
{
	struct slots s = { q, json_array() };

	*disks = s.disks;
	return gw_images_each(q, add_slot, &s);
}

/* "pci:0000:00:03.0" is "03.0", "scsi:0000:00:04.0/0:3:2" is "04.0/0:3:2". */
static const char *key_of(const char *text)
{
	for (int colons = 0; *text; text++)
		if (*text == ':' && ++colons == 3)
			return text + 1;
	return "";
}

const char *gw_agent_match(const json_t *disks, const char *text, uint64_t sectors)
{
	const char *found = NULL;
	const json_t *disk;
	size_t i;

	json_array_foreach(disks, i, disk) {
		if ((uint64_t)json_integer_value(json_object_get(disk, "sectors")) != sectors ||
		    strcmp(gw_qmp_text(disk, "key"), key_of(text)) != 0)
			continue;
		if (found)
			return NULL;
		found = gw_qmp_text(disk, "disk");
	}
	return found;
}

int gw_agent_connect(pid_t pid, const char *path)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	gw_autofree char *whole = gw_path("/proc/%d/%s%s", (int)pid,
					  path[0] == '/' ? "root" : "cwd/", path);
	gw_autofd int at = open(whole, O_PATH | O_CLOEXEC);
	gw_autofd int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (at < 0)
		return gw_fail(-errno, "the agent's socket %s: %s", path, strerror(errno));
	/* Its own name may be too long for an address, and is another namespace's. */
	snprintf(addr.sun_path, sizeof(addr.sun_path), "/proc/self/fd/%d", at);
	if (fd < 0 || connect(fd, (const struct sockaddr *)&addr, sizeof(addr)))
		return gw_fail(-errno, "the agent's socket %s: %s", path, strerror(errno));
	return gw_steal_fd(&fd);
}
