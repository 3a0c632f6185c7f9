/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * source.h - the source's half of a migration.
 *
 *   setup ──> active ──> pre-switchover ──> device ──> completed
 *     │          │             │              │
 *     └──────────┴─────────────┴──────────────┼──> failed, or
 *                                             │    cancelling ──> cancelled
 *                                             └──> in doubt (COMMIT sent, no answer)
 *
 *   setup           gw_source_setup()       machine.c
 *   active          gw_source_rounds()      machine.c, round.c, converge.c
 *   pre-switchover  gw_source_switchover()  switchover.c: guest stopped, last pages
 *   device          the same: VERIFIED, device state (handover.c), LOADED, COMMIT
 *                   (until LOAD, past the downtime limit, back to active: the guest runs)
 *   completed       RUNNING arrived; the source's QEMU quits
 *
 *   With post-copy, from device on, and there is no way back from either:
 *     device ──> postcopy-active <──> postcopy-paused, then completed
 *   postcopy-active gw_serve_rest()         serve.c: RUNNING arrived, pages are still here
 *   postcopy-paused the same: the destination cannot be reached
 *
 * Rules: until COMMIT is sent every failure ends with the guest running here
 * again (invariant 1); from then on nothing here ever resumes it by itself.
 * The machine reaches time, peer, QEMU and journal only through its ops, so
 * tests/sim runs it in virtual time against dest.h.
 */
#ifndef GW_SOURCE_H
#define GW_SOURCE_H

#include <jansson.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "bitmap.h"
#include "carried.h"
#include "clock.h"
#include "defer.h"
#include "faults.h"
#include "holder.h"
#include "holes.h"
#include "ledger.h"
#include "legs.h"
#include "memory.h"
#include "pace.h"
#include "samples.h"
#include "spread.h"
#include "tracker.h"
#include "urgency.h"

/* Without --streams. */
#define GW_STREAMS_LEAST 2
#define GW_STREAMS_MOST	 8
#define GW_ROUNDS_KEPT	 256

/*
 * Stop, final scan, device state without a display's memory, resume, in ms: 9 to
 * 25 on the machines measured.
 */
#define GW_SOURCE_FIXED_MS 25

enum gw_source_state {
	GW_SOURCE_SETUP,
	GW_SOURCE_ACTIVE,
	GW_SOURCE_PRE_SWITCHOVER,
	GW_SOURCE_DEVICE,
	GW_SOURCE_POSTCOPY_ACTIVE,
	GW_SOURCE_POSTCOPY_PAUSED,
	GW_SOURCE_COMPLETED,
	GW_SOURCE_FAILED,
	GW_SOURCE_CANCELLING,
	GW_SOURCE_CANCELLED,
	GW_SOURCE_IN_DOUBT, /* "failed" to the user, with a VM that only recover may resume */
};

/* What the journal must know to put things right after our death (daemon/recover.c). */
enum gw_source_phase {
	GW_SOURCE_MOVING,     /* the guest belongs here: resume it */
	GW_SOURCE_COMMITTING, /* COMMIT may have been sent: never resume by ourselves */
	GW_SOURCE_LEFT,	      /* the guest runs there: remove what is left here */
	GW_SOURCE_SERVING,    /* it does, and lacks pages that are here: bring them (serve.c) */
	/* It did, and is gone there, or what it lacks is lost: what is here is its user's to judge.
	 */
	GW_SOURCE_GONE,
};

