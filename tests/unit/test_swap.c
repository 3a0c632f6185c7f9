// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * test_swap.c - memory of VMs that a memory server has on a disk: which folder may be one, what
 * lies there and when, and what it does not do to memory.
 */
#include "hold_site.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "split_record.h"
#include "vm_folder.h"
#include "swap.h"

#define ID(n) "0" #n "010000000000000000000000000000"

struct disk {
	struct site *s;
	char *folder; /* on a disk, as /tmp need not be */
	char *swap;   /* in it */
};

static int make_disk(void **state)
{
	struct disk *d = calloc(1, sizeof(*d));

	if (!d || make((void **)&d->s))
		return -1;
	*state = d;
	d->folder = strdup("/var/tmp/gw-unit-XXXXXX");
	if (!mkdtemp(d->folder))
		return -1;
	d->swap = gw_path("%s/swap", d->folder);
	d->s->d.paths.server_limit = MIB(3);
	return gw_swap_open(&d->s->d.paths, d->swap, MIB(4));
}

static int drop_disk(void **state)
{
	struct disk *d = *state;
	int rc = drop((void **)&d->s);

	rc |= gw_remove_tree(d->folder);
	free(d->folder);
	free(d->swap);
	free(d);
	return rc;
}

#define disk_test(fn) cmocka_unit_test_setup_teardown(fn, make_disk, drop_disk)

/* Where split @id lies, as `godwit held` has it; NULL: nothing of it does. */
static const char *where(struct disk *d, const char *id)
{
	const json_t *one;
	size_t i;

	json_array_foreach(list(d->s), i, one) {
		if (!strcmp(json_string_value(json_object_get(one, "id")), id))
			return json_string_value(json_object_get(one, "where"));
	}
	return NULL;
}

static bool lies_on_disk(const struct disk *d, const char *id)
{
	gw_autofree char *path = gw_path("%s/%s/ram", d->swap, id);

	return !access(path, F_OK);
}

static uint64_t told(struct disk *d, const char *key)
{
	return (uint64_t)json_integer_value(json_object_get(held(d->s, json_object()), key));
}

static void kill_servers(struct disk *d)
{
	for (const struct gw_job *job = d->s->d.jobs->list; job; job = job->next)
		kill(job->pid, SIGKILL);
	run_until(&d->s->d, is_idle, d->s);
}

/* What finds no room in memory lies on the disk, all of it, and costs no memory. */
static void what_does_not_fit(void **state)
{
	struct disk *d = *state;
	struct site *s = d->s;

	s->d.paths.limit = MIB(32);
	begin_at(s, 1, 0);
	close_both(s);
	assert_string_equal(where(d, ID(1)), "memory");
	assert_int_equal(gw_budget_free(&s->d.paths, NULL), MIB(30));
	begin_at(s, 2, 0);
	leave(s->h, 0, 100);
	assert_string_equal(where(d, ID(2)), "disk");
	assert_true(lies_on_disk(d, ID(2)));
	assert_false(lies_on_disk(d, ID(1)));
	assert_int_equal(gw_budget_free(&s->d.paths, NULL), MIB(30));
	assert_int_equal(told(d, "limit"), MIB(3));
	assert_int_equal(told(d, "free"), MIB(1));
	assert_int_equal(told(d, "swap-limit"), MIB(4));
	assert_int_equal(told(d, "swap-free"), MIB(2));
	/* What still fits lies in memory. */
	s->h->hold.size = MIB(1);
	begin_at(s, 3, 0);
	assert_string_equal(where(d, ID(3)), "memory");
	/* It stays where it is, and is asked for more there. */
	s->h->hold.size = MIB(4);
	begin_at(s, 2, 100);
	say_run(s->h, 0, GW_MSG_REQUEST, 3, 1);
	assert_int_equal(hear_pages(s->h, 0), 1);
	assert_string_equal(where(d, ID(2)), "disk");
	assert_int_equal(told(d, "swap-free"), 0);
	s->h->hold.size = MIB(6); /* more than it has: that is 4.5 MiB */
	refused(s, 2,
		"on its disk for VMs' memory (4.0 MiB of its swap-limit of 4.0 MiB were "
		"promised), and no room in memory; 'web1' needs 512 KiB more");
	s->h->hold.size = MIB(2);
	refused(s, 4, "swap-limit");
	/* What lies in memory gets no more there, though the disk has room. */
	s->h->hold.size = 3 * MIB(1);
	refused(s, 3, "memory-server-limit");
	begin_at(s, 2, 100);
	say(s->h, 0, GW_MSG_DISMISS, NULL, 0);
	hear(s->h, 0, GW_MSG_DISMISSED);
	assert_null(where(d, ID(2)));
	assert_false(lies_on_disk(d, ID(2)));
	assert_int_equal(told(d, "swap-free"), MIB(4));
}

