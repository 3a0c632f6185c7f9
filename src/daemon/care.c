// SPDX-License-Identifier: GPL-2.0-or-later
/* care.c - which VMs need no looking after for now; see care.h. */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "care.h"
#include "cleanup.h"
#include "clock.h"
#include "error.h"
#include "io.h"
#include "record.h"

#define BUCKETS 1024

/* How long one is left alone at most; spread, so that not all are due at once. */
#define QUIET_NS (60 * GW_S)

struct entry {
	struct entry *next;
	char name[GW_NAME_MAX];
	int pidfd; /* -1: its QEMU has ended */
	struct gw_watch *watch;
	struct gw_care *care;
	int64_t until;
	unsigned int asked; /* number of the sweep that last asked of it */
};

struct gw_care {
	struct gw_loop *loop;
	const struct gw_paths *paths;
	struct entry *buckets[BUCKETS];
	unsigned int sweep;
	unsigned int loud;	 /* VMs of this sweep that are not quiet */
	bool restless;		 /* there were such, or something has happened since */
	int64_t next;		 /* when the first quiet one is due */
	struct timespec changed; /* the VMs' folder, when the sweep began */
};

static unsigned int hash(const char *name)
{
	unsigned int h = 2166136261U;

	for (; *name; name++)
		h = (h ^ (unsigned char)*name) * 16777619U;
	return h;
}

struct gw_care *gw_care_new(struct gw_loop *loop, const struct gw_paths *paths)
{
	struct gw_care *care = calloc(1, sizeof(*care));

	if (!care)
		return NULL;
	care->loop = loop;
	care->paths = paths;
	care->restless = true;
	care->next = GW_FOREVER;
	return care;
}

static void let_go(struct entry *e)
{
	gw_loop_remove(e->care->loop, e->watch);
	e->watch = NULL;
	if (e->pidfd >= 0)
		close(e->pidfd);
	e->pidfd = -1;
}

void gw_care_free(struct gw_care *care)
{
	for (size_t i = 0; care && i < BUCKETS; i++)
		while (care->buckets[i]) {
			struct entry *e = care->buckets[i];

			care->buckets[i] = e->next;
			let_go(e);
			free(e);
		}
	free(care);
}

static struct entry *find(const struct gw_care *care, const char *name)
{
	struct entry *e = care->buckets[hash(name) % BUCKETS];

	while (e && strcmp(e->name, name) != 0)
		e = e->next;
	return e;
}

/* A VM has come or gone; or may have, just after the last look at the clock's last tick. */
static bool folder_changed(struct gw_care *care)
{
	gw_autofree char *path = gw_path("%s/vm", care->paths->run);
	struct timespec now;
	struct stat st;
	bool same;

	if (stat(path, &st))
		return true;
	clock_gettime(CLOCK_REALTIME, &now);
	same = st.st_mtim.tv_sec == care->changed.tv_sec &&
	       st.st_mtim.tv_nsec == care->changed.tv_nsec && now.tv_sec - st.st_mtim.tv_sec > 1;
	care->changed = st.st_mtim;
	return !same;
}

bool gw_care_idle(struct gw_care *care)
{
	const bool changed = folder_changed(care);

	return !changed && !care->restless && gw_now() < care->next;
}

void gw_care_wake(struct gw_care *care, const char *name)
{
	struct entry *e = name[0] ? find(care, name) : NULL;

	if (e)
		let_go(e);
	care->restless = true;
}

bool gw_care_quiet(struct gw_care *care, const char *name)
{
	struct entry *e = find(care, name);

	if (e)
		e->asked = care->sweep;
	if (e && e->pidfd >= 0 && gw_now() < e->until)
		return true;
	care->loud++;
	return false;
}

static void on_qemu_end(void *arg)
{
	struct entry *e = arg;

	e->care->restless = true; /* the next sweep looks */
	let_go(e);
}

/* A pidfd of the VM's QEMU if it simply runs here, or -1. */
static int open_settled(const struct gw_care *care, const char *name)
{
	gw_autofree char *dir = gw_vm_dir(care->paths, name);
	gw_autofree char *journal = gw_path("%s/journal.json", dir);
	gw_autofd int lock = access(journal, F_OK) ? gw_vm_lock(care->paths, name) : -1;
	struct gw_vm vm;
	int fd;

	if (lock < 0 || gw_vm_load(care->paths, name, &vm))
		return -1;
	fd = vm.process.pid ? gw_process_open(&vm.process) : -1;
	gw_vm_free(&vm);
	return fd < 0 ? -1 : fd;
}

void gw_care_looked(struct gw_care *care, const char *name)
{
	struct entry *e = find(care, name);
	int fd = open_settled(care, name);

	gw_error_clear(); /* what is not settled is nobody's failure */
	if (fd < 0 || strlen(name) >= GW_NAME_MAX) {
		if (e)
			let_go(e);
		if (fd >= 0)
			close(fd);
		return;
	}
	if (!e) {
		e = calloc(1, sizeof(*e));
		if (!e) {
			close(fd);
			return;
		}
		e->care = care;
		e->pidfd = -1;
		e->asked = care->sweep;
		memcpy(e->name, name, strlen(name) + 1);
		e->next = care->buckets[hash(name) % BUCKETS];
		care->buckets[hash(name) % BUCKETS] = e;
	}
	let_go(e);
	e->pidfd = fd;
	e->watch = gw_loop_add(care->loop, fd, on_qemu_end, e);
	if (!e->watch) {
		let_go(e);
		return;
	}
	care->loud--;
	e->until = gw_now() + QUIET_NS + (int64_t)(hash(name) % 64) * GW_S;
}

void gw_care_forget(struct gw_care *care)
{
	care->next = GW_FOREVER;
	for (size_t i = 0; i < BUCKETS; i++) {
		struct entry **at = &care->buckets[i];

		while (*at) {
			struct entry *e = *at;

			if (e->asked == care->sweep) {
				if (e->until < care->next)
					care->next = e->until;
				at = &e->next;
				continue;
			}
			*at = e->next;
			let_go(e);
			free(e);
		}
	}
	care->restless = care->loud > 0;
	care->loud = 0;
	care->sweep++;
}