struct gw_source_ops {
	int64_t (*now)(void *env);
	void (*sleep_until)(void *env, int64_t when);
	/*
	 * Replace the journal; on return it survives our death. Beside @phase it
	 * keeps gw_source.stopped: only then does whoever finds us dead resume the guest.
	 */
	int (*journal)(void *env, enum gw_source_phase phase);
	/* A new connection to the destination, before OPEN. NULL with a message. */
	struct gw_transport *(*connect)(void *env, int64_t deadline);
	/*
	 * Watch writes. NULL with a message. @resumed: they were watched before, so
	 * pages may be written already; @since_arrival: ever since the guest arrived.
	 */
	struct gw_tracker *(*track)(void *env, bool *resumed, bool *since_arrival);
	/*
	 * Guest control. Look: whether it runs; -ENOTSUP, with its state in the
	 * message, if it is in one that cannot be moved. Stop returns with all
	 * device I/O drained (F7); *ours is cleared if the guest had stopped by
	 * itself or by its user meanwhile. Stayed: -EAGAIN if somebody else has
	 * continued it since the last look or stop; then resume leaves it as it is by now,
	 * because it is not the one who stopped it any more.
	 */
	int (*guest_look)(void *env, bool *runs);
	int (*guest_stop)(void *env, bool *ours);
	int (*guest_stayed)(void *env);
	int (*guest_resume)(void *env);
	/* End it; keep its memory with the ledger @keep, which is closed, or (NULL) do not. */
	int (*guest_quit)(void *env, struct gw_ledger *keep);
	/* The ledger of this departure, empty, where guest_quit wants to find it. */
	int (*ledger)(void *env, size_t nr_pages, struct gw_ledger *l);
	/*
	 * Bytes that QEMU itself will send with its device state, as things are now:
	 * memory that is in no RAM file, such as a display's. The guest runs on.
	 */
	uint64_t (*device_weight)(void *env);
	/*
	 * QEMU's device state: begin saving, read (0: end), make sure that it is whole. A
	 * QEMU that is not done by @deadline (GW_FOREVER: it has 10 s) is not waited for:
	 * -ETIMEDOUT. guest_resume() ends saving, wherever it is, and it may begin anew.
	 */
	int (*device_begin)(void *env);
	long (*device_read)(void *env, void *buf, size_t len, int64_t deadline);
	int (*device_end)(void *env, int64_t deadline);
	/*
	 * Run fn(arg, 0..n-1) in parallel and return the first failure, with its
	 * message recorded for the caller. Gives up early (calling halt) when the
	 * user cancels or the destination says something. The waiting thread calls
	 * tick (NULL: none) every GW_TICK_NS at the latest, until all have ended.
	 */
	int (*parallel)(void *env, unsigned int n, int (*fn)(void *arg, unsigned int i), void *arg,
			void (*halt)(void *arg), void (*tick)(void *arg));
	/*
	 * Whether QEMU still has the disks and devices that the destination was told
	 * of: 0, or -EBUSY naming what has changed. NULL: nothing can change.
	 */
	int (*unchanged)(void *env);
	/*
	 * Blocks of the VM's disks: @pick chooses and reads some, otherwise those in @s
	 * are read again. NULL: it has none.
	 */
	int (*disks)(void *env, struct gw_samples *s, bool pick);
	/*
	 * Post-copy; NULL where there is none. Spawn, join, wait, notify: as those of
	 * gw_dest_ops. Settle: what the destination says became of the guest.
	 */
	int (*spawn)(void *env, unsigned int n, void (*fn)(void *arg, unsigned int i), void *arg);
	void (*join)(void *env);
	int (*wait)(void *env, bool (*done)(void *arg), void *arg, int64_t deadline);
	void (*notify)(void *env);
	/* The calling thread's; in a simulation it means nothing. */
	void (*urgency)(void *env, enum gw_urgency urgency);
	int (*settle)(void *env, enum gw_outcome *outcome);
	/*
	 * Split (spread.h); NULL where there is none. A connection to sub-host @sub, past OPEN and
	 * ACCEPT, or NULL with a message. History: look for a while which memory the guest uses.
	 */
	struct gw_transport *(*sub_connect)(void *env, unsigned int sub, unsigned int index,
					    int64_t deadline);
	int (*history)(void *env, struct gw_ageing *ageing);
	/*
	 * Of a VM that is split already (carried.h); NULL where there is none. Freeze: nothing
	 * leaves any more, and what comes stays at the sub-hosts, too. Leave: no sub-host is
	 * called. Thaw: the end of both.
	 */
	int (*carried_freeze)(void *env);
	int (*carried_leave)(void *env);
	void (*carried_thaw)(void *env);
	/*
	 * Where on the destination's @disks (names, as READY has them) the bytes of pages lie, of
	 * which @due are to travel: set what is known now. 0; -errno: nobody knows just now, or
	 * it is not worth asking, or the wait was ended by what cancelled() or the destination
	 * says. NULL: nobody ever does.
	 */
	int (*hints)(void *env, const json_t *disks, uint64_t due, struct gw_hints *hints);
	/*
	 * A round that takes about @ns, and is not the last, ends in @left_ns: whose answers are of
	 * one moment may be asked for the next one. Often. NULL: nobody is.
	 */
	void (*hints_again)(void *env, int64_t ns, int64_t left_ns);
	/*
	 * The guest's processes that run just now, one a vCPU (predict/process.h). Return: how many
	 * vCPUs told, or -errno with a message. NULL: nobody can tell.
	 */
	int (*processes)(void *env, uint64_t *ids, size_t most);
	/* 0, or -ECANCELED with a message once the user wants to end it. */
	int (*cancelled)(void *env);
	/*
	 * Disks are copied, too, where gw_source.storage is set (storage.c). Copy: all that is on
	 * them, which may take hours; from then on what is written to them goes there as well.
	 * Left: bytes of that which have not gone yet, as far as is known. Settle: with the guest
	 * stopped and every write done, have all of it there, and be ready to go on from there;
	 * -EAGAIN: not by @deadline, and it goes on as before.
	 */
	int (*storage_copy)(void *env);
	int (*storage_left)(void *env, uint64_t *bytes);
	int (*storage_settle)(void *env, int64_t deadline);
	/* Something worth showing has changed. */
	void (*report)(void *env);
};

