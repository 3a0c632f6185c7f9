// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * image_cache.c - keep the host's images within their quotas.
 *
 *   too much in memory ──> demote images, oldest first ──> evict pages ──> drop images
 *   too much on disk   ──> drop images, oldest first
 *
 * What a page is worth is its age: how many departures its content has
 * survived. What changed between the last two is likely to have changed again
 * when the VM comes back, and then its bytes are of no use. Where RAM files have
 * huge pages, whole ones are evicted, at the average age of their pages: the
 * kernel would split one that is punched in part, and the VM that comes back
 * would have it in small pages.
 *
 * Memory that was promised to VMs is not theirs: whoever is about to use it, or
 * sees that there is not enough left, says how much they have to give back
 * (daemon/budget.c). That is asked again when what was freed has been counted.
 *
 * A page is evicted by punching it out of the kept RAM file, under the image's
 * lock and only while the file is kept: never out of the memory of a VM.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cleanup.h"
#include "clock.h"
#include "error.h"
#include "image_internal.h"
#include "io.h"
#include "log.h"

#define UNIT_MAX 512UL /* pages in a huge page */
#define LEVELS	 256   /* departures that are told apart, and one for pages of no worth */

/* What has to be freed, and what has been. */
struct balance {
	const struct gw_store *st;
	struct gw_image *images; /* oldest first */
	size_t nr;
	uint64_t target, freed;
	int64_t deadline; /* of demotion: it may be slow, and somebody may wait */
};

static bool evictable(const struct gw_store *st, const struct gw_image *image)
{
	return !image->on_disk && !image->pinned && image->bytes && gw_image_is_kept(st, image);
}

static bool enough(const struct balance *b)
{
	return b->freed >= b->target;
}

static uint64_t used(const struct balance *b, bool on_disk, bool only_pinned)
{
	uint64_t bytes = 0;

	for (size_t i = 0; i < b->nr; i++)
		if (b->images[i].on_disk == on_disk && (b->images[i].pinned || !only_pinned))
			bytes += b->images[i].bytes;
	return bytes;
}

static void demote(struct balance *b)
{
	const uint64_t pinned = used(b, true, true);

	if (!b->st->disk || b->st->disk_quota <= pinned)
		return;
	for (size_t i = 0; i < b->nr && !enough(b); i++) {
		struct gw_image *image = &b->images[i];
		int rc;

		if (!evictable(b->st, image))
			continue;
		rc = gw_image_demote(b->st, image, b->st->disk_quota - pinned, b->deadline);
		if (!rc) {
			gw_info("the image of VM '%s' is on disk now", image->name);
			b->freed += image->bytes;
			image->on_disk = true;
			gw_image_measure(b->st, image);
		} else if (rc == -ETIME) {
			gw_info("the image of VM '%s' is not put on disk: the disk is slow, and its "
				"memory is wanted",
				image->name);
			return;
		} else if (rc != -EBUSY && rc != -ESTALE && rc != -ENOENT) {
			/* What ails the disk would ail the next one too. */
			gw_warn("the image of VM '%s' stays in memory: %s", image->name,
				gw_error());
			return;
		}
	}
}

/* The image's lock, if it is still what it was when the list was made. -errno if not. */
static int lock_same(const struct balance *b, const struct gw_image *image)
{
	int lock = gw_image_lock(b->st, image->name, false), rc;
	struct gw_image now;

	if (lock < 0)
		return lock;
	rc = gw_manifest_read(b->st, image->name, image->on_disk, &now);
	if (!rc && gw_manifest_same(&now, image) && !now.pinned)
		return lock;
	gw_image_unlock(b->st, image->name, lock);
	return rc ? rc : -ESTALE;
}

/* Remove @image. Its lock is held. */
static void drop(struct balance *b, struct gw_image *image)
{
	int rc = image->on_disk ? gw_image_remove_disk(b->st, image->name)
				: gw_image_remove_memory(b->st, image->name);

	if (rc) {
		gw_warn("%s", gw_error());
		return;
	}
	gw_info("the image of VM '%s' is gone: no room", image->name);
	if (!image->on_disk)
		b->freed += image->bytes;
	image->bytes = 0;
}

