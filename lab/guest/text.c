/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * text: memory that a compressor can make smaller, then nothing.
 *
 * Prose, JSON records and C-like code, in pieces of 1 to 4 KiB. Words are made
 * of syllables and drawn so that a few are frequent and most are rare, as in
 * a language; numbers and identifiers are random. So no page is like another,
 * and zstd takes it to about a third. The same for the same seed.
 */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "../served.h"
#include "guest.h"

#define WORDS	     4096
#define WORD_BYTES   16
#define SENTENCE_MAX 14
/* The longest that one call of a writer below adds. */
#define PIECE_MAX    512

struct word {
	uint8_t length;
	char bytes[WORD_BYTES];
};

struct text {
	char *at;
	uint64_t random;
	struct word words[WORDS];
};

static const char *const syllables[] = {
	"a",  "al",  "an", "ar",  "ba", "be",  "bo",  "ca",  "ce",  "co",  "con", "da",
	"de", "di",  "do", "e",	  "el", "en",  "er",  "ess", "fa",  "fi",  "for", "ga",
	"ge", "go",  "ha", "he",  "ho", "i",   "il",  "in",  "ing", "ion", "is",  "ka",
	"la", "le",  "li", "lo",  "ma", "me",  "mi",  "mo",  "na",  "ne",  "ni",  "no",
	"o",  "on",  "or", "ous", "pa", "per", "pi",  "po",  "pre", "qua", "ra",  "re",
	"ri", "ro",  "sa", "se",  "si", "so",  "sta", "ta",  "te",  "ter", "ti",  "tion",
	"to", "tra", "tu", "u",	  "un", "ur",  "va",  "ver", "vi",  "wa",  "we",  "y",
};

/* A number below @limit, evenly spread. */
static size_t below(struct text *t, size_t limit)
{
	return (next_random(&t->random) >> 32) * limit >> 32;
}

static void make_words(struct text *t)
{
	for (size_t i = 0; i < WORDS; i++) {
		struct word *word = &t->words[i];
		/* The frequent ones are short. */
		size_t parts = 1 + (i > 40) + (i > 400) + below(t, 2);

		while (parts--) {
			const char *part =
				syllables[below(t, sizeof(syllables) / sizeof(*syllables))];
			size_t length = strlen(part);

			memcpy(word->bytes + word->length, part, length);
			word->length += length;
		}
	}
}

/* Whole words are copied, whatever their length: what lies behind is overwritten. */
static void put_word(struct text *t)
{
	/* Each halving of the range is equally likely: rank times frequency is about constant. */
	size_t range = (size_t)WORDS >> below(t, 9);
	const struct word *word = &t->words[below(t, range)];

	memcpy(t->at, word->bytes, WORD_BYTES);
	t->at += word->length;
}

static void put(struct text *t, const char *string)
{
	size_t length = strlen(string);

	memcpy(t->at, string, length);
	t->at += length;
}

static void put_digits(struct text *t, size_t digits, unsigned int base)
{
	uint64_t number = next_random(&t->random);

	for (size_t i = 0; i < digits; i++, number /= base)
		*t->at++ = "0123456789abcdef"[(number >> 8) % base];
}

static void put_sentence(struct text *t)
{
	size_t words = 4 + below(t, SENTENCE_MAX - 3);

	while (words--) {
		put_word(t);
		put(t, words ? (below(t, 8) ? " " : ", ") : (below(t, 4) ? ". " : ".\n"));
	}
}

static void put_record(struct text *t)
{
	put(t, "{\"id\":");
	put_digits(t, 6, 10);
	put(t, ",\"name\":\"");
	put_word(t);
	put(t, "\",\"state\":\"");
	put(t, below(t, 5) ? "active" : "suspended");
	put(t, "\",\"tags\":[\"");
	put_word(t);
	put(t, "\",\"");
	put_word(t);
	put(t, "\"],\"key\":\"");
	put_digits(t, 8, 16);
	put(t, "\",\"score\":0.");
	put_digits(t, 4, 10);
	put(t, "},\n");
}

static void put_statement(struct text *t)
{
	put(t, "\tif (");
	put_word(t);
	put(t, "->");
	put_word(t);
	put(t, below(t, 2) ? " != NULL)\n\t\t" : " < 0)\n\t\treturn ");
	put_word(t);
	put(t, "_");
	put_word(t);
	put(t, "(");
	put_word(t);
	put(t, ", 0x");
	put_digits(t, 4, 16);
	put(t, ");\n");
}

static void (*const writers[])(struct text *t) = { put_sentence, put_record, put_statement };

/* Fills all from @to to @end; the last piece is cut where the memory ends. */
static void write_text(struct text *t, char *to, char *end)
{
	char last[2 * PIECE_MAX] = { 0 };

	t->at = to;
	while (end - t->at > PIECE_MAX) {
		void (*writer)(struct text * t) = writers[below(t, 3)];
		char *stop = t->at + 1024 + below(t, 3072);

		while (t->at < stop && end - t->at > PIECE_MAX)
			writer(t);
	}
	to = t->at;
	t->at = last;
	while (t->at - last < end - to)
		put_sentence(t);
	memcpy(to, last, end - to);
	t->at = end;
}

int text_main(int argc, char **argv)
{
	static struct text text;
	size_t bytes = argument(argc, argv, 1, "MIB", 1, 1 << 20, -1) * MIB_PAGES * PAGE_SIZE;
	char *memory = map_pages(bytes / PAGE_SIZE);

	text.random = mix64(argument(argc, argv, 2, "SEED", 0, UINT64_MAX, 1)) | 1;
	make_words(&text);
	write_text(&text, memory, memory + bytes);
	puts("text: filled");
	for (;;)
		pause();
}