/* However its server dies, and whatever the next godwitd is told, it is found again. */
static void is_found_again(void **state)
{
	struct disk *d = *state;
	struct site *s = d->s;
	struct gw_paths *p = &s->d.paths;
	gw_autofree char *swap = NULL;
	pid_t pid;

	p->server_limit = 0;
	begin_at(s, 1, 0);
	assert_string_equal(where(d, ID(1)), "disk");
	for (unsigned int n = 1; n < 4; n++) {
		leave(s->h, 20UL * (n - 1), 20);
		kill_servers(d);
		begin_at(s, 1, 20UL * n);
	}
	/* A godwitd without the option. */
	pid = s->d.jobs->list->pid;
	served_stop(&s->d);
	swap = gw_steal(p->swap);
	assert_int_equal(served_start(&s->d), 0);
	begin_at(s, 1, 60);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
	leave(s->h, 60, 40);
	say_run(s->h, 0, GW_MSG_REQUEST, 0, 100);
	assert_int_equal(hear_pages(s->h, 0), 100);
	assert_string_equal(where(d, ID(1)), "disk");
	s->h->hold.size = MIB(3);
	refused(s, 1, "--swap-dir DIR");
	/* And one with another. */
	kill_servers(d);
	p->swap = gw_path("%s", d->folder);
	refused(s, 1, "not its swap-dir any more");
	s->h->hold.size = MIB(2);
	begin_at(s, 1, 100);
	say(s->h, 0, GW_MSG_DISMISS, NULL, 0);
	hear(s->h, 0, GW_MSG_DISMISSED);
	assert_false(lies_on_disk(d, ID(1)));
}

/* Of several that fit one at a time one wins. */
static void two_that_fit_singly(void **state)
{
	struct disk *d = *state;
	const struct gw_paths *p = &d->s->d.paths;
	struct gw_hold hold = d->s->h->hold;

	hold.size = MIB(3);
	d->s->d.paths.server_limit = 0;
	for (unsigned int n = 0; n < 20; n++) {
		int go_on[2], winners = 0, status;

		assert_int_equal(pipe(go_on), 0);
		for (unsigned int i = 0; i < 4; i++) {
			gw_autofree char *id = gw_path("0%u%030d", i + 1, 0);
			char byte;

			if (fork())
				continue;
			close(go_on[1]);
			if (read(go_on[0], &byte, 1)) /* until all are there */
				_exit(2);
			if (gw_promise_lock(p, id, SOON) < 0)
				_exit(3);
			_exit(gw_budget_promise(p, "B", id, &hold) != 0);
		}
		close(go_on[0]);
		close(go_on[1]);
		while (wait(&status) > 0) {
			assert_true(WIFEXITED(status) && WEXITSTATUS(status) < 2);
			winners += !WEXITSTATUS(status);
		}
		assert_int_equal(winners, 1);
		for (unsigned int i = 0; i < 4; i++) {
			gw_autofree char *id = gw_path("0%u%030d", i + 1, 0);

			assert_int_equal(gw_promise_remove(p, id), 0);
		}
	}
}

/* Not what others fill it with, either. */
static void as_much_as_the_disk_has(void **state)
{
	struct disk *d = *state;
	struct gw_budget_server room;
	const uint64_t all = gw_swap_free(&d->s->d.paths);

	d->s->d.paths.server_limit = 0;
	d->s->d.paths.swap_limit = UINT64_MAX;
	gw_budget_server(&d->s->d.paths, &room);
	assert_in_range(room.swap_free, all / 2, all + MIB(64));
	d->s->h->hold.blocks[0].size = GW_HOLD_BYTES_MAX / 2;
	d->s->h->hold.size = GW_HOLD_BYTES_MAX / 2;
	refused(d->s, 1, "on its disk");
}

