/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * memserver.h - a memory server in this process, its two connections over sockets, and a main
 * host that says whatever a test wants it to.
 */
#ifndef TEST_MEMSERVER_H
#define TEST_MEMSERVER_H

#include "unit.h"

#include <errno.h>
#include <semaphore.h>
#include <sys/socket.h>

#include "clock.h"
#include "codec.h"
#include "rng.h"
#include "runs.h"
#include "serve.h"

#define SOON		 (gw_now() + 120 * GW_S)
#define PAGES_OF(chunks) ((chunks)*GW_CHUNK_PAGES)
/* Two blocks: three chunks, and one and a half. */
#define FIRST_PAGES	 PAGES_OF(3UL)
#define SECOND_PAGES	 (PAGES_OF(1UL) + 128)
#define ALL_PAGES	 PAGES_OF(5UL)

struct host {
	char *folder; /* of the files */
	struct gw_hold hold;
	struct gw_memserve serve;
	struct gw_memstore store;
	bool open;
	const char *refuses; /* HOLD, with that */
	struct gw_transport *server[GW_MEMORY_CONNECTIONS], *main[GW_MEMORY_CONNECTIONS];
	pthread_t threads[GW_MEMORY_CONNECTIONS];
	sem_t compared;
	int begun, rc[GW_MEMORY_CONNECTIONS];
	bool connected;
	struct gw_frame f; /* what the main host has heard */
	/* of the main host */
	struct gw_encoder encoder;
	struct gw_batch batch;
	uint64_t frames; /* PAGES that it has sent on this connection */
	uint8_t *got;	 /* what came, each page at its place */
	struct gw_sink sink;
	struct gw_decoder decoder;
	struct gw_bitmap came;
};

static int64_t host_now(void *env)
{
	(void)env;
	return gw_now();
}

static int host_hold(void *env, const struct gw_hold *hold, struct gw_memstore **store)
{
	struct host *h = env;
	int rc = 0;

	if (h->refuses)
		return gw_fail(-ENOMEM, "%s", h->refuses);
	if (!h->open)
		rc = gw_memstore_open(&h->store, h->folder, hold);
	h->open = true;
	gw_memstore_resize(&h->store, hold->size);
	*store = &h->store;
	return rc;
}

static const struct gw_memserve_ops host_ops = { .now = host_now, .hold = host_hold };

static int host_place(struct gw_sink *sink, uint64_t page, unsigned int count, const uint8_t *bytes)
{
	struct host *h = (struct host *)((char *)sink - offsetof(struct host, sink));

	memcpy(h->got + page * GW_PAGE_SIZE, bytes, count * GW_PAGE_SIZE);
	gw_bitmap_set_range(&h->came, page, count);
	return 0;
}

static int host_zero(struct gw_sink *sink, uint64_t page, unsigned int count)
{
	struct host *h = (struct host *)((char *)sink - offsetof(struct host, sink));

	memset(h->got + page * GW_PAGE_SIZE, 0, count * GW_PAGE_SIZE);
	gw_bitmap_set_range(&h->came, page, count);
	return 0;
}

/* What page @page holds in these tests. */
static inline void page_bytes(size_t page, uint8_t *bytes)
{
	struct rng rng = { page + 1 };

	rng_fill(&rng, bytes, GW_PAGE_SIZE);
	if (page % 3 == 0) /* one that can be compressed */
		memset(bytes + 64, (int)page, GW_PAGE_SIZE - 64);
}

static inline int host_make(void **state)
{
	struct host *h = calloc(1, sizeof(*h));

	if (!h)
		return -1;
	*state = h;
	if (unit_folder((void **)&h->folder))
		return -1;
	h->hold = (struct gw_hold){ .name = "web1",
				    .host = "A",
				    .blocks = { { "ram", FIRST_PAGES * GW_PAGE_SIZE },
						{ "more", SECOND_PAGES * GW_PAGE_SIZE } },
				    .nr_blocks = 2,
				    .size = ALL_PAGES / 2 * GW_PAGE_SIZE };
	h->got = calloc(ALL_PAGES, GW_PAGE_SIZE);
	h->sink = (struct gw_sink){ .place = host_place, .zero = host_zero };
	gw_decoder_init(&h->decoder, &h->sink, ALL_PAGES);
	sem_init(&h->compared, 0, 0);
	gw_memserve_init(&h->serve, &host_ops, h, "B");
	return !h->got || gw_bitmap_init(&h->came, ALL_PAGES) ||
	       gw_encoder_bare(&h->encoder,
			       &(struct gw_page_options){ .compress = GW_COMPRESS_LZ4 }, host_now,
			       NULL) ||
	       gw_batch_init(&h->batch, &h->encoder, 0);
}

