/* SPDX-License-Identifier: GPL-2.0-or-later */
/* store.h - a host with a store of images, and VMs that leave it: for test_image*.c. */
#ifndef TEST_STORE_H
#define TEST_STORE_H

#include "unit.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "clock.h"
#include "image_internal.h"
#include "log.h"
#include "own.h"
#include "rng.h"

/* Bytes that images could give, of those whose RAM files are in @ram; NULL: of all. */
static inline uint64_t evictable(const struct gw_store *st, const char *ram)
{
	gw_autofree struct gw_image *images = NULL;
	uint64_t bytes = 0;
	size_t nr;

	assert_int_equal(gw_images_read(st, &images, &nr), 0);
	for (size_t i = 0; i < nr; i++) {
		const char *of = images[i].discards ? st->ram_small : st->ram;

		if (!images[i].on_disk && !images[i].pinned && gw_image_is_kept(st, &images[i]) &&
		    (!ram || !strcmp(ram, of)))
			bytes += images[i].bytes;
	}
	return bytes;
}

struct amount {
	uint64_t bytes, before;
	const struct gw_store *st;
};

/* What is left to free of a fixed amount, as what VMs still lack becomes less. */
static inline uint64_t left_of(void *arg)
{
	const struct amount *a = arg;
	const uint64_t have = evictable(a->st, NULL);
	const uint64_t freed = a->before > have ? a->before - have : 0;

	return a->bytes > freed ? a->bytes - freed : 0;
}

/* Bring the images within their quotas, and have them give @need bytes. Return: bytes freed. */
static inline uint64_t store_balance(const struct gw_store *st, uint64_t need)
{
	struct amount a = { .bytes = need, .st = st, .before = evictable(st, NULL) };

	return gw_image_yield(st, left_of, &a, GW_FOREVER);
}

struct host {
	char *root; /* on a tmpfs, as RAM files are */
	char *images, *ram, *small, *disk;
	struct gw_store st;
};

/* Two backends: each file begins a chunk, the first ends within one. */
#define PAGES_A	 (2 * GW_CHUNK_PAGES + 5)
#define PAGES_B	 GW_CHUNK_PAGES
#define FIRST_B	 (3 * GW_CHUNK_PAGES)
#define PAGES	 (4 * GW_CHUNK_PAGES)
#define ALL_DATA (PAGES_A + PAGES_B)

/* A VM on that host; what each page holds is a version, 0 for zeros. */
struct vm {
	struct gw_definition def;
	char *paths[GW_MEMORY_BLOCKS_MAX + 1];
	uint32_t version[PAGES];
	uint8_t departures; /* the id of departure N is N in every byte */
};

static inline int host_make(void **state)
{
	struct host *h = calloc(1, sizeof(*h));

	*state = h;
	gw_log_init("test", GW_LOG_ERROR);
	if (!h)
		return -1;
	h->root = strdup("/dev/shm/gw-unit-XXXXXX");
	if (!h->root || !mkdtemp(h->root))
		return -1;
	h->images = gw_path("%s/image", h->root);
	h->ram = gw_path("%s/ram", h->root);
	h->small = gw_path("%s/ram-small", h->root);
	h->disk = gw_path("%s/lib/image", h->root);
	h->st = (struct gw_store){ .images = h->images,
				   .ram = h->ram,
				   .ram_small = h->small,
				   .disk = h->disk,
				   .quota = UINT64_MAX };
	return mkdir(h->ram, 0700) || mkdir(h->small, 0700);
}

static inline int host_drop(void **state)
{
	struct host *h = *state;
	int rc = gw_remove_tree(h->root);

	free(h->root);
	free(h->images);
	free(h->ram);
	free(h->small);
	free(h->disk);
	free(h);
	return rc;
}

#define host_test(fn) cmocka_unit_test_setup_teardown(fn, host_make, host_drop)

