// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * direct_io.c - F7: direct I/O in flight across a scan escapes the tracker.
 *
 * The file system is ours (FUSE, direct_io): a read of its file pins the page
 * it reads into, and its data arrives when we say so. So every step has its
 * place in time, and nothing here depends on luck. It is served by a child, so
 * that its death ends all reads, and mounted where only we see it.
 *
 *   read begins: page pinned, marked written
 *   scan        : reports the page, forgets        <- the update is lost here
 *   data arrives: no fault, no mark
 *   scan        : reports nothing
 *
 * And what source/switchover.c does about it, step by step: with nothing in
 * flight, a scan and a comparison of all pages with what was sent find
 * everything; every read that begins later is reported.
 */
#define FUSE_USE_VERSION 35
#include <errno.h>
#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "digest.h"
#include "error.h"
#include "tracker.h"

#define PAGES	 64UL
#define BYTES	 (PAGES * GW_PAGE_SIZE)
#define FILE_INO 2
#define OLD	 0x11
#define NEW	 0x77

#define NEED(good, ...)                                          \
	do {                                                     \
		if (!(good)) {                                   \
			fprintf(stderr, "FAILED: " __VA_ARGS__); \
			fputc('\n', stderr);                     \
			exit(1);                                 \
		}                                                \
	} while (0)

/* Shared with the child that serves the file system. */
static struct {
	sem_t arrived; /* a read has reached the file system */
	sem_t go;      /* it may be answered */
} * gate;

static uint8_t *ram, *view; /* the tracked mapping, and ours of the same pages */
static uint8_t copy[BYTES]; /* what has "travelled" */
static struct gw_tracker *tracker;
static struct gw_bitmap due;

static void wait_for(sem_t *sem, const char *what)
{
	struct timespec end;

	clock_gettime(CLOCK_REALTIME, &end);
	end.tv_sec += 300;
	while (sem_timedwait(sem, &end))
		NEED(errno == EINTR, "%s did not happen", what);
}

static void attributes(fuse_ino_t ino, struct stat *st)
{
	memset(st, 0, sizeof(*st));
	st->st_ino = ino;
	st->st_mode = ino == FILE_INO ? S_IFREG | 0444 : S_IFDIR | 0755;
	st->st_nlink = 1;
	st->st_size = ino == FILE_INO ? (off_t)BYTES : 0;
}

static void slow_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct fuse_entry_param e = { .ino = FILE_INO, .attr_timeout = 60, .entry_timeout = 60 };

	if (parent != FUSE_ROOT_ID || strcmp(name, "slow") != 0) {
		fuse_reply_err(req, ENOENT);
		return;
	}
	attributes(FILE_INO, &e.attr);
	fuse_reply_entry(req, &e);
}

static void slow_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *info)
{
	struct stat st;

	(void)info;
	attributes(ino, &st);
	fuse_reply_attr(req, &st, 60);
}

static void slow_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *info)
{
	(void)ino;
	info->direct_io = 1;
	fuse_reply_open(req, info);
}

static void slow_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset,
		      struct fuse_file_info *info)
{
	static char data[BYTES];

	(void)ino;
	(void)offset;
	(void)info;
	memset(data, NEW, sizeof(data));
	sem_post(&gate->arrived);
	wait_for(&gate->go, "the answer to a read");
	fuse_reply_buf(req, data, size < sizeof(data) ? size : sizeof(data));
}

static const struct fuse_lowlevel_ops slow_ops = {
	.lookup = slow_lookup,
	.getattr = slow_getattr,
	.open = slow_open,
	.read = slow_read,
};

/* Mount it on @path, and serve it from a child. Returns the child. */
static pid_t serve(const char *path)
{
	struct fuse_args args = FUSE_ARGS_INIT(0, NULL);
	struct fuse_session *session;
	pid_t parent = getpid(), child;

	NEED(!fuse_opt_add_arg(&args, "direct_io"), "no memory");
	session = fuse_session_new(&args, &slow_ops, sizeof(slow_ops), NULL);
	NEED(session && !fuse_session_mount(session, path), "cannot mount on %s", path);
	child = fork();
	NEED(child >= 0, "fork: %s", strerror(errno));
	if (child == 0) {
		if (!prctl(PR_SET_PDEATHSIG, SIGKILL) && getppid() == parent)
			fuse_session_loop(session);
		_exit(0);
	}
	/* Ours would keep the file system alive without a server. */
	fuse_session_destroy(session);
	fuse_opt_free_args(&args);
	return child;
}

/* A direct read of one page that is in flight. */
struct flight {
	pthread_t thread;
	int fd;
	size_t page;
	ssize_t got;
};

static void *fly(void *arg)
{
	struct flight *f = arg;

	f->got = pread(f->fd, ram + f->page * GW_PAGE_SIZE, GW_PAGE_SIZE, 0);
	return NULL;
}

