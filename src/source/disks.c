// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * disks.c - whether the destination has the same disks, before a page moves (disk/samples.h).
 *
 * A difference is believed after GW_SAMPLES_ASKED looks at both sides, at random moments: a
 * guest that keeps writing two things to a block in turn, on storage that both
 * hosts share, would have to meet each of them in the same half.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "cleanup.h"
#include "clock.h"
#include "codec.h"
#include "error.h"
#include "feature.h"
#include "internal.h"
#include "log.h"
#include "samples.h"

/* The destination gives up reading long before, and says so. */
#define DISK_NS (20 * GW_S)

static void wait_a_moment(struct gw_source *s)
{
	uint8_t byte = 0;

	if (getrandom(&byte, 1, 0) != 1)
		byte = 99;
	s->ops->sleep_until(s->env, s->ops->now(s->env) + (5 + byte / 8) * GW_MS);
}

/* The other side's digests of the blocks. */
static int ask(struct gw_holder *h, const struct gw_samples *blocks, struct gw_digest *theirs)
{
	gw_autofree char *text = gw_samples_ask(blocks);
	int rc = text ? gw_frame_send_buf(h->control, GW_MSG_SAMPLE, 0, text, strlen(text))
		      : gw_fail(-ENOMEM, "no memory to compare disks with");

	if (!rc)
		rc = gw_holder_expect(h, GW_MSG_SAMPLED, h->ops->now(h->env) + DISK_NS);
	if (!rc && h->inbox.len != blocks->nr * GW_DIGEST_LEN)
		rc = gw_fail(-EPROTO, "destination: digests of %zu blocks, asked for %zu",
			     h->inbox.len / GW_DIGEST_LEN, blocks->nr);
	for (size_t i = 0; !rc && i < blocks->nr; i++)
		theirs[i] = gw_get_digest(h->inbox.payload + i * GW_DIGEST_LEN);
	return rc;
}

static bool is_unknown(struct gw_digest d)
{
	return gw_digest_equal(d, GW_DIGEST_UNKNOWN);
}

/* What cannot be read costs the comparison, and nothing else. */
static void warn_unknown(const struct gw_samples *blocks, const struct gw_digest *theirs)
{
	size_t here = 0, there = 0;

	for (size_t i = 0; i < blocks->nr; i++) {
		here += is_unknown(blocks->at[i].first);
		there += is_unknown(theirs[i]);
	}
	if (here || there)
		gw_warn("the VM's disks are compared with the destination's only in part: of %zu "
			"blocks %zu could not be read here, %zu there (its log says why)",
			blocks->nr, here, there);
}

int gw_source_compare_disks(struct gw_source *s)
{
	struct gw_holder *h = &s->holder;
	gw_autofree struct gw_digest *theirs = NULL;
	gw_autofree struct gw_samples *blocks = NULL;
	int rc;

	if (!s->ops->disks || !gw_holder_has(h, GW_FEATURE_DISKS) ||
	    !gw_holder_has(h, GW_FEATURE_KEYED))
		return 0;
	theirs = calloc(GW_SAMPLES_MAX, sizeof(*theirs));
	blocks = calloc(1, sizeof(*blocks));
	if (!theirs || !blocks)
		return gw_fail(-ENOMEM, "no memory to compare disks with");
	rc = s->ops->disks(s->env, blocks, true);
	if (blocks->why[0])
		gw_warn("not all of the VM's disks are compared with the destination's: %s",
			blocks->why);
	for (int i = 0; !rc && blocks->nr && i < GW_SAMPLES_ASKED; i++) {
		if (i)
			wait_a_moment(s);
		rc = s->ops->cancelled(s->env);
		if (!rc)
			rc = ask(h, blocks, theirs);
		if (!rc && !i)
			warn_unknown(blocks, theirs);
		if (!rc)
			gw_samples_hear(blocks, theirs, !i);
		if (!rc && blocks->nr)
			rc = s->ops->disks(s->env, blocks, false);
		if (!rc)
			gw_samples_judge(blocks);
	}
	if (!rc && blocks->nr)
		rc = gw_samples_refuse(blocks, h->host[0] ? h->host : "?");
	gw_samples_free(blocks);
	return rc;
}