/* Pages that come free together in @b's file. */
static size_t unit_of(const struct gw_ram *ram, const struct gw_memory_block *b)
{
	struct stat st;
	size_t pages = fstat(ram->files[b - ram->memory.blocks].fd, &st)
			       ? 1
			       : (size_t)st.st_blksize / GW_PAGE_SIZE;

	return pages < 1 ? 1 : pages > UNIT_MAX ? UNIT_MAX : pages;
}

/* The average age of the pages in [first, first + count), from 1; 0: they are zero. */
static unsigned int level_of(const struct gw_ledger *l, size_t first, size_t count)
{
	const uint32_t newest = gw_ledger_departures(l);
	uint64_t sum = 0;
	size_t nr = 0;

	for (size_t page = first; page < first + count; page++) {
		const uint32_t age = newest - l->generations[page];

		if (gw_digest_is_zero(l->digests[page]))
			continue;
		sum += age < LEVELS - 2 ? age : LEVELS - 2;
		nr++;
	}
	return nr ? 1 + (unsigned int)(sum / nr) : 0;
}

/* A run of pages that are punched together. */
struct run {
	size_t first, end;
};

static int punch(const struct gw_ram *ram, const struct run *run)
{
	return run->end > run->first
		       ? gw_memory_punch(&ram->memory, run->first, run->end - run->first)
		       : 0;
}

/* What a walk over the pages of an image is for: to add up @bytes, or else to punch. */
struct walk {
	const struct gw_ram *ram;
	const struct gw_ledger *ledger;
	uint64_t *bytes;    /* of data at each level; NULL: punch those of @level */
	unsigned int level; /* until no more is wanted */
	uint64_t want;
};

/* The units of @b that have data in [from, to), which is all data. */
static int walk_run(struct walk *w, const struct gw_memory_block *b, size_t unit, size_t from,
		    size_t to, struct run *run)
{
	const size_t end = b->first_page + b->nr_pages;
	int rc = 0;

	for (size_t next; !rc && from < to && (w->bytes || w->want); from = next) {
		const size_t first = from - (from - b->first_page) % unit;
		const size_t after = end - first < unit ? end : first + unit;
		const unsigned int level = level_of(w->ledger, first, after - first);
		uint64_t data;

		next = after < to ? after : to;
		data = (next - from) * GW_PAGE_SIZE;
		if (w->bytes)
			w->bytes[level] += data;
		if (w->bytes || level != w->level)
			continue;
		if (run->end < first) {
			rc = punch(w->ram, run);
			run->first = first;
		}
		run->end = after;
		w->want -= data < w->want ? data : w->want;
	}
	return rc;
}

static int walk_files(struct walk *w)
{
	struct gw_memory_walk walk = gw_memory_walk(&w->ram->memory);
	const struct gw_memory_block *b = NULL;
	struct run run = { 0, 0 };
	size_t first, stop, unit = 1;
	int rc;

	while ((rc = gw_memory_walk_next(&walk, &first, &stop)) > 0) {
		const struct gw_memory_block *of = gw_memory_block_of(&w->ram->memory, first);

		if (of && of != b) {
			rc = punch(w->ram, &run);
			b = of;
			unit = unit_of(w->ram, b);
			run = (struct run){ b->first_page, b->first_page };
		}
		if (rc >= 0 && b)
			rc = walk_run(w, b, unit, first, stop, &run);
		if (rc < 0)
			break;
	}
	return punch(w->ram, &run) ?: rc;
}

/* The pages of one image that is in memory: what they are worth, or away with those of @level. */
static void walk_image(struct balance *b, struct gw_image *image, uint64_t bytes[LEVELS],
		       unsigned int level)
{
	struct walk w = { .ledger = &image->ledger,
			  .bytes = bytes,
			  .level = level,
			  .want = enough(b) ? 0 : b->target - b->freed };
	const uint64_t before = image->bytes;
	int lock = lock_same(b, image), rc;
	struct gw_ram ram;

	if (lock < 0)
		return;
	rc = gw_image_open_kept(b->st, image, &ram);
	w.ram = &ram;
	if (!rc)
		rc = walk_files(&w);
	if (rc && rc != -ENOENT)
		gw_warn("the image of VM '%s': %s", image->name, gw_error());
	if (!bytes) {
		gw_image_measure(b->st, image);
		b->freed += before > image->bytes ? before - image->bytes : 0;
		if (!rc && !gw_memory_resident(&ram.memory))
			drop(b, image);
	}
	gw_ram_close(&ram);
	gw_image_unlock(b->st, image->name, lock);
}

