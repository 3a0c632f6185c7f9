// SPDX-License-Identifier: GPL-2.0-or-later
/* budget.c - the memory of a host; see budget.h. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "cleanup.h"
#include "clock.h"
#include "error.h"
#include "io.h"
#include "log.h"
#include "budget_internal.h"
#include "promise.h"

/* What must stay free on the host beside all promises. */
#define RESERVE (64ULL << 20)

/* Promises are written down in moments: who holds the lock for longer than this hangs. */
#define LOCK_S	10
#define LOCK_MS 10

/* Below this share of memory free, it is worth a look what images have to give back. */
#define LOW_SHARE 8

/* A line of /proc/meminfo or /proc/PID/status, in bytes. */
static uint64_t figure(const char *path, const char *key)
{
	gw_autofree char *text = gw_read_file(path, 1 << 16, NULL);
	const char *at = text ? strstr(text, key) : NULL;

	return at ? strtoull(at + strlen(key), NULL, 10) << 10 : 0;
}

static uint64_t available(void)
{
	return figure("/proc/meminfo", "MemAvailable:");
}

/* What is reserved for a VM of @size that has @used. */
static uint64_t reserved(const struct gw_paths *p, uint64_t size, uint64_t used)
{
	const unsigned int percent = p->overcommit > 100 ? p->overcommit : 100;
	uint64_t share = size / percent * 100, grown = used + size / 8;

	if (percent == 100)
		return size;
	if (share < grown)
		share = grown;
	return share < size ? share : size;
}

/* Memory that the RAM files of @vm take. */
static uint64_t used_by(const struct gw_paths *p, const struct gw_vm *vm)
{
	uint64_t used = 0;
	struct stat st;

	if (vm->attached) {
		gw_autofree char *path = gw_path("/proc/%d/status", (int)vm->process.pid);
		const uint64_t size = gw_definition_bytes(&vm->def);

		if (!gw_process_alive(&vm->process))
			return size;
		used = figure(path, "RssShmem:");
		return used < size ? used : size;
	}
	for (unsigned int i = 0; i < vm->def.nr_memory; i++) {
		gw_autofree char *path = gw_vm_ram_path(p, &vm->def, i);

		if (!lstat(path, &st))
			used += (uint64_t)st.st_blocks * 512;
	}
	return used;
}

static void add_up(const struct gw_paths *p, const struct gw_vm *vm, struct gw_account *a)
{
	const uint64_t used = used_by(p, vm);
	const uint64_t all = reserved(p, gw_vm_promised(vm), used);
	const uint64_t expected = gw_at_least_zero(all, used);

	a->expected_all += expected;
	if (vm->attached)
		return;
	a->promised += all;
	a->used += used;
	a->expected[vm->def.discards] += expected;
}

struct stock {
	const struct gw_paths *p;
	struct gw_account *a;
};

/* Not overcommitted: what leaves another host leaves it because it is used. */
static void add_held(void *arg, const char *id, const struct gw_promise *promise)
{
	const struct stock *s = arg;
	const uint64_t size = promise->hold.size;
	uint64_t used, expected;

	if (promise->swap[0]) {
		s->a->swapped += size;
		if (s->p->swap && !strcmp(promise->swap, s->p->swap))
			s->a->swapped_here += size;
		return; /* and the disk is not asked: it may hang */
	}
	used = gw_promise_used(s->p, id, promise);
	expected = gw_at_least_zero(size, used);
	s->a->held += size;
	s->a->promised += size;
	s->a->used += used;
	s->a->expected[1] += expected;
	s->a->expected_all += expected;
}

void gw_budget_stock(const struct gw_paths *p, const char *except, struct gw_account *a)
{
	gw_autofree char *path = gw_path("%s/vm", p->run);
	DIR *dir = opendir(path);
	const struct dirent *e;

	memset(a, 0, sizeof(*a));
	while (dir && (e = readdir(dir))) {
		struct gw_vm vm;

		if (e->d_name[0] == '.' || (except && !strcmp(e->d_name, except)) ||
		    gw_vm_load(p, e->d_name, &vm))
			continue;
		add_up(p, &vm, a);
		gw_vm_free(&vm);
	}
	if (dir)
		closedir(dir);
	gw_promise_each(p, add_held, &(struct stock){ p, a });
	gw_error_clear();
}

static bool one_folder(const struct gw_paths *p)
{
	return !strcmp(p->ram, p->ram_small);
}

/* Bytes that the file system of a folder of RAM files has left. */
static uint64_t fs_free(const char *folder)
{
	struct statvfs fs;

	return statvfs(folder, &fs) ? 0 : (uint64_t)fs.f_bavail * fs.f_frsize;
}

/* What VMs that share the folder of those with or without @discards expect of it. */
static uint64_t expected_in(const struct gw_paths *p, const struct gw_account *a, bool discards)
{
	return one_folder(p) ? a->expected[0] + a->expected[1] : a->expected[discards];
}

