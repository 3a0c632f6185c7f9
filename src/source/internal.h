/* SPDX-License-Identifier: GPL-2.0-or-later */
/* internal.h - what the files of source/ share among themselves. */
#ifndef GW_SOURCE_INTERNAL_H
#define GW_SOURCE_INTERNAL_H

#include <errno.h>

#include "source.h"

/* How long the destination may take to answer, in ns. */
#define GW_ANSWER_NS	 (5 * GW_S)
/* To start QEMU there, without a word (WAIT) that it is still at it. */
#define GW_ROUND_NS	 (12 * GW_ANSWER_NS) /* without a word, at a round's end */
#define GW_READY_NS	 (60 * GW_S)
/*
 * What a destination that has the guest, or all of it, may take beyond the deadline: to load
 * its state before the guest resumes here; to answer COMMIT before it is in doubt.
 */
#define GW_LATE_NS	 (2 * GW_S)
#define GW_SWITCHOVER_NS (10 * GW_S)

/* From threads that were told to stop: why is known to whoever told them. */
#define GW_HALTED (-ESHUTDOWN)

/* machine.c */
int gw_source_enter(struct gw_source *s, enum gw_source_state next);
int gw_source_scan(struct gw_source *s);
int gw_source_resume(struct gw_source *s);
int gw_source_stop(struct gw_source *s);
/* Pages of a last round that was cut, and which it has not sent. */
static inline size_t gw_source_unsent(const struct gw_source *s)
{
	return gw_bitmap_count(&s->due, s->unsent, s->memory->nr_pages - s->unsent);
}
/* Past the deadline of its stop the guest goes on here. By the thread that stopped it. */
void gw_source_tick(struct gw_source *s);

/* round.c: send the pages in s->due; the last round looks at no page twice. */
int gw_round_start(struct gw_source *s);
int gw_round_send(struct gw_source *s, bool last);
int gw_round_compare(struct gw_source *s);
/* The due pages of chunk @chunk, as they are now, into @batch; its left is empty: there are none.
 */
int gw_round_take(struct gw_source *s, struct gw_batch *batch, size_t chunk);
/* Encode the pages in @batch->left, send them on @t, and count them. */
int gw_round_put(struct gw_source *s, struct gw_batch *batch, struct gw_transport *t);
/* The same, but it is @send that sends them, @copies times in all. */
typedef int gw_send_fn(struct gw_source *s, void *to, const struct gw_batch *batch);
int gw_round_put_by(struct gw_source *s, struct gw_batch *batch, gw_send_fn *send, void *to,
		    unsigned int copies);
void gw_round_stop(struct gw_source *s);
/* What was under way since the last round began took too long: learn how slow the network is. */
void gw_round_late(struct gw_source *s);

/*
 * reuse.c: the object of DEFINE (NULL: none); what READY (in the inbox) says and
 * the ABSENT after it; the first round's due pages, made of those written since
 * the arrival; the ledger of this departure, made, sent, and for the caller to keep.
 */
json_t *gw_reuse_offer(const struct gw_source *s);
int gw_reuse_answer(struct gw_source *s);
int gw_reuse_due(struct gw_source *s);
int gw_reuse_depart(struct gw_source *s, struct gw_ledger *l);
/*
 * Make the table of what the destination holds of the memory here; for a process that has not
 * sent all of it, once nothing is missing there. The guest stands still since it left, so what
 * lies here is what came there, which is all that a ledger says.
 */
int gw_reuse_rehash(struct gw_source *s);

/*
 * compared.c, where the image is compared during the rounds: leave out of the first
 * what depends on that; after it send that, too, as far as it must be.
 */
int gw_compared_begin(struct gw_source *s);
int gw_compared_rest(struct gw_source *s);
void gw_compared_free(struct gw_holder *h);

/*
 * serve.c: post-copy. Paging connections (the guest runs here); on the control connection,
 * what the destination is to lack; serve it (the guest stands still); until it lacks
 * nothing; the same after another process did all of it but the last.
 */
int gw_serve_open(struct gw_source *s);
int gw_serve_tell(struct gw_source *s);
int gw_serve_begin(struct gw_source *s);
/* Before COMMIT, an on_tick of the control connection: 0, or why it cannot be served. */
int gw_serve_failed(void *arg);
/* COMMIT was not answered. 0: it runs there and needs us; else the failure as it was. */
int gw_serve_doubt(struct gw_source *s, int rc);
int gw_serve_rest(struct gw_source *s);
int gw_serve_on(struct gw_source *s);
/* It cannot be served any more, and what is here is its user's to judge. Returns @rc. */
int gw_serve_lost(struct gw_source *s, int rc);
void gw_serve_end(struct gw_source *s);

/*
 * whole.c: @look at each chunk of memory, from threads that each have their own @bytes, which it
 * may change; NULL: a hole. 0, -errno, or GW_HALTED.
 */
int gw_source_whole(struct gw_source *s, void (*look)(void *arg, size_t chunk, uint8_t *bytes),
		    void *arg);

/*
 * teleport.c: whether disks may be read there instead of pages; whether they are, once READY is
 * here; in the round that has just begun (as ops->cancelled(), since it may wait); while it is
 * sent, @done of its pages in @ns; ROUND_DONE, and before it what is lacking, which is due after
 * the next scan (*waited: ns of it for nothing but the disks there).
 */
