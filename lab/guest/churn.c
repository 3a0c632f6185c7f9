/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * churn: does to files whatever makes a page of the page cache stop being what
 * the disk holds, or a block stop being that file's.
 *
 * Nothing is verified. It is there for who looks at the page cache meanwhile.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "guest.h"

#define PIECE (MIB_PAGES * PAGE_SIZE)

static uint64_t state = 0x9e3779b97f4a7c15;
static uint64_t *piece;

static uint64_t below(uint64_t limit)
{
	return next_random(&state) % limit;
}

/* From nothing to a MiB, and seldom whole pages. */
static size_t some_length(void)
{
	return below(PIECE - 1) + 1;
}

static off_t some_page(void)
{
	return (off_t)(below(MIB_PAGES) * PAGE_SIZE);
}

/* A full disk is part of it. */
static void put(int fd, size_t length, off_t offset)
{
	if (pwrite(fd, piece, length, offset) < 0 && errno != ENOSPC)
		die(errno, "cannot write");
}

static void write_mapped(int fd)
{
	struct stat status;
	char *map;

	if (fstat(fd, &status) < 0 || status.st_size < PAGE_SIZE)
		return;
	map = mmap(NULL, status.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (map == MAP_FAILED)
		return;
	/* Holes would need blocks, which a full disk has not: SIGBUS. Pages that it reads have
	 * theirs. */
	for (int i = 0; i < 8; i++) {
		char *page = map + below(status.st_size / PAGE_SIZE) * PAGE_SIZE;

		if (lseek(fd, page - map, SEEK_DATA) == page - map)
			page[below(PAGE_SIZE)]++;
	}
	if (below(2))
		msync(map, status.st_size, MS_SYNC);
	munmap(map, status.st_size);
}

static void write_direct(const char *name)
{
	int fd = open(name, O_RDWR | O_DIRECT | O_CLOEXEC);

	if (fd < 0)
		return;
	put(fd, (below(16) + 1) * PAGE_SIZE, some_page());
	close(fd);
}

/* XFS has the two share their blocks, until one is written; ext4 cannot. */
static void clone_from(int fd, const char *other)
{
	int from = open(other, O_RDONLY | O_CLOEXEC);

	if (from < 0)
		return;
	ioctl(fd, FICLONE, from);
	close(from);
}

static void read_all(int fd)
{
	static char buffer[PIECE];

	while (read(fd, buffer, sizeof(buffer)) > 0)
		;
}

static void operate(const char *name, const char *other)
{
	uint64_t what = below(18);
	int fd = open(name,
		      O_RDWR | (what < 4 ? O_CREAT : 0) | (what < 2 ? O_TRUNC : 0) | O_CLOEXEC,
		      0600);

	if (fd < 0)
		return;
	switch (what) {
	case 0 ... 3:
		put(fd, some_length(), 0);
		break;
	case 4 ... 5:
		put(fd, some_length() / 8, some_page());
		break;
	case 6:
		if (ftruncate(fd, some_page()) < 0)
			die(errno, "cannot truncate");
		break;
	case 7:
		unlink(name);
		break;
	case 8 ... 9:
		write_mapped(fd);
		break;
	case 10:
		write_direct(name);
		break;
	case 11:
		fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, some_page(),
			  some_length());
		break;
	case 12:
		rename(name, other);
		break;
	case 13:
		fsync(fd);
		break;
	case 14 ... 15:
		clone_from(fd, other);
		break;
	default:
		read_all(fd);
	}
	close(fd);
}

int churn_main(int argc, char **argv)
{
	uint64_t files = argument(argc, argv, 2, "FILES", 1, 1 << 20, 40), done = 0, report;

	if (argc < 2)
		die(0, "FOLDER is missing; usage: churn FOLDER [FILES]");
	if (chdir(argv[1]) < 0)
		die(errno, "cannot go to %s", argv[1]);
	piece = map_pages(MIB_PAGES);
	puts("churn: started");
	for (report = now_ns();; done++) {
		char name[32], other[32];

		snprintf(name, sizeof(name), "churn%" PRIu64, below(files));
		snprintf(other, sizeof(other), "churn%" PRIu64, below(files));
		fill_random(piece, PIECE / sizeof(*piece) / 8, &state);
		operate(name, other);
		if (now_ns() - report >= NSEC_PER_SEC) {
			printf("churn: %" PRIu64 "\n", done);
			report = now_ns();
		}
	}
}