static uint64_t least(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

uint64_t gw_budget_room(const struct gw_paths *p, bool discards, const char *except,
			const struct gw_account *a, uint64_t used)
{
	const char *folder = discards ? p->ram_small : p->ram;
	uint64_t here = fs_free(folder) + gw_image_held(&p->store, folder, except, false);
	uint64_t host = available() + gw_image_held(&p->store, NULL, except, false);
	uint64_t free;

	here = gw_at_least_zero(here + used, expected_in(p, a, discards));
	host = gw_at_least_zero(host + used, a->expected_all + RESERVE);
	free = least(here, host);
	if (p->limit)
		free = least(free,
			     gw_at_least_zero(p->limit, a->promised + gw_image_held(&p->store, NULL,
										    except, true)));
	return free;
}

/* What may be promised to @def, which uses @used of it already, where others have @a. */
static uint64_t room(const struct gw_paths *p, const struct gw_definition *def,
		     const struct gw_account *a, uint64_t used)
{
	return gw_budget_room(p, def && def->discards, def ? def->name : NULL, a, used);
}

uint64_t gw_budget_free(const struct gw_paths *p, const struct gw_definition *def)
{
	const unsigned int percent = p->overcommit > 100 ? p->overcommit : 100;
	struct gw_account a;
	uint64_t free;

	gw_budget_stock(p, def ? def->name : NULL, &a);
	free = room(p, def, &a, 0);
	return free / 100 * percent + free % 100 * percent / 100;
}

int gw_budget_lock(const struct gw_paths *p)
{
	gw_autofree char *path = gw_path("%s/vm", p->run);
	gw_autofd int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	const int64_t deadline = gw_now() + LOCK_S * GW_S;

	if (fd < 0)
		return gw_fail(-errno, "%s: %s", path, strerror(errno));
	while (flock(fd, LOCK_EX | LOCK_NB)) {
		if (errno != EWOULDBLOCK && errno != EINTR)
			return gw_fail(-errno, "%s: %s", path, strerror(errno));
		if (gw_now() > deadline)
			return gw_fail(-EBUSY,
				       "another VM that starts or arrives here has held %s for "
				       "%d s: its godwitd[...] process hangs",
				       path, LOCK_S);
		usleep(LOCK_MS * 1000);
	}
	return gw_steal_fd(&fd);
}

static int refuse(const struct gw_paths *p, const char *host, const struct gw_vm *vm,
		  const struct gw_account *a, uint64_t free)
{
	const uint64_t pinned = gw_image_held(&p->store, NULL, vm->def.name, true);
	char have[32], need[32], promised[32], kept[32];

	return gw_fail(-ENOMEM,
		       "host '%s' has %s of memory for another VM, '%s' needs %s (other VMs "
		       "there were promised %s, pinned images hold %s): stop or move a VM, choose "
		       "another host, or see memory-overcommit in godwit.conf(5)",
		       host, gw_format_size(free, have, sizeof(have)), vm->def.name,
		       gw_format_size(gw_vm_promised(vm), need, sizeof(need)),
		       gw_format_size(a->promised, promised, sizeof(promised)),
		       gw_format_size(pinned, kept, sizeof(kept)));
}

/* Promise @vm @size bytes, of which it will use @resident, and uses @used already. */
static int promise(const struct gw_paths *p, const char *host, const struct gw_vm *vm,
		   uint64_t size, uint64_t resident, uint64_t used)
{
	gw_autofd int lock = gw_budget_lock(p);
	struct gw_account a;
	uint64_t free;

	if (lock < 0)
		return lock;
	gw_budget_stock(p, vm->def.name, &a);
	free = room(p, &vm->def, &a, used);
	return free < reserved(p, size, resident) ? refuse(p, host, vm, &a, free)
						  : gw_vm_save(p, vm);
}

int gw_budget_reserve(const struct gw_paths *p, const char *host, const struct gw_vm *vm,
		      uint64_t resident)
{
	return promise(p, host, vm, gw_vm_promised(vm), resident, 0);
}

int gw_budget_grow(const struct gw_paths *p, const char *host, const struct gw_vm *vm)
{
	const uint64_t used = used_by(p, vm);

	return promise(p, host, vm, gw_vm_promised(vm), used, used);
}

/* What images have to give back. */
static uint64_t owed(void *arg)
{
	const struct gw_paths *p = arg;
	const uint64_t images = gw_image_held(&p->store, NULL, NULL, false) +
				gw_image_held(&p->store, NULL, NULL, true);
	const uint64_t reserve = figure("/proc/meminfo", "MemTotal:") / 32;
	uint64_t most;
	struct gw_account a;

	gw_budget_stock(p, NULL, &a);
	most = gw_at_least_zero(a.expected_all + (reserve > RESERVE ? reserve : RESERVE),
				available());
	for (int discards = 0; discards < 2; discards++) {
		const uint64_t lacks = gw_at_least_zero(expected_in(p, &a, discards),
							fs_free(discards ? p->ram_small : p->ram));

		most = lacks > most ? lacks : most;
	}
	if (p->limit) {
		const uint64_t over = gw_at_least_zero(a.promised + images, p->limit);

		most = over > most ? over : most;
	}
	return most;
}

uint64_t gw_budget_make_room(const struct gw_paths *p, int64_t deadline)
{
	return gw_image_yield(&p->store, owed, (void *)p, deadline);
}

static bool has_images(const struct gw_paths *p)
{
	const char *const folders[] = { p->ram, p->ram_small };

	for (size_t i = 0; i < GW_ARRAY_SIZE(folders); i++) {
		gw_autofree char *kept = gw_path("%s/kept", folders[i]);

		if (!access(kept, F_OK))
			return true;
	}
	return false;
}

bool gw_budget_is_low(const struct gw_paths *p)
{
	const char *const folders[] = { p->ram, p->ram_small };
	uint64_t used = 0;

	if (!has_images(p))
		return false;
	if (available() < figure("/proc/meminfo", "MemTotal:") / LOW_SHARE)
		return true;
	for (size_t i = 0; i < GW_ARRAY_SIZE(folders); i++) {
		struct statvfs fs;

		if (statvfs(folders[i], &fs))
			continue;
		if (fs.f_bavail < fs.f_blocks / LOW_SHARE)
			return true;
		used += (uint64_t)(fs.f_blocks - fs.f_bavail) * fs.f_frsize;
	}
	/* Either tmpfs may have all of the limit: the two together may not. */
	return p->mounted && p->limit && used > p->limit - p->limit / LOW_SHARE;
}