enum gw_postcopy {
	GW_POSTCOPY_NEVER,
	GW_POSTCOPY_AUTO, /* where rounds alone do not get there, or after so many of them */
	GW_POSTCOPY_NOW,  /* without a round */
};

struct gw_source_params {
	uint64_t max_bandwidth; /* bytes per second, 0: no limit */
	unsigned int downtime_limit_ms;
	unsigned int streams;
	bool verify;
	bool reuse; /* of what the destination kept; and to leave something for the next time */
	enum gw_postcopy postcopy;
	unsigned int postcopy_after; /* rounds, with GW_POSTCOPY_AUTO; 0: as many as it takes */
	enum gw_defer_mode working_set;
	unsigned int preprocess_ms; /* at most, of looking what is used before the first round */
	struct gw_page_options pages;
};

struct gw_round_stats {
	uint64_t pages;	     /* due at its start: what the tracker reported */
	uint64_t redirtied;  /* of these, left for the next round: written again already */
	uint64_t same;	     /* of these, not changed */
	uint64_t reused;     /* of these, as the destination kept them */
	uint64_t sent;	     /* the rest: expressed in frames */
	uint64_t teleported; /* of these, by what disks hold, in so many bytes */
	uint64_t teleported_bytes;
	uint64_t wire_bytes;  /* frames of this round */
	int64_t ns, disks_ns; /* and for which it only waited for the destination's disks */
};

/**
 * struct gw_teleports - pages that the destination reads from its disks (teleport.c).
 * @offered: they may; @on: they still do; @told: somebody knew; @hints: by these, of @by (hints.h)
 * @lacks: @nr_lacks pages that went like that and are not there, due in the next round; none
 * before @first_lack, or from @end_lack on. @barren: rounds in a row in which all were lacking
 * @lacked: how many there were in all; @round_lacks, @round_pages: of the last such round, and
 * pages that had gone like that before it
 */
struct gw_teleports {
	bool offered, on, told;
	const char *by;
	struct gw_hints hints;
	struct gw_bitmap lacks;
	size_t nr_lacks, first_lack, end_lack;
	unsigned int barren;
	uint64_t lacked, round_lacks, round_pages;
};

struct gw_source {
	/* set by the caller, and owned by it */
	const struct gw_source_ops *ops;
	void *env;
	struct gw_source_params params;
	uint8_t id[GW_ID_LEN];
	const struct gw_memory *memory;
	const json_t *definition;
	const json_t *storage;	/* its disks that are copied with it, for DEFINE; NULL: none */
	const char *listen;	/* where this host answers others; NULL: nowhere */
	const json_t *disk_map; /* disk -> its replica there, to be read; NULL: none */
	const struct gw_ledger *ledger; /* of the guest's arrival here; NULL: none */
	uint8_t secret[GW_SECRET_LEN];	/* the VM's: digests are keyed with it */
	struct gw_key key;		/* made of it */
	struct gw_legs legs;		/* what the VM's last moves took */
	bool direct_io;			/* some disk bypasses the page table: quiesce (F7) */
	bool discards, reports;		/* it may give memory back, does so all the time: holes.h */