static inline struct vm *vm_new(const struct host *h, const char *name)
{
	struct vm *vm = calloc(1, sizeof(*vm));

	assert_non_null(vm);
	snprintf(vm->def.name, sizeof(vm->def.name), "%s", name);
	snprintf(vm->def.memory[0].id, GW_MEMORY_ID_MAX, "a");
	snprintf(vm->def.memory[1].id, GW_MEMORY_ID_MAX, "b");
	vm->def.memory[0].size = PAGES_A * GW_PAGE_SIZE;
	vm->def.memory[1].size = PAGES_B * GW_PAGE_SIZE;
	vm->def.nr_memory = 2;
	for (unsigned int i = 0; i < 2; i++)
		vm->paths[i] = gw_path("%s/vm/%s/%s", h->ram, name, vm->def.memory[i].id);
	return vm;
}

static inline void vm_free(struct vm *vm)
{
	for (unsigned int i = 0; i < 2; i++)
		free(vm->paths[i]);
	free(vm);
}

static inline int vm_folder(const struct vm *vm)
{
	gw_autofree char *dir = gw_path("%s", vm->paths[0]);

	*strrchr(dir, '/') = '\0';
	return gw_own_mkdirs(dir);
}

/* Open its RAM files where a VM has them. */
static inline int vm_ram(const struct vm *vm, struct gw_ram *ram, int flags)
{
	if (vm_folder(vm))
		return -1;
	memset(ram, 0, sizeof(*ram));
	for (unsigned int i = 0; i < vm->def.nr_memory; i++) {
		int fd = open(vm->paths[i], O_RDWR | O_CLOEXEC | flags, 0600);

		if (fd < 0 || ftruncate(fd, (off_t)vm->def.memory[i].size))
			return -1;
		gw_ram_add(ram, vm->def.memory[i].id, fd, vm->def.memory[i].size, 0);
	}
	return 0;
}

static inline bool is_page(size_t page)
{
	return page < PAGES_A || page >= FIRST_B;
}

/* What VM @vm has in @page at its present version. */
static inline void page_content(const struct vm *vm, size_t page, uint8_t *buf)
{
	struct rng rng = { (uint64_t)vm->def.name[0] << 56 | (uint64_t)vm->version[page] << 32 |
			   page };

	memset(buf, 0, GW_PAGE_SIZE);
	if (vm->version[page])
		rng_fill(&rng, buf, GW_PAGE_SIZE / (1 + page % 2)); /* some compress */
}

/* The guest writes version @version into pages [first, end). */
static inline void vm_set(struct vm *vm, size_t first, size_t end, uint32_t version)
{
	for (size_t page = first; page < end; page++)
		if (is_page(page))
			vm->version[page] = version;
}

/* Few pages: each of some hundred kills makes an image anew. */
static inline void some_pages(struct vm *vm)
{
	memset(vm->version, 0, sizeof(vm->version));
	vm_set(vm, 0, 3, 1);
	vm_set(vm, FIRST_B, FIRST_B + 2, 1);
	vm->departures = 0;
}

static inline void vm_remove(const struct vm *vm)
{
	unlink(vm->paths[0]);
	unlink(vm->paths[1]);
}

/* Of the digests of all VMs. */
static inline const struct gw_key *test_key(void)
{
	static struct gw_key key;

	if (!key.id[0] && gw_key_init(&key, (const uint8_t *)"thirty-two bytes of a secret ..."))
		abort();
	return &key;
}