static void evict_pages(struct balance *b)
{
	uint64_t bytes[LEVELS] = { 0 };

	for (size_t i = 0; i < b->nr; i++) {
		struct gw_image *image = &b->images[i];
		gw_autofree char *path = gw_path("%s/%s/ledger", b->st->images, image->name);

		if (!evictable(b->st, image))
			continue;
		if (gw_ledger_open(&image->ledger, path) ||
		    image->ledger.nr_pages != gw_image_pages(image))
			gw_ledger_close(&image->ledger);
		else
			walk_image(b, image, bytes, 0);
	}
	for (unsigned int level = 0; level < LEVELS; level++)
		for (size_t i = 0; bytes[level] && i < b->nr && !enough(b); i++)
			if (evictable(b->st, &b->images[i]) && b->images[i].ledger.head)
				walk_image(b, &b->images[i], NULL, level);
	for (size_t i = 0; i < b->nr; i++)
		gw_ledger_close(&b->images[i].ledger);
}

static void evict_images(struct balance *b, bool on_disk)
{
	for (size_t i = 0; i < b->nr; i++) {
		struct gw_image *image = &b->images[i];
		int lock;

		if (on_disk ? used(b, true, false) <= b->st->disk_quota : enough(b))
			return;
		if (on_disk ? !image->on_disk || image->pinned : !evictable(b->st, image))
			continue;
		lock = lock_same(b, image);
		if (lock < 0)
			continue;
		drop(b, image);
		gw_image_unlock(b->st, image->name, lock);
	}
}

/* Look at what there is, and at how much of it has to go. */
static int look(struct balance *b, uint64_t (*need)(void *arg), void *arg)
{
	uint64_t have, over, asked;

	free(b->images);
	if (gw_images_read(b->st, &b->images, &b->nr)) {
		gw_warn("images are not brought within their quota: %s", gw_error());
		return -EIO;
	}
	have = used(b, false, false);
	over = have > b->st->quota ? have - b->st->quota : 0;
	asked = need(arg);
	b->freed = 0;
	b->target = asked > over ? asked : over;
	return 0;
}

uint64_t gw_image_yield(const struct gw_store *st, uint64_t (*need)(void *arg), void *arg,
			int64_t deadline)
{
	struct balance b = { .st = st, .deadline = deadline };
	uint64_t freed = 0, progress = 1;
	gw_autofd int all = -1;

	/* The store's lock is not held while an image is copied: others must not wait for that. */
	if (st->disk && st->disk_quota) {
		gw_autofd int demoting = gw_demotion_lock(st, deadline == GW_FOREVER);

		if (demoting >= 0 && !look(&b, need, arg) && !enough(&b)) {
			demote(&b);
			freed += b.freed;
		}
	}
	all = gw_images_lock(st);
	while (all >= 0 && progress && !look(&b, need, arg) && !enough(&b)) {
		evict_pages(&b);
		if (!enough(&b))
			evict_images(&b, false);
		progress = b.freed;
		freed += progress;
	}
	if (all >= 0 && st->disk)
		evict_images(&b, true);
	if (all < 0)
		gw_warn("images are not brought within their quota: %s", gw_error());
	free(b.images);
	return freed;
}

uint64_t gw_image_held(const struct gw_store *st, const char *ram, const char *except, bool pinned)
{
	gw_autofree struct gw_image *images = NULL;
	uint64_t bytes = 0;
	size_t nr;

	if (gw_images_read(st, &images, &nr))
		return 0;
	for (size_t i = 0; i < nr; i++) {
		const char *of = images[i].discards ? st->ram_small : st->ram;
		const bool stays = images[i].pinned && (!except || strcmp(except, images[i].name));

		if (stays == pinned && (!ram || !strcmp(ram, of)))
			bytes += gw_image_kept_bytes(st, &images[i]);
	}
	return bytes;
}