	struct gw_holder holder;    /* the destination */
	struct gw_spread *spread;   /* the sub-hosts, the caller's; NULL: all goes to it */
	struct gw_carried *carried; /* what lies at sub-hosts and stays there, too; or NULL */
	struct gw_defer defer;	    /* which due pages wait */
	struct gw_teleports teleport;
	struct gw_pace pace; /* of all that is sent, but for what a guest waits for */

	/* post-copy */
	unsigned int paging; /* connections for it; 0: none are asked for */
	bool behind;	     /* it writes faster than a round sends: gw_converge_never() */
	bool postcopy;	     /* what is due at the next switchover follows the guest */
	const char *lost; /* gw_source_serve(): why what is missing cannot be had; NULL: it can */
	struct gw_serve *serve; /* serve.c's */
	_Atomic uint64_t postcopy_requests;
	_Atomic uint64_t faults[GW_FAULT_NUMBERS]; /* as the destination tells */

	/* memory */
	struct gw_tracker *tracker;
	struct gw_holes *holes;
	struct gw_bitmap due;	     /* pages of this round */
	size_t unsent;		     /* from this page on they have not been sent */
	struct gw_bitmap again;	     /* found written again just before reading */
	struct gw_round *round;	     /* round.c's */
	bool resumed, since_arrival; /* of the tracker */

	/* progress; read by report at any time */
	_Atomic enum gw_source_state state;
	bool verified;
	int64_t started_ns, ready_ns, ended_ns, stopped_ns, resumed_ns;
	_Atomic uint64_t pages[GW_STAGE_MAX], bytes[GW_STAGE_MAX];
	_Atomic uint64_t redirtied, reused, due_pages, done_pages;
	struct gw_round_stats rounds[GW_ROUNDS_KEPT];
	unsigned int nr_rounds;
	double dirty_rate;	   /* pages per second */
	int64_t expected_downtime; /* ns */
	uint64_t device_weight;	   /* bytes, expected: what QEMU sends besides its devices */
	int64_t scan_ns;	   /* the last scan of all memory */
	uint64_t storage_total, storage_done; /* bytes of disks that are copied */
	uint64_t storage_left;		      /* likewise: written, and not there yet */
	uint64_t device_bytes, ledger_bytes;
	int64_t storage_ns; /* of its last stop: until disks were copied */
	int64_t quiesce_ns, stop_ns, final_pages_ns, device_ns, resume_ns;
	char error[1024];

	/* how the guest stands */
	bool committed;	   /* COMMIT may have left */
	bool ran;	   /* when the destination was called: for one that cannot hear it later */
	bool runs;	   /* it ran at its last stop, and is to run where that leads it */
	bool stopped;	   /* we have stopped a guest that ran, or are about to */
	_Atomic bool over; /* its deadline was reached, and the guest runs */
	bool disturbed;	   /* somebody continued it in the last attempt */
	unsigned int attempts; /* at a switchover that were taken back */
	int64_t deadline;      /* past which a stopped guest goes on here; GW_FOREVER: none */
};

/**
 * gw_source_run() - one migration, from connect to the end.
 *
 * Return: 0: completed. Otherwise -errno with the message also in @s->error,
 * and @s->state says how it stands; unless that is in doubt, the guest runs
 * here as before.
 */
int gw_source_run(struct gw_source *s);

/**
 * gw_source_serve() - go on with post-copy where another process died, with the journal at
 * GW_SOURCE_SERVING. Of the caller's fields params.verify is not used; holder.image is as that
 * one had it. With @s->lost its memory is never read: a destination that lacks some is told so.
 *
 * Return: as gw_source_run(); there is no way back.
 */
int gw_source_serve(struct gw_source *s);

/**
 * gw_source_recover() - put things right after a worker died here.
 * @phase: from the journal
 *
 * Return: 0: the guest runs here again; -EINPROGRESS: only gw_source_settle() may tell.
 */
int gw_source_recover(const struct gw_source_ops *ops, void *env, enum gw_source_phase phase);

/**
 * gw_source_settle() - act on what the destination, or the operator, says became of the guest.
 *
 * Return: 0: settled; -EINPROGRESS: @outcome does not tell.
 */
int gw_source_settle(const struct gw_source_ops *ops, void *env, enum gw_outcome outcome);

/** gw_source_state_name() - query-migrate's word for @state. */
const char *gw_source_state_name(enum gw_source_state state);

/** gw_source_json() - progress or result, in the form of design section 2. Owned by the caller. */
json_t *gw_source_json(const struct gw_source *s, int64_t now);

#endif