static void *serve_requests(void *arg)
{
	struct host *h = arg;

	h->begun = gw_memserve_begin(&h->serve, h->server[0]);
	sem_post(&h->compared);
	h->rc[0] = h->begun ? h->begun : gw_memserve_requests(&h->serve, h->server[0]);
	h->server[1]->ops->shutdown(h->server[1]);
	return NULL;
}

static void *serve_bulk(void *arg)
{
	struct host *h = arg;

	while (sem_wait(&h->compared))
		;
	h->rc[1] = h->begun ? h->begun : gw_memserve_bulk(&h->serve, h->server[1]);
	h->server[0]->ops->shutdown(h->server[0]);
	return NULL;
}

static inline void host_connect(struct host *h)
{
	for (unsigned int i = 0; i < GW_MEMORY_CONNECTIONS; i++) {
		int socks[2];

		assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, socks), 0);
		h->server[i] = gw_tcp_adopt(socks[0]);
		h->main[i] = gw_tcp_adopt(socks[1]);
		assert_true(h->server[i] && h->main[i]);
	}
	h->frames = 0;
	assert_int_equal(pthread_create(&h->threads[0], NULL, serve_requests, h), 0);
	assert_int_equal(pthread_create(&h->threads[1], NULL, serve_bulk, h), 0);
	h->connected = true;
}

/* Whoever ends it: the server's threads end, and say how in rc[]. */
static inline void host_join(struct host *h)
{
	for (unsigned int i = 0; i < GW_MEMORY_CONNECTIONS; i++)
		pthread_join(h->threads[i], NULL);
	for (unsigned int i = 0; i < GW_MEMORY_CONNECTIONS; i++) {
		gw_transport_close(&h->server[i]);
		gw_transport_close(&h->main[i]);
	}
	h->connected = false;
}

static inline void host_hang_up(struct host *h)
{
	for (unsigned int i = 0; i < GW_MEMORY_CONNECTIONS; i++)
		h->main[i]->ops->shutdown(h->main[i]);
	host_join(h);
}

/* The server's process ends; what it has stored lies in its folder. */
static inline void host_restart(struct host *h)
{
	if (h->connected)
		host_hang_up(h);
	gw_memserve_free(&h->serve);
	if (h->open)
		gw_memstore_close(&h->store);
	h->open = false;
	gw_memserve_init(&h->serve, &host_ops, h, "B");
}

static inline int host_drop(void **state)
{
	struct host *h = *state;

	host_restart(h);
	gw_frame_free(&h->f);
	gw_batch_free(&h->batch);
	gw_encoder_free(&h->encoder);
	gw_decoder_free(&h->decoder);
	gw_bitmap_free(&h->came);
	sem_destroy(&h->compared);
	free(h->got);
	unit_folder_remove((void **)&h->folder);
	free(h);
	return 0;
}

static inline void say(struct host *h, unsigned int i, unsigned int type, const void *payload,
		       size_t len)
{
	assert_int_equal(gw_frame_send_buf(h->main[i], type, 0, payload, len), 0);
}

static inline void say_runs(struct host *h, unsigned int i, unsigned int type,
			    const size_t (*runs)[2], size_t n)
{
	uint8_t wire[16 * GW_RUN_LEN];

	assert_true(n <= 16);
	for (size_t k = 0; k < n; k++) {
		gw_put64(wire + k * GW_RUN_LEN, runs[k][0]);
		gw_put32(wire + k * GW_RUN_LEN + 8, (uint32_t)runs[k][1]);
	}
	say(h, i, type, wire, n * GW_RUN_LEN);
}

#define say_run(h, i, type, first, count) \
	say_runs(h, i, type, (const size_t[][2]){ { (first), (count) } }, 1)