/* It leaves; its image is made up to gw_image_finish(), whose result is returned. */
static inline int vm_leave(const struct host *h, struct vm *vm)
{
	static uint8_t buf[GW_PAGE_SIZE];
	struct gw_ledger ledger, before = { 0 };
	struct gw_digests now;
	uint8_t id[GW_ID_LEN];
	gw_autofree char *past = gw_path("%s/%s.past", h->root, vm->def.name);
	struct gw_ram ram;
	bool again = vm->departures;
	int rc;

	if (vm_ram(vm, &ram, O_CREAT) || gw_digests_init(&now, PAGES))
		return -EIO;
	for (size_t page = 0; page < PAGES; page++) {
		if (!vm->version[page])
			continue;
		page_content(vm, page, buf);
		if (gw_memory_write(&ram.memory, page, 1, buf))
			return -EIO;
		gw_digests_set(&now, page, gw_key_page(test_key(), buf));
	}
	gw_ram_close(&ram);
	memset(id, ++vm->departures, sizeof(id));
	rc = again ? gw_ledger_open(&before, past) : 0;
	if (!rc)
		rc = gw_image_begin(&h->st, vm->def.name, PAGES, &ledger);
	if (!rc)
		rc = gw_ledger_depart(&ledger, again ? &before : NULL, &now, id);
	gw_ledger_close(&before);
	if (!rc) {
		/* The VM's own copy, which travels with it. */
		struct gw_ledger copy;

		rc = gw_ledger_create(&copy, past, PAGES);
		memcpy(copy.head, ledger.head,
		       (size_t)((uint8_t *)(ledger.digests + PAGES) - (uint8_t *)ledger.head));
		rc = rc ? rc : gw_ledger_seal(&copy);
		gw_ledger_close(&copy);
	}
	if (!rc)
		rc = gw_image_finish(&h->st, &vm->def, vm->paths, &ledger);
	if (!rc) /* as the daemon does, when it has left */
		store_balance(&h->st, 0);
	gw_digests_free(&now);
	return rc;
}

/* It comes back: load and take. On success @image is open. */
static inline int vm_return(const struct host *h, const struct vm *vm, struct gw_image *image)
{
	int rc = gw_image_load(&h->st, vm->def.name, image);

	if (!rc)
		rc = vm_folder(vm);
	if (rc)
		return rc;
	rc = gw_image_take(&h->st, image, vm->paths, GW_FOREVER);
	if (rc)
		gw_image_close(image);
	return rc;
}

/* What @ram has in @page, which the caller asks for one after another. */
static inline const uint8_t *memory_at(const struct gw_ram *ram, size_t page)
{
	static uint8_t chunk[GW_CHUNK_SIZE];

	if (page % GW_CHUNK_PAGES == 0)
		assert_int_equal(gw_memory_read(&ram->memory, page, GW_CHUNK_PAGES, chunk), 0);
	return chunk + page % GW_CHUNK_PAGES * GW_PAGE_SIZE;
}

/*
 * The absent pages of taken @image, which must be exactly those whose bytes are
 * not @vm's. Returns how many they are.
 */
static inline size_t absent_pages(const struct vm *vm, const struct gw_image *image)
{
	static uint8_t want[GW_PAGE_SIZE];
	struct gw_bitmap absent;
	struct gw_ram ram;
	size_t nr;

	assert_int_equal(vm_ram(vm, &ram, 0), 0);
	assert_int_equal(gw_bitmap_init(&absent, PAGES), 0);
	for (size_t first = 0; first < PAGES; first += GW_CHUNK_PAGES)
		assert_int_equal(gw_image_absent(image, test_key(), &ram.memory, first,
						 GW_CHUNK_PAGES, &absent),
				 0);
	for (size_t page = 0; page < PAGES; page++) {
		page_content(vm, page, want);
		assert_int_equal(gw_bitmap_test(&absent, page),
				 memcmp(memory_at(&ram, page), want, GW_PAGE_SIZE) != 0);
	}
	nr = gw_bitmap_count(&absent, 0, PAGES);
	gw_bitmap_free(&absent);
	gw_ram_close(&ram);
	return nr;
}

static inline bool exists(const char *path)
{
	return !access(path, F_OK);
}

/* Whether nothing is left of any image but the store's own lock. */
static inline bool store_is_empty(const struct host *h)
{
	gw_autofree char *kept = gw_path("%s/kept", h->ram);
	gw_autofree char *small = gw_path("%s/kept", h->small);
	gw_autofree char *lock = gw_path("%s/.lock", h->images);
	gw_autofree char *demotion = gw_path("%s/.demotion", h->images);
	bool empty;

	unlink(lock);
	unlink(demotion);
	empty = !exists(kept) && !exists(small) && (!rmdir(h->images) || errno == ENOENT) &&
		(!rmdir(h->disk) || errno == ENOENT);
	return empty;
}

#endif