bool gw_teleport_wanted(const struct gw_source *s);
int gw_teleport_start(struct gw_source *s);
int gw_teleport_round(struct gw_source *s, bool last);
void gw_teleport_tick(struct gw_source *s, int64_t ns, uint64_t done);
/*
 * Post-copy: ask who knows, while the guest still runs here, where no round does (as the one
 * above); whether pages may be pushed by what is known, to the process that READY came from; the
 * destination has refused one of them (one thread at a time): whether to go on with it.
 */
int gw_teleport_ask(struct gw_source *s);
bool gw_teleport_push(struct gw_source *s);
bool gw_teleport_refused(struct gw_source *s, size_t page);
int gw_teleport_wait(struct gw_source *s, int64_t *waited);
void gw_teleport_due(struct gw_source *s);
void gw_teleport_free(struct gw_source *s);

/*
 * defer.c: whether anything is to be predicted; from the time on that writes are tracked; an
 * on_tick of the control connection while READY is waited for; look what is used, before the first
 * round, or, without rounds, before all of it follows the guest.
 */
bool gw_defer_wanted(const struct gw_source *s);
int gw_defer_start(struct gw_source *s);
int gw_defer_tick(void *arg);
int gw_defer_watch(struct gw_source *s);
void gw_defer_expect(struct gw_source *s);
/*
 * What was found written before the first scan that counts is due after it; what waits in the first
 * round; in the next, which would cost @cost if it were the last; in the last one nothing does.
 */
void gw_defer_early(struct gw_source *s);
void gw_defer_first(struct gw_source *s);
void gw_defer_round(struct gw_source *s, int64_t cost);
void gw_defer_end(struct gw_source *s);
/* What is expected to be used soon, where the guest goes before its memory; NULL: nobody knows. */
const struct gw_bitmap *gw_defer_sooner(const struct gw_source *s);
/* Pages that wait and are not in @written. */
uint64_t gw_defer_left(const struct gw_source *s, const struct gw_bitmap *written);
void gw_defer_free(struct gw_source *s);

/* converge.c */
struct gw_converge {
	int64_t best;	   /* lowest expected downtime so far, ns */
	unsigned int idle; /* rounds without a better one */
	int64_t last_scan;
	int64_t within;		/* what it was when it last kept to the limit; 0: never yet */
	unsigned int extra;	/* rounds made since, only to lower it */
	unsigned int heavy;	/* rounds in which the device state alone was above the limit */
	unsigned int disturbed; /* quiesced scans in which the guest was continued */
	bool compared;
};
/* What a switchover would cost now, in ns of the guest's time; and of that, what no round lowers.
 */
int64_t gw_converge_cost(const struct gw_source *s, uint64_t pages);
/* How many pages the last round may have within the downtime limit. */
size_t gw_converge_fits(const struct gw_source *s);
int64_t gw_converge_fixed(const struct gw_source *s);
/*
 * What this switchover has taken by LOAD, in µs, of what no round lowers and nothing else
 * foretells: for the next ones (wire/legs.h). @handover: device state alone. 0: of no use.
 */
uint64_t gw_converge_leg(const struct gw_source *s, int64_t handover);
/* Whether @cost, which keeps to the limit, is as low as it gets by a few cheap rounds more. */
bool gw_converge_enough(const struct gw_source *s, struct gw_converge *c, int64_t cost);
/*
 * 0: another round; -ETIME: rounds alone do not get there; -ERANGE: nothing does, since
 * what follows the guest's stop in any case takes too long.
 */
int gw_converge_check(struct gw_source *s, struct gw_converge *c, int64_t cost);
/*
 * Whether no round can get there: this one has taken @ns, and @written pages were written again
 * @since_scan, which began before it.
 */
bool gw_converge_never(const struct gw_source *s, int64_t ns, int64_t since_scan, uint64_t written);
/*
 * The same of the last round, at its end, where post-copy may follow: a guest that does not write
 * evenly, or a host that is busy, may hide it from who looks in the middle (round.c).
 */
bool gw_converge_behind(const struct gw_source *s, const struct gw_converge *c, int64_t now,
			uint64_t written);

/** gw_source_copy_storage() - before the first round; where disks are copied. 0 or -errno. */
int gw_source_copy_storage(struct gw_source *s);

/** gw_source_storage_left() - look how much is left of that: s->storage_left. 0 or -errno. */
int gw_source_storage_left(struct gw_source *s);

/**
 * gw_source_settle_storage() - the guest stands still: the destination has what is on its disks.
 * Return: 0; -EAGAIN: that takes too long, and where it ran it does again (s->over); -errno.
 */
int gw_source_settle_storage(struct gw_source *s);

/* disks.c: 0, or -ENOTSUP naming the disk that holds something else there */
int gw_source_compare_disks(struct gw_source *s);

/* verify.c: all memory is the same on both hosts, which stand still; 0 or -errno. */
int gw_source_verify(struct gw_source *s);
/*
 * handover.c: the device state of a stopped guest, until it is loaded there. -EAGAIN with
 * @s->over: it took too long, the guest runs, and the destination has forgotten it.
 */
int gw_handover(struct gw_source *s, bool round_done);
/* Past its deadline the guest goes on here: -EAGAIN. */
int gw_handover_in_time(struct gw_source *s);
/* When a guest that stands still here is resumed whatever the destination is at. */
int64_t gw_handover_end(const struct gw_source *s);

/* switchover.c */
int gw_source_quiesce(struct gw_source *s, bool compare);
/* -EAGAIN with @s->over: the last pages took too long, the guest runs: gw_source_again(). */
int gw_source_switchover(struct gw_source *s);
int gw_source_again(struct gw_source *s);
/* The guest runs there: leave what will be of use when it comes back, on both hosts. */
int gw_source_leave(struct gw_source *s);

#endif
