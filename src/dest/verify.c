// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * verify.c - all memory is compared, with the guest stopped on both hosts (--verify).
 *
 * Before QEMU loads its state, because KVM then writes the guest's clock into its
 * memory. Our digests are made on all cores from the first VERIFY on, which a
 * source sends before it makes its own, so that both hosts work at a time. Once it
 * has sent all of them it hears from us (WAIT) until we are done: it may be minutes.
 */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "clock.h"
#include "codec.h"
#include "digest.h"
#include "error.h"
#include "feature.h"
#include "kept.h"
#include "paging.h"
#include "verify.h"

struct verify {
	struct gw_dest *d;
	size_t chunks, told; /* of these the source has sent its digests */
	uint8_t *theirs;     /* as they travel */
	struct gw_digest *ours;
	_Atomic size_t next, done;
	_Atomic bool halted;
	int threads;
	_Atomic int ended;
	pthread_mutex_t lock; /* rc and message */
	int rc;
	char message[GW_ERROR_MAX];
};

static int digest_chunk(struct verify *v, size_t chunk, uint8_t *bytes)
{
	const struct gw_dest *d = v->d;
	const size_t first = chunk * GW_CHUNK_PAGES;
	const int hole = gw_memory_is_hole(d->memory, first, GW_CHUNK_PAGES);
	int rc = hole ? hole : gw_memory_read(d->memory, first, GW_CHUNK_PAGES, bytes);

	if (rc < 0)
		return rc;
	/* Of what is still to come both sides count zeros. */
	for (size_t k = 0; !hole && d->page && k < GW_CHUNK_PAGES; k++)
		if (gw_page_missing(d, first + k))
			memset(bytes + k * GW_PAGE_SIZE, 0, GW_PAGE_SIZE);
	v->ours[chunk] = d->keyed ? gw_key_chunk(&d->key, hole ? NULL : bytes, GW_CHUNK_PAGES)
				  : gw_digest_chunk(hole ? NULL : bytes, GW_CHUNK_PAGES);
	return 0;
}

static int digest_some(struct verify *v)
{
	gw_autofree uint8_t *bytes = aligned_alloc(GW_PAGE_SIZE, GW_CHUNK_SIZE);
	size_t chunk;
	int rc = 0;

	if (!bytes)
		return gw_fail(-ENOMEM, "no memory to verify with");
	while (!rc && !v->halted && (chunk = v->next++) < v->chunks) {
		rc = digest_chunk(v, chunk, bytes);
		v->done += !rc;
	}
	return rc;
}

static void work(void *arg, unsigned int i)
{
	struct verify *v = arg;
	const int rc = digest_some(v);

	(void)i;
	if (rc) {
		gw_locked(&v->lock);
		v->rc = rc;
		snprintf(v->message, sizeof(v->message), "%s", gw_error());
		v->halted = true;
	}
	v->ended++;
	v->d->ops->notify(v->d->env);
}

/* The digests of the VERIFY in the inbox. */
static int take(struct verify *v)
{
	const struct gw_frame *f = &v->d->inbox;
	const size_t n = f->len / GW_DIGEST_LEN;

	if (f->type != GW_MSG_VERIFY || f->len % GW_DIGEST_LEN || f->arg != v->told ||
	    n > v->chunks - v->told)
		return gw_fail(-EPROTO, "source: sent %s, which is not due now",
			       gw_message_name(f->type));
	if (n)
		memcpy(v->theirs + v->told * GW_DIGEST_LEN, f->payload, n * GW_DIGEST_LEN);
	v->told += n;
	return 0;
}

static bool has_ended(void *arg)
{
	const struct verify *v = arg;

	return v->ended == v->threads;
}

/* All digests are here but ours. Every thread is waited for: one that is late has our memory open.
 */
static int wait_for_ours(struct verify *v)
{
	struct gw_dest *d = v->d;
	const int64_t by = d->ops->now(d->env) + gw_memory_hash_ns(d->memory);
	char what[64];
	int rc;

	while ((rc = d->ops->wait(d->env, has_ended, v,
				  d->ops->now(d->env) + GW_DEST_WAIT_MS * GW_MS)) == -ETIMEDOUT &&
	       d->ops->now(d->env) < by) {
		snprintf(what, sizeof(what), "comparing all memory: %zu %%",
			 v->done * 100 / v->chunks);
		if (d->features >> GW_FEATURE_VERIFY & 1)
			gw_dest_wait(d, what);
	}
	if (rc == -ETIMEDOUT)
		return gw_fail(rc, "all memory could not be compared in time: %zu of %zu MiB",
			       (size_t)v->done, v->chunks);
	return rc || !v->rc ? rc : gw_fail(v->rc, "%s", v->message);
}

static int judge(const struct verify *v)
{
	for (size_t i = 0; i < v->chunks; i++) {
		if (!gw_digest_equal(gw_get_digest(v->theirs + i * GW_DIGEST_LEN), v->ours[i]))
			return gw_fail(-EBADMSG,
				       "verification failed: pages %zu to %zu differ "
				       "between the hosts; please report this",
				       i * GW_CHUNK_PAGES, (i + 1) * GW_CHUNK_PAGES - 1);
	}
	return 0;
}

static int compare(struct verify *v)
{
	struct gw_dest *d = v->d;
	int rc;

	v->threads = d->ops->compute(d->env, work, v);
	rc = v->threads < 0 ? v->threads : 0;
	while (!rc && (d->inbox.type != GW_MSG_VERIFY_END || v->told != v->chunks)) {
		rc = take(v);
		/* It may be making all of its own before it sends any. */
		if (!rc)
			rc = gw_dest_next(d, d->ops->now(d->env) + gw_memory_hash_ns(d->memory));
	}
	if (!rc)
		rc = wait_for_ours(v);
	v->halted = true;
	d->ops->compute_join(d->env);
	return rc ? rc : judge(v);
}

int gw_dest_verify(struct gw_dest *d)
{
	struct verify v = { .d = d, .chunks = d->memory->nr_pages / GW_CHUNK_PAGES };
	gw_autofree uint8_t *theirs = malloc(v.chunks * GW_DIGEST_LEN + 1);
	gw_autofree struct gw_digest *ours = calloc(v.chunks + 1, sizeof(*ours));
	int rc;

	if (!theirs || !ours)
		return gw_fail(-ENOMEM, "no memory to verify with");
	v.theirs = theirs;
	v.ours = ours;
	pthread_mutex_init(&v.lock, NULL);
	rc = compare(&v);
	pthread_mutex_destroy(&v.lock);
	return rc ? rc : gw_frame_send(d->control, GW_MSG_VERIFIED, 0, NULL, 0);
}