/* A VM of this very host, which has split @id. */
static void run_vm(const struct disk *d, const char *id)
{
	const struct gw_paths *p = &d->s->d.paths;
	struct gw_split_record record = { .main_memory = MIB(32),
					  .replicas = 1,
					  .unit_pages = 256,
					  .period_ms = 1000,
					  .shift_periods = 10,
					  .servers = { { "127.0.0.1:1", MIB(2) } },
					  .nr_servers = 1 };
	struct gw_vm vm = { 0 };
	const int lock = gw_vm_claim(p, "B", "web1");

	assert_true(lock >= 0);
	assert_int_equal(gw_id_parse(id, record.id), 0);
	assert_int_equal(gw_process_identify(getpid(), &vm.process), 0);
	snprintf(vm.def.name, sizeof(vm.def.name), "web1");
	vm.def.argv = json_pack("[s]", "qemu-system-fake");
	vm.def.cwd = strdup("/");
	snprintf(vm.def.memory[0].id, GW_MEMORY_ID_MAX, "ram");
	vm.def.memory[0].size = MIB(64);
	vm.def.nr_memory = 1;
	vm.qmp = strdup("/none");
	vm.split = gw_split_record_json(&record);
	assert_int_equal(gw_vm_save(p, &vm), 0);
	gw_vm_free(&vm);
	close(lock);
}

/* Its memory is no help to a VM of this host; its disk is. */
static void of_a_vm_that_runs_here(void **state)
{
	struct disk *d = *state;
	struct site *s = d->s;

	run_vm(d, ID(1));
	begin_at(s, 1, 0);
	assert_string_equal(where(d, ID(1)), "disk");
	begin_at(s, 1, 0);
	/* One of that name on another host is another one. */
	begin_at(s, 2, 0);
	assert_string_equal(where(d, ID(2)), "memory");
	kill_servers(d);
	assert_int_equal(gw_promise_remove(&s->d.paths, ID(1)), 0);
	s->h->hold.size = MIB(6);
	refused(s, 1, "on its disk");
	s->h->hold.size = MIB(1);
	free(gw_steal(s->d.paths.swap));
	refused(s, 1, "runs on host 'B' itself");
}

/* A disk that lost some of it gives nothing of it out. */
static void that_the_disk_has_lost(void **state)
{
	struct disk *d = *state;
	struct site *s = d->s;
	struct gw_promise promise;

	s->d.paths.server_limit = 0;
	begin_at(s, 1, 0);
	leave(s->h, 0, 10);
	close_both(s);
	run_until(&s->d, is_gone, s);
	assert_int_equal(gw_promise_load(&s->d.paths, ID(1), &promise), 0);
	assert_false(promise.failed);
	promise.failed = true;
	assert_int_equal(gw_promise_save(&s->d.paths, ID(1), &promise), 0);
	refused(s, 1, "has lost a part of what VM 'web1' had there");
	assert_true(json_is_true(json_object_get(json_array_get(list(s), 0), "failed")));
	assert_non_null(held(s, json_pack("{s:s,s:b}", "drop", ID(1), "confirm", 1)));
	assert_false(lies_on_disk(d, ID(1)));
}

/* What a boot has left is removed, and nothing else. */
static void garbage(void **state)
{
	struct disk *d = *state;
	const struct gw_paths *p = &d->s->d.paths;
	gw_autofree char *left = gw_path("%s/%s", d->swap, ID(5));
	gw_autofree char *in = gw_path("%s/ram", left);
	gw_autofree char *other = gw_path("%s/lost+found", d->swap);

	d->s->d.paths.server_limit = 0;
	begin_at(d->s, 1, 0);
	leave(d->s->h, 0, 10);
	assert_int_equal(mkdir(left, 0700) | mkdir(other, 0700), 0);
	assert_int_equal(gw_write_file(in, "guest"), 0);
	gw_swap_tidy(p);
	assert_int_equal(access(left, F_OK), -1);
	assert_int_equal(access(other, F_OK), 0);
	assert_true(lies_on_disk(d, ID(1)));
	begin_at(d->s, 1, 10);
}

static int try(struct disk *d, const char *folder)
{
	struct gw_paths p = { .run = d->s->d.paths.run };
	int rc = gw_swap_open(&p, folder, MIB(1));

	assert_int_equal(p.swap != NULL, !rc);
	free(p.swap);
	return rc;
}