static void take_off(struct flight *f, size_t page)
{
	f->page = page;
	NEED(!pthread_create(&f->thread, NULL, fly, f), "no thread");
	wait_for(&gate->arrived, "a direct read");
	NEED(view[page * GW_PAGE_SIZE] == OLD, "data arrived before it was sent");
}

static void land(struct flight *f)
{
	sem_post(&gate->go);
	pthread_join(f->thread, NULL);
	NEED(f->got == (ssize_t)GW_PAGE_SIZE, "the read returned %zd", f->got);
	NEED(view[f->page * GW_PAGE_SIZE] == NEW, "no data arrived");
}

/* Scan and send, as a round does. Returns how many pages were due. */
static size_t scan_and_send(void)
{
	size_t start, stop;

	gw_bitmap_zero(&due);
	NEED(!gw_tracker_scan(tracker, &due), "scan: %s", gw_error());
	gw_bitmap_for_each_run(&due, 0, PAGES, start, stop)
		memcpy(copy + start * GW_PAGE_SIZE, view + start * GW_PAGE_SIZE,
		       (stop - start) * GW_PAGE_SIZE);
	return gw_bitmap_count(&due, 0, PAGES);
}

/* Compare all pages with what was sent, by digest; @page is the one that differs. */
static void compare_finds(size_t page)
{
	for (size_t i = 0; i < PAGES; i++) {
		bool same = gw_digest_equal(gw_digest_page(view + i * GW_PAGE_SIZE),
					    gw_digest_page(copy + i * GW_PAGE_SIZE));

		NEED(same == (i != page), "the comparison took page %zu for %s", i,
		     same ? "the same" : "another");
	}
	memcpy(copy, view, BYTES);
}

static void track(void)
{
	struct gw_track_range range = { .hva = (uintptr_t)ram, .nr_pages = PAGES };
	int uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);

	NEED(uffd >= 0, "userfaultfd: %s", strerror(errno));
	tracker = gw_tracker_uffd(getpid(), &uffd, 1, &range, 1);
	NEED(tracker, "tracker: %s", gw_error());
	memcpy(copy, view, BYTES);
}

static void try(int fd)
{
	struct flight f = { .fd = fd };

	/* Pinned before anything was tracked. */
	take_off(&f, 2);
	track();
	land(&f);
	NEED(scan_and_send() == 0, "a page pinned before tracking began was reported");
	compare_finds(2);
	printf("pinned before tracking began: missed by a scan, found by a comparison\n");

	/* Pinned when a scan comes. */
	take_off(&f, 5);
	NEED(scan_and_send() == 1 && gw_bitmap_test(&due, 5), "a pinned page was not reported");
	land(&f);
	NEED(scan_and_send() == 0, "data that landed after a scan was reported: F7 does not hold "
				   "on this kernel, which is good news");
	compare_finds(5);
	printf("pinned during a scan: the next scan misses it, a comparison finds it\n");

	/* Quiesced: nothing in flight. Whatever is pinned afterwards is seen. */
	NEED(scan_and_send() == 0, "pages were reported that nobody wrote");
	take_off(&f, 7);
	land(&f);
	NEED(scan_and_send() == 1 && gw_bitmap_test(&due, 7), "a read after a quiesced scan was "
							      "not reported");
	compare_finds(PAGES);
	printf("begun and ended between two scans: reported\n");
}

static void *map_shared(int flags, int fd)
{
	void *at = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | flags, fd, 0);

	NEED(at != MAP_FAILED, "mmap: %s", strerror(errno));
	return at;
}

int main(void)
{
	int memfd = memfd_create("ram", MFD_CLOEXEC), fd;
	pid_t server;

	setvbuf(stdout, NULL, _IOLBF, 0);
	NEED(!unshare(CLONE_NEWNS) && !mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL),
	     "mount namespace: %s; needs root", strerror(errno));
	NEED(memfd >= 0 && !ftruncate(memfd, BYTES), "memfd: %s", strerror(errno));
	ram = map_shared(0, memfd);
	view = map_shared(0, memfd);
	gate = map_shared(MAP_ANONYMOUS, -1);
	NEED(!sem_init(&gate->arrived, 1, 0) && !sem_init(&gate->go, 1, 0), "semaphores");
	NEED(!gw_bitmap_init(&due, PAGES), "bitmaps");
	memset(ram, OLD, BYTES);

	server = serve("/tmp");
	fd = open("/tmp/slow", O_RDONLY | O_DIRECT | O_CLOEXEC);
	NEED(fd >= 0, "slow file: %s", strerror(errno));
	try(fd);
	close(fd);
	kill(server, SIGKILL);
	waitpid(server, NULL, 0);
	gw_tracker_stop(tracker);
	return 0;
}
