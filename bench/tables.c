// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * tables: what is done with each page of a VM once, by one thread, per GiB of it.
 *
 * Ledgers (made, packed, unpacked, written, opened), the comparison of an image with
 * its ledger, digests of blocks, and an image's way to disk and back. Memory is
 * random data, half of which compresses; the files lie in FOLDER, which should be
 * a tmpfs. Prints one JSON object: the median of the passes, in ms of a processor
 * per GiB.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "cleanup.h"
#include "clock.h"
#include "error.h"
#include "image_internal.h"
#include "io.h"
#include "log.h"
#include "memory.h"
#include "own.h"
#include "pipeline.h"
#include "ram.h"

#define PAGES  (1UL << 17) /* 512 MiB */
#define PASSES 3
#define TO_GIB (262144.0 / PAGES)

enum what {
	DEPART,
	PACK,
	UNPACK,
	SEAL,
	OPEN,
	COMPARE,
	BLOCKS,
	DEMOTE,
	PROMOTE,
	COUNT
};

static const char *const names[COUNT] = { "ledger-depart", "ledger-pack",   "ledger-unpack",
					  "ledger-seal",   "ledger-open",   "image-compare",
					  "blocks",	   "image-to-disk", "image-from-disk" };

static int64_t spent[COUNT][PASSES], began;

static struct {
	struct gw_definition def;
	struct gw_store st;
	struct gw_key key;
	struct gw_ram ram;
	struct gw_digests now;
	char *paths[2];
} vm;

static void must(int rc)
{
	if (!rc)
		return;
	fprintf(stderr, "tables: %s\n", gw_error());
	exit(1);
}

/* Of the processor: on a busy machine the clock tells of others. */
static int64_t used(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return t.tv_sec * GW_S + t.tv_nsec;
}

static void start(void)
{
	began = used();
}

static void stop(enum what what, int pass)
{
	spent[what][pass] = used() - began;
}

static void make_memory(void)
{
	static uint8_t page[GW_PAGE_SIZE];
	int fd = open(vm.paths[0], O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

	if (fd < 0 || ftruncate(fd, PAGES * GW_PAGE_SIZE)) {
		perror(vm.paths[0]);
		exit(1);
	}
	must(gw_ram_add(&vm.ram, "m", fd, PAGES * GW_PAGE_SIZE, 0));
	for (size_t i = 0; i < PAGES; i++) {
		memset(page, 0, sizeof(page));
		if (getrandom(page, i % 2 ? 256 : sizeof(page), 0) < 0)
			exit(1);
		must(gw_memory_write(&vm.ram.memory, i, 1, page));
		gw_digests_set(&vm.now, i, gw_key_page(&vm.key, page));
	}
}

static void ledger(int pass, struct gw_ledger *l)
{
	static uint8_t part[GW_LEDGER_PART_MAX];
	const uint8_t id[GW_ID_LEN] = { (uint8_t)(pass + 1) };
	struct gw_ledger there;

	must(gw_image_begin(&vm.st, vm.def.name, PAGES, l));
	gw_ledger_set_key(l, vm.key.id);
	start();
	must(gw_ledger_depart(l, NULL, &vm.now, id));
	stop(DEPART, pass);
	must(gw_ledger_create(&there, NULL, PAGES));
	gw_ledger_add(&there, id);
	for (size_t first = 0; first < PAGES; first += GW_LEDGER_PART) {
		long len;

		start();
		len = gw_ledger_pack(l, first, 0, part);
		spent[PACK][pass] += used() - began;
		must(len < 0 ? (int)len : 0);
		start();
		must(gw_ledger_unpack(&there, first, NULL, 0, part, (size_t)len));
		spent[UNPACK][pass] += used() - began;
	}
	gw_ledger_close(&there);
}

static void blocks(int pass)
{
	static uint8_t page[GW_PAGE_SIZE];
	struct gw_blocks digests;

	start();
	for (size_t i = 0; i < PAGES; i++) {
		must(gw_memory_read(&vm.ram.memory, i, 1, page));
		gw_blocks_of(&vm.key, page, &digests);
	}
	stop(BLOCKS, pass);
}

static void one_pass(int pass)
{
	struct gw_image image;
	struct gw_bitmap absent;
	struct gw_ledger l;

	ledger(pass, &l);
	start();
	must(gw_image_finish(&vm.st, &vm.def, vm.paths, &l)); /* which writes it */
	stop(SEAL, pass);
	start();
	must(gw_image_load(&vm.st, vm.def.name, &image));
	stop(OPEN, pass);
	must(gw_bitmap_init(&absent, PAGES));
	start();
	must(gw_image_absent(&image, &vm.key, &vm.ram.memory, 0, PAGES, &absent));
	stop(COMPARE, pass);
	gw_bitmap_free(&absent);
	blocks(pass);
	start();
	must(gw_image_demote(&vm.st, &image, UINT64_MAX, GW_FOREVER));
	stop(DEMOTE, pass);
	gw_image_close(&image);
	must(gw_image_load(&vm.st, vm.def.name, &image));
	start();
	must(gw_image_take(&vm.st, &image, vm.paths, GW_FOREVER));
	stop(PROMOTE, pass);
	gw_image_close(&image);
	must(gw_image_drop(&vm.st, vm.def.name));
}

static int by_time(const void *a, const void *b)
{
	const int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

	return (x > y) - (x < y);
}

int main(int argc, char **argv)
{
	gw_autofree char *folder = gw_path("%s/tables.%d", argc > 1 ? argv[1] : ".", (int)getpid());
	gw_autofree char *images = gw_path("%s/image", folder), *disk = gw_path("%s/disk", folder);
	gw_autofree char *ram = gw_path("%s/ram", folder), *dir = gw_path("%s/ram/vm/t", folder);
	const uint8_t secret[GW_SECRET_LEN] = "none at all, it is a benchmark";

	if (argc != 2) {
		fprintf(stderr, "usage: tables FOLDER\n");
		return 2;
	}
	gw_log_init("tables", GW_LOG_ERROR);
	vm.st = (struct gw_store){ .images = images,
				   .ram = ram,
				   .ram_small = ram,
				   .disk = disk,
				   .quota = UINT64_MAX,
				   .disk_quota = UINT64_MAX };
	must(gw_own_mkdirs(dir));
	snprintf(vm.def.name, sizeof(vm.def.name), "t");
	snprintf(vm.def.memory[0].id, sizeof(vm.def.memory[0].id), "m");
	vm.def.memory[0].size = PAGES * GW_PAGE_SIZE;
	vm.def.nr_memory = 1;
	vm.paths[0] = gw_path("%s/m", dir);
	must(gw_key_init(&vm.key, secret));
	must(gw_digests_init(&vm.now, PAGES));
	make_memory();
	for (int pass = 0; pass < PASSES; pass++)
		one_pass(pass);
	for (unsigned int i = 0; i < COUNT; i++) {
		qsort(spent[i], PASSES, sizeof(spent[i][0]), by_time);
		printf("%s\"%s\": %.1f", i ? ", " : "{", names[i],
		       (double)spent[i][PASSES / 2] / GW_MS * TO_GIB);
	}
	printf("}\n");
	gw_ram_close(&vm.ram);
	gw_digests_free(&vm.now);
	free(vm.paths[0]);
	return gw_remove_tree(folder) ? 1 : 0;
}