static void folders_that_are_refused(void **state)
{
	struct disk *d = *state;
	struct gw_paths other = { .run = d->folder };
	gw_autofree char *memory = strdup("/dev/shm/gw-unit-XXXXXX");
	gw_autofree char *run = gw_path("%s/run", d->swap);
	gw_autofree char *file = gw_path("%s/file", d->folder);

	assert_int_equal(try(d, d->swap), 0);
	assert_int_equal(gw_swap_open(&other, d->swap, MIB(1)), -EBUSY);
	assert_message("is that of another godwitd");
	assert_message(d->s->d.paths.run);
	assert_int_equal(unlink(run), 0);
	assert_int_equal(try(d, d->swap), 0);
	assert_int_equal(chmod(d->swap, 0777), 0);
	assert_int_equal(try(d, d->swap), -EPERM);
	assert_message("swap-dir: ");
	assert_int_equal(chmod(d->swap, 01777), 0);
	assert_int_equal(try(d, d->swap), -EPERM);
	assert_int_equal(chmod(d->swap, 0700), 0);
	assert_int_equal(gw_write_file(file, ""), 0);
	assert_int_equal(try(d, file), -ENOTDIR);
	assert_non_null(mkdtemp(memory));
	assert_int_equal(try(d, memory), -EINVAL);
	assert_message("is a tmpfs, which is memory");
	assert_int_equal(rmdir(memory), 0);
}

/*
 * A disk that says later that it cannot take what the page cache had for it: a file system on a
 * file whose own has less room than it says. Return: whether this host has what that takes.
 */
static bool mount_thin(const struct disk *d, const char *folder)
{
	gw_autofree char *under = gw_path("%s/under", d->folder);
	gw_autofree char *command = gw_path(
		"truncate -s 256M %s/file && mkfs.ext4 -q -F -N 128 -O ^has_journal -E nodiscard %s/file && "
		"mount -o loop %s/file %s 2>&1",
		under, under, under, folder);

	if (unshare(CLONE_NEWNS) || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
	    mkdir(under, 0700) || mkdir(folder, 0700) ||
	    mount("thin", under, "tmpfs", 0, "size=8m,mode=0700"))
		return false;
	return !system(command);
}

