/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * stream: a large file is read and another one written, round after round, as
 * a transcoder of videos does.
 *
 * The input is made once, goes to the disk and out of the page cache, and is
 * read from there. Each round writes the whole output anew, at a steady rate,
 * through the page cache, and has it written back. Before a piece of the
 * output is overwritten it is verified, and so is the input: memory or disk
 * that fell back to an older state is noticed one round later at most.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

#include "../served.h"
#include "guest.h"

#define PIECE	    (MIB_PAGES * PAGE_SIZE)
#define PIECE_WORDS (MIB_PAGES * PAGE_WORDS)
/* Later than this, the guest was stopped or is too slow: nothing is made up for. */
#define LATE_NS	    (NSEC_PER_SEC / 10)

static int open_file(const char *name, int more)
{
	int fd = open(name, O_RDWR | O_CREAT | O_CLOEXEC | more, 0600);

	if (fd < 0)
		die(errno, "cannot open %s", name);
	return fd;
}

static void read_piece(int fd, uint64_t *words, uint64_t piece)
{
	if (pread(fd, words, PIECE, (off_t)(piece * PIECE)) != PIECE)
		die(errno, "cannot read piece %" PRIu64, piece);
}

static void write_piece(int fd, const uint64_t *words, uint64_t piece)
{
	if (pwrite(fd, words, PIECE, (off_t)(piece * PIECE)) != PIECE)
		die(errno, "cannot write piece %" PRIu64, piece);
}

static void write_back(int fd)
{
	if (fdatasync(fd) < 0)
		die(errno, "cannot write back");
}

static uint64_t input_word(uint64_t piece, size_t i)
{
	return mix64(piece * PIECE_WORDS + i + 1);
}

static void make_input(int fd, uint64_t *words, uint64_t pieces)
{
	for (uint64_t piece = 0; piece < pieces; piece++) {
		for (size_t i = 0; i < PIECE_WORDS; i++)
			words[i] = input_word(piece, i);
		write_piece(fd, words, piece);
	}
	write_back(fd);
	posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
}

/* Whether the input, and the output of the round before, are what they were. */
static bool verify(const uint64_t *in, const uint64_t *out, uint64_t piece, uint64_t round)
{
	for (size_t i = 0; i < PIECE_WORDS; i++) {
		if (in[i] != input_word(piece, i)) {
			printf("stream: BAD input, piece %" PRIu64 " word %zu\n", piece, i);
			return false;
		}
		if (round > 1 && out[i] != (in[i] ^ mix64(round - 1))) {
			printf("stream: BAD output, piece %" PRIu64 " word %zu\n", piece, i);
			return false;
		}
	}
	return true;
}

int stream_main(int argc, char **argv)
{
	uint64_t pieces, rate, due, report, round = 1, piece = 0, done = 0, bad = 0;
	uint64_t *in = map_pages(MIB_PAGES), *out = map_pages(MIB_PAGES);
	int input, output;

	if (argc < 2)
		die(0, "FOLDER is missing; usage: stream FOLDER MIB RATE_MIB_S");
	pieces = argument(argc, argv, 2, "MIB", 1, 1 << 20, -1);
	rate = argument(argc, argv, 3, "RATE_MIB_S", 1, 1 << 10, -1);
	if (chdir(argv[1]) < 0)
		die(errno, "cannot go to %s", argv[1]);
	input = open_file("input", O_TRUNC);
	output = open_file("output", O_TRUNC);
	make_input(input, in, pieces);
	puts("stream: filled");

	due = report = now_ns();
	for (;;) {
		uint64_t now;

		read_piece(input, in, piece);
		if (round > 1)
			read_piece(output, out, piece);
		bad += !verify(in, out, piece, round);
		for (size_t i = 0; i < PIECE_WORDS; i++)
			out[i] = in[i] ^ mix64(round);
		write_piece(output, out, piece);
		done++;
		if (++piece == pieces) {
			write_back(output);
			piece = 0;
			round++;
		}
		due += NSEC_PER_SEC / rate;
		now = now_ns();
		if (now - report >= NSEC_PER_SEC) {
			printf("stream: %" PRIu64 " MiB %s\n", done, bad ? "BAD" : "ok");
			report = now;
		}
		if (now > due + LATE_NS)
			due = now;
		sleep_until(due);
	}
}
