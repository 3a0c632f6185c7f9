// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * fuzz_memserver.c - a main host that says anything, to gw_memserve_*().
 *
 * The input is what it says: a byte that is the connection and the message, two of the length,
 * and the payload, again and again; the frames around them are sound. The first message on
 * connection 0 should be HOLD. Whatever comes, no more pages lie there than were promised, those
 * that do are counted, and what is answered is of pages that there are.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cleanup.h"
#include "clock.h"
#include "error.h"
#include "fuzz.h"
#include "io.h"
#include "serve.h"

/* Hears what is said to it, and says the input. */
struct way {
	struct gw_transport t;
	const uint8_t *in;
	size_t left;
	unsigned int index;
	uint8_t frame[GW_FRAME_HEADER + 65536];
	size_t at, len; /* of the frame, what was read, and all */
};

static struct gw_memstore store;
static bool is_open;

/* Put together by frame.c itself, into the frame. */
static int make_send(struct gw_transport *t, struct iovec *iov, int n)
{
	struct way *w = (struct way *)t;

	for (int i = 0; i < n; i++) {
		memcpy(w->frame + w->len, iov[i].iov_base, iov[i].iov_len);
		w->len += iov[i].iov_len;
	}
	return 0;
}

static const struct gw_transport_ops makes = { .send = make_send };

static bool next_frame(struct way *w)
{
	static const uint8_t types[] = {
		GW_MSG_HOLD,	GW_MSG_MISSING, GW_MSG_MISSING_END, GW_MSG_REQUEST,
		GW_MSG_RELEASE, GW_MSG_PAGES,	GW_MSG_DISMISS,	    GW_MSG_ERROR,
	};

	while (w->left >= 4) {
		const uint8_t *head = w->in;
		const unsigned int type = types[head[0] / 2 % sizeof(types)];
		size_t len = head[1] | (size_t)head[2] << 8;

		if (len > w->left - 4)
			len = w->left - 4;
		w->in += 4 + len;
		w->left -= 4 + len;
		if (head[0] % 2 != w->index || (long)len > gw_message_max(type))
			continue;
		w->at = w->len = 0;
		w->t.ops = &makes;
		if (gw_frame_send_buf(&w->t, type, head[3], head + 4, len))
			abort();
		return true;
	}
	return false;
}

static const struct gw_transport_ops speaks;

static int speak(struct gw_transport *t, void *buf, size_t len, int64_t deadline)
{
	struct way *w = (struct way *)t;

	(void)deadline;
	while (w->at + len > w->len) {
		const bool more = next_frame(w);

		t->ops = &speaks;
		if (!more)
			return gw_fail(-ECONNRESET, "it is gone");
	}
	memcpy(buf, w->frame + w->at, len);
	w->at += len;
	return 0;
}

/* Whether what is answered can be. */
static int hear(struct gw_transport *t, struct iovec *iov, int n)
{
	struct gw_frame f = { 0 };
	size_t len = 0;

	(void)t;
	if (gw_frame_parse_header(iov[0].iov_base, &f))
		abort();
	for (int i = 1; i < n; i++)
		len += iov[i].iov_len;
	if (f.len != len ||
	    (f.type == GW_MSG_PAGES && f.arg * GW_CHUNK_PAGES >= store.ram.memory.nr_pages))
		abort();
	return 0;
}

static void nothing(struct gw_transport *t)
{
	(void)t;
}

static const struct gw_transport_ops speaks = {
	.send = hear, .recv = speak, .shutdown = nothing, .close = nothing
};

static int64_t now(void *env)
{
	(void)env;
	return 0;
}

static int hold(void *env, const struct gw_hold *what, struct gw_memstore **at)
{
	int rc = gw_memstore_open(&store, env, what);

	is_open = true;
	*at = &store;
	return rc;
}

static const struct gw_memserve_ops ops = { .now = now, .hold = hold };

static void check(void)
{
	if (!is_open || !store.here.words)
		return;
	if (store.pages > store.most ||
	    store.pages != gw_bitmap_count(&store.here, 0, store.ram.memory.nr_pages) ||
	    gw_memory_resident(&store.ram.memory) / GW_PAGE_SIZE != store.pages)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static char folder[] = "/dev/shm/gw-fuzz-XXXXXX";
	static bool made;
	struct way *ways[GW_MEMORY_CONNECTIONS];
	struct gw_memserve s;
	int rc;

	if (!made && !mkdtemp(folder))
		abort();
	made = true;
	for (unsigned int i = 0; i < GW_MEMORY_CONNECTIONS; i++) {
		ways[i] = calloc(1, sizeof(*ways[i]));
		if (!ways[i])
			abort();
		ways[i]->t = (struct gw_transport){ .ops = &speaks, .poll_fd = -1, .wake_fd = -1 };
		ways[i]->in = data;
		ways[i]->left = size;
		ways[i]->index = i;
	}
	is_open = false;
	gw_memserve_init(&s, &ops, folder, "B");
	rc = gw_memserve_begin(&s, &ways[0]->t);
	check();
	if (!rc) {
		gw_memserve_bulk(&s, &ways[1]->t);
		check();
		gw_memserve_requests(&s, &ways[0]->t);
		check();
	}
	gw_memserve_free(&s);
	if (is_open)
		gw_memstore_close(&store);
	memset(&store, 0, sizeof(store));
	if (gw_remove_tree(folder))
		abort();
	for (unsigned int i = 0; i < GW_MEMORY_CONNECTIONS; i++)
		free(ways[i]);
	return 0;
}