/* A thin disk is the site's; the descriptor of its root, -1: this host cannot have one. */
static int use_thin(struct disk *d)
{
	gw_autofree char *folder = gw_path("%s/thin", d->folder);
	gw_autofree char *swap = gw_path("%s/swap", folder);
	gw_autofree char *under = gw_path("%s/under", d->folder);

	if (!mount_thin(d, folder)) {
		umount2(under, MNT_DETACH);
		return -1;
	}
	free(gw_steal(d->s->d.paths.swap));
	assert_int_equal(gw_swap_open(&d->s->d.paths, swap, MIB(16)), 0);
	d->s->d.paths.server_limit = 0;
	return open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

static void drop_thin(struct disk *d)
{
	gw_autofree char *folder = gw_path("%s/thin", d->folder);
	gw_autofree char *under = gw_path("%s/under", d->folder);

	kill_servers(d);
	assert_int_equal(umount2(folder, MNT_DETACH) | umount2(under, MNT_DETACH), 0);
}

/* Others have filled it: what finds no room stays with its main host, which hears why. */
static void is_full(void **state)
{
	struct disk *d = *state;
	struct site *s = d->s;
	gw_autofd int root = use_thin(d);
	struct statvfs fs;
	int file;

	if (root < 0)
		skip();
	begin_at(s, 1, 0);
	leave(s->h, 0, 10);
	file = openat(root, "others", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	assert_int_equal(fstatvfs(root, &fs), 0);
	assert_int_equal(fallocate(file, 0, 0, (off_t)(fs.f_bfree * fs.f_frsize)), -1);
	assert_int_equal(errno, ENOSPC);
	assert_int_equal(put(s->h, 10, 100), 0);
	hear(s->h, 1, GW_MSG_ERROR);
	assert_non_null(memmem(s->h->f.payload, s->h->f.len, "thin/swap is full", 17));
	close_both(s);
	run_until(&s->d, is_gone, s);
	begin_at(s, 1, 10);
	assert_int_equal(ftruncate(file, 0), 0);
	leave(s->h, 10, 100);
	say_run(s->h, 0, GW_MSG_REQUEST, 0, 100);
	assert_int_equal(hear_pages(s->h, 0), 100);
	close(file);
	close(gw_steal_fd(&root));
	drop_thin(d);
}

/* A disk that does not answer lets its VM wait, and nobody else. */
static void hangs(void **state)
{
	struct disk *d = *state;
	struct site *s = d->s;
	struct gw_transport *waits[GW_MEMORY_CONNECTIONS];
	gw_autofd int root = use_thin(d);
	uint64_t frames;

	if (root < 0)
		skip();
	begin_at(s, 1, 0);
	leave(s->h, 0, 10);
	assert_int_equal(ioctl(root, FIFREEZE, 0), 0);
	assert_int_equal(put(s->h, 10, 10), 0);
	frames = s->h->frames;
	memcpy(waits, s->h->main, sizeof(waits));
	memset(s->h->main, 0, sizeof(waits));
	/* Others come, store and are shown. */
	s->d.paths.server_limit = MIB(3);
	begin_at(s, 2, 0);
	leave(s->h, 0, 100);
	assert_string_equal(where(d, ID(1)), "disk");
	assert_string_equal(where(d, ID(2)), "memory");
	assert_true(gw_budget_free(&s->d.paths, NULL) > 0);
	assert_false(has_said(waits[1]));
	close_both(s);
	memcpy(s->h->main, waits, sizeof(waits));
	assert_int_equal(ioctl(root, FITHAW, 0), 0);
	do
		hear(s->h, 1, GW_MSG_STORED);
	while (s->h->f.arg < frames);
	say_run(s->h, 0, GW_MSG_REQUEST, 0, 20);
	assert_int_equal(hear_pages(s->h, 0), 20);
	close(gw_steal_fd(&root));
	drop_thin(d);
}

static void written_too_late(void **state)
{
	struct disk *d = *state;
	gw_autofree char *folder = gw_path("%s/thin", d->folder);
	gw_autofree char *pages = gw_path("%s/pages", folder);
	gw_autofree char *under = gw_path("%s/under", d->folder);
	struct gw_hold hold = { .name = "web1",
				.host = "A",
				.blocks = { { "ram", MIB(32) } },
				.nr_blocks = 1,
				.size = MIB(32) };
	gw_autofree uint8_t *bytes = malloc(GW_CHUNK_SIZE);
	struct gw_memstore store;
	int fd;

	if (!mount_thin(d, folder)) {
		umount2(under, MNT_DETACH);
		skip();
	}
	memset(bytes, 0x5a, GW_CHUNK_SIZE);
	assert_int_equal(gw_memstore_open(&store, pages, &hold), 0);
	for (size_t page = 0; page < MIB(24) / GW_PAGE_SIZE; page += GW_CHUNK_PAGES)
		assert_int_equal(gw_memstore_put(&store, page, GW_CHUNK_PAGES, bytes), 0);
	assert_int_equal(gw_memstore_get(&store, 5, 1, bytes), 0);
	/* As the kernel does by itself, sooner or later. */
	fd = open(folder, O_RDONLY | O_DIRECTORY);
	syncfs(fd);
	close(fd);
	assert_int_equal(gw_memstore_get(&store, 5, 1, bytes), -EIO);
	assert_message("the disk has lost a part");
	assert_true(store.failed);
	assert_int_equal(gw_memstore_get(&store, 5, 1, bytes), -EIO);
	assert_int_equal(gw_memstore_put(&store, 5, 1, bytes), -EIO);
	gw_memstore_close(&store);
	assert_int_equal(umount2(folder, MNT_DETACH) | umount2(under, MNT_DETACH), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		disk_test(what_does_not_fit),
		disk_test(is_found_again),
		disk_test(two_that_fit_singly),
		disk_test(as_much_as_the_disk_has),
		disk_test(of_a_vm_that_runs_here),
		disk_test(that_the_disk_has_lost),
		disk_test(garbage),
		disk_test(folders_that_are_refused),
		disk_test(is_full),
		disk_test(hangs),
		disk_test(written_too_late),
	};

	return cmocka_run_group_tests_name("swap", tests, NULL, NULL);
}