static inline void hear(struct host *h, unsigned int i, unsigned int type)
{
	assert_int_equal(gw_frame_recv(h->main[i], &h->f, SOON), 0);
	if (h->f.type == GW_MSG_ERROR && type != GW_MSG_ERROR)
		fail_msg("%.*s", (int)h->f.len, (const char *)h->f.payload);
	assert_int_equal(h->f.type, type);
}

/* An ERROR that says @text, and then the end of both connections. */
static inline void hear_error(struct host *h, unsigned int i, const char *text)
{
	hear(h, i, GW_MSG_ERROR);
	assert_non_null(memmem(h->f.payload, h->f.len, text, strlen(text)));
	host_join(h);
}

/* HOLD; return: pages that lie there. */
static inline size_t say_hold(struct host *h)
{
	struct gw_memory m = { .nr_blocks = h->hold.nr_blocks };
	gw_autofree char *text = NULL;

	for (unsigned int i = 0; i < m.nr_blocks; i++) {
		memcpy(m.blocks[i].id, h->hold.blocks[i].id, GW_MEMORY_ID_MAX);
		m.blocks[i].size = h->hold.blocks[i].size;
	}
	text = gw_hold_text(h->hold.name, h->hold.host, &m, h->hold.size, h->hold.carried);
	say(h, 0, GW_MSG_HOLD, text, strlen(text));
	hear(h, 0, GW_MSG_HOLDING);
	return h->f.arg;
}

/* All that lies there is what the main host has not: @pages from @first on. */
static inline void begin(struct host *h, size_t first, size_t pages)
{
	host_connect(h);
	assert_int_equal(say_hold(h), pages);
	if (pages)
		say_run(h, 0, GW_MSG_MISSING, first, pages);
	say(h, 0, GW_MSG_MISSING_END, NULL, 0);
	hear(h, 0, GW_MSG_HOLDING);
	assert_int_equal(h->f.arg, pages);
}

/* A frame of those of @count pages from @first on, all in a chunk. */
static inline int put(struct host *h, size_t first, size_t count)
{
	h->batch.chunk = first / GW_CHUNK_PAGES;
	h->batch.left = gw_pageset_of((unsigned int)(first % GW_CHUNK_PAGES), (unsigned int)count);
	for (size_t page = first; page < first + count; page++)
		page_bytes(page, h->batch.bytes + page % GW_CHUNK_PAGES * GW_PAGE_SIZE);
	gw_pipeline_encode(&h->batch);
	h->frames++;
	return gw_frame_send(h->main[1], GW_MSG_PAGES, h->batch.chunk, h->batch.parts,
			     h->batch.nr_parts);
}

/* The same, and until all lie there. */
static inline void leave(struct host *h, size_t first, size_t count)
{
	assert_int_equal(put(h, first, count), 0);
	do
		hear(h, 1, GW_MSG_STORED);
	while (h->f.arg < h->frames);
	assert_int_equal(h->f.arg, h->frames);
}

/* PAGES on connection @i: what it has is what page_bytes() made. Return: how many pages. */
static inline size_t hear_pages(struct host *h, unsigned int i)
{
	size_t pages = 0;

	hear(h, i, GW_MSG_PAGES);
	gw_bitmap_zero(&h->came);
	assert_int_equal(gw_pipeline_decode(&h->decoder, h->f.arg, h->f.payload, h->f.len), 0);
	for (size_t page = 0; page < ALL_PAGES; page++) {
		uint8_t bytes[GW_PAGE_SIZE];

		if (!gw_bitmap_test(&h->came, page))
			continue;
		page_bytes(page, bytes);
		assert_memory_equal(h->got + page * GW_PAGE_SIZE, bytes, GW_PAGE_SIZE);
		pages++;
	}
	return pages;
}

static inline void assert_run(const struct gw_frame *f, size_t k, size_t first, size_t count)
{
	assert_true(f->len >= (k + 1) * GW_RUN_LEN);
	assert_int_equal(gw_get64(f->payload + k * GW_RUN_LEN), first);
	assert_int_equal(gw_get32(f->payload + k * GW_RUN_LEN + 8), count);
}

#endif
