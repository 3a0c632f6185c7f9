/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * dest.h - the destination's half of a migration.
 *
 *   setup ──> receiving ──> loading ──> loaded ──> running
 *     │           │  (LOAD)    │          │ (COMMIT)
 *     └───────────┴────────────┴──────────┴──> failed: QEMU, RAM files and folder removed
 *
 *   setup      gw_dest_setup()     machine.c: DEFINE, QEMU started, streams joined
 *   receiving  gw_dest_receive()   machine.c: pages by receive.c and place.c; VERIFY;
 *                                  device state, held until LOAD, forgotten on RESUMED
 *   loading    gw_dest_load()      machine.c: device state into QEMU after the last barrier
 *   loaded     gw_dest_commit()    machine.c: COMMIT
 *   running    the guest runs here, and RUNNING has been sent
 *
 * With post-copy (paging.h) memory follows a guest that runs: loaded ──> paging <──> paused, and
 * then running.
 *
 * Rules: the guest is resumed only on COMMIT, and the journal says so first,
 * so that whoever finds us dead knows whose guest it is (invariant 1). Pages
 * are written through the RAM file only while the guest does not run
 * (invariant 6): the receivers end before QEMU sees its device state; or where nobody
 * sees them before they are placed (paging.h). Nothing
 * the source sends is trusted (invariant 10).
 */
#ifndef GW_DEST_H
#define GW_DEST_H

#include <jansson.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "frame.h"
#include "held.h"
#include "ledger.h"
#include "legs.h"
#include "memory.h"
#include "messages.h"
#include "netpt.h"
#include "samples.h"
#include "transport.h"

#define GW_DEST_STREAMS_MAX 64

enum gw_dest_state {
	GW_DEST_SETUP,
	GW_DEST_RECEIVING,
	GW_DEST_LOADING,
	GW_DEST_LOADED,
	GW_DEST_PAGING, /* it runs here, and its source sends what is missing */
	GW_DEST_PAUSED, /* likewise, and waits for its source where it needs it */
	GW_DEST_RUNNING,
	GW_DEST_FAILED,
};

/* What the journal must know to put things right after our death (daemon/recover.c). */
enum gw_dest_phase {
	GW_DEST_PHASE_RECEIVING, /* not ours: remove everything */
	GW_DEST_PHASE_COMMITTED, /* ours: resume it if it does not run */
	GW_DEST_PHASE_RUNNING,	 /* ours, and it was resumed */
};

/* What its QEMU tells of a guest whose state it has loaded. */
enum gw_dest_ran {
	GW_DEST_RAN_UNKNOWN, /* nothing: it does not answer */
	GW_DEST_RAN_NEVER,   /* it has not taken a step */
	GW_DEST_RAN,	     /* it runs, or has run */
	GW_DEST_RAN_GONE,    /* QEMU has ended */
};

/* By what gw_dest_recover() decides; its table is in recover.c. */
enum gw_dest_verdict {
	GW_DEST_FINISH, /* what was committed to this host is carried out */
	GW_DEST_LOOK,	/* somebody was told that nothing is known: find out, start nothing */
	GW_DEST_ASKED,	/* likewise, and the source is asking again */
	GW_DEST_FORBID, /* the source wants it back: it must never run here */
};

/**
 * struct gw_dest_kept - an image whose RAM files are the arriving VM's.
 * @departure: that left it; 0: there is none
 * @ledger: its; the environment's
 * @absent: pages that are not what the ledger says; the machine frees it
 * @later: they are still being found: ops->compared() tells, and @absent holds what
 * it has told
 * @unchecked: nobody compares them before the guest runs (decision 29): gw_dest.unchecked
 * was set
 */
struct gw_dest_kept {
	uint32_t departure;
	const struct gw_ledger *ledger;
	struct gw_bitmap absent;
	bool later;
	bool unchecked;
};

/**
 * struct gw_dest_split - an arrival of which a part goes to sub-hosts (away.h).
 * @table: the environment's, from prepare() on; NULL: all of it comes here
 * @size: bytes that each of @nr sub-hosts may hold; @pages: that lie there
 * @main_memory: bytes that may come here
 * @history: of each unit, as the source has found; the environment's
 * @sealed: the source has told of all, and calls no sub-host any more
 * @carried: it was split before it moved, and its sub-hosts stay: a part of a unit may be here
 */
struct gw_dest_split {
	struct gw_netpt *table;
	uint64_t size[GW_HOLDERS_MAX], pages[GW_HOLDERS_MAX];
	unsigned int nr;
	uint64_t main_memory;
	uint8_t *history;
	bool sealed, carried;
};

struct gw_dest_ops {
	int64_t (*now)(void *env);
	int (*journal)(void *env, enum gw_dest_phase phase);
	/*
	 * Make the memory, which stays the environment's, and start QEMU as @definition
	 * says, waiting for device state. @resident: bytes of memory that the guest has at least.
	 * @reuse: the source's departures, or NULL: the kept image of one of them
	 * may become the memory; then @kept says what is in them.
	 * Where it takes long, gw_dest_wait() is called from it now and then.
	 */
	int (*prepare)(void *env, const json_t *definition, uint64_t resident, const json_t *reuse,
		       const struct gw_memory **memory, struct gw_dest_kept *kept);
	/*
	 * With @kept's later: how many pages of the image, from the first on, are compared;
	 * past its budget of time all are. @absent (NULL: nowhere): set those from @from on
	 * that are not what they were. Never waits; notify() comes with each part.
	 */
	size_t (*compared)(void *env, size_t from, struct gw_bitmap *absent);
	/* Nobody asks any more. Who compares may hang, and is not waited for. */
	void (*compare_end)(void *env);
	/*
	 * Memory is paged by gw_dest.split's table from here on: QEMU is about to look at it. Until
	 * discard(), or the end. NULL: this host cannot, and READY does not offer it.
	 */
	int (*split)(void *env);
	/*
	 * @len bytes at @offset of the @disk-th of gw_dest.disks, all of a disk's pages from there
	 * on; behind its end are zeros. done(arg, bytes) comes once, from any thread, at once or
	 * whenever; @bytes NULL: they cannot be read. After fetch_end() it does not come any more.
	 */
	void (*fetch)(void *env, unsigned int disk, uint64_t offset, size_t len,
		      void (*done)(void *arg, const uint8_t *bytes), void *arg);
	void (*fetch_end)(void *env);
	/*
	 * Nobody but QEMU itself, and a guest that it runs, writes to its disks from here on: where
	 * prepare() had them copied (gw_dest.wants_storage). NULL: nothing is ever copied here.
	 */
	int (*storage_sealed)(void *env);
	/* Read the blocks of this host's disks that @s names. NULL: there are none. */
	int (*disks)(void *env, struct gw_samples *s);
	/* The @index-th stream of this migration, already accepted. NULL with a message. */
	struct gw_transport *(*stream)(void *env, unsigned int *index, int64_t deadline);
	/* Run fn(arg, i) for i < n in the background until join. */
	int (*spawn)(void *env, unsigned int n, void (*fn)(void *arg, unsigned int i), void *arg);
	void (*join)(void *env);
	/*
	 * The same beside it, in a thread for each core: one such thing at a time. Return:
	 * how many they are, or -errno; compute_join() either way.
	 */
	int (*compute)(void *env, void (*fn)(void *arg, unsigned int i), void *arg);
	void (*compute_join)(void *env);
	/*
	 * Wait until done(arg); notify() makes it look again. -ETIMEDOUT, or another
	 * failure. notify() also wakes the receiver of the control connection, whose
	 * on_wake asks gw_dest_heed().
	 */
	int (*wait)(void *env, bool (*done)(void *arg), void *arg, int64_t deadline);
	void (*notify)(void *env);
	/*
	 * QEMU's device state: write, then wait until QEMU has loaded all of it. device_end
	 * may be called again after -ETIMEDOUT.
	 */
	int (*device_write)(void *env, const void *buf, size_t len);
	int (*device_end)(void *env, int64_t deadline);
	/*
	 * Resume the guest, and announce it to the network. -EREMOTEIO: QEMU has refused
	 * it; -EPIPE: it is gone; anything else: it may yet run.
	 */
	int (*guest_resume)(void *env);
	void (*guest_announce)(void *env);
	enum gw_dest_ran (*guest_ran)(void *env);
	/* End QEMU; its files stay. */
	void (*guest_kill)(void *env);
	/*
	 * Recovery is about to resume it: is it still ours? -ECANCELED: no, the source
	 * has it; 0: yes, or there is nobody to ask; other -errno: not known now.
	 */
	int (*claim)(void *env);
	/* The ledger of the arrival, empty, where the next departure looks for it. */
	int (*ledger)(void *env, size_t nr_pages, struct gw_ledger *l);
	/* End QEMU and remove its folder and RAM files, or make them the kept image again. */
	void (*discard)(void *env);
	void (*report)(void *env);
};

struct gw_dest {
	/* set by the caller, and owned by it */
	const struct gw_dest_ops *ops;
	void *env;
	const char *host;	       /* our name, told in READY */
	unsigned int samples;	       /* questions about disks that were answered */
	uint32_t features;	       /* of enum gw_feature: those that both sides have */
	uint16_t version;	       /* agreed in OPEN */
	bool keyed;		       /* digests are keyed with */
	uint8_t secret[GW_SECRET_LEN]; /* this, the VM's; for prepare() to keep */
	struct gw_key key;

	struct gw_transport *control; /* owned from the start of gw_dest_run() */
	struct gw_transport *streams[GW_DEST_STREAMS_MAX];
	unsigned int nr_streams;
	struct gw_frame inbox;
	const struct gw_memory *memory; /* from prepare() */
	struct gw_dest_kept kept;
	const json_t *wants_split; /* DEFINE's, while prepare() runs; NULL: it does not */
	struct gw_dest_split split;
	const json_t *wants_storage; /* likewise: disks that prepare() is to have copied */
	bool wants_disks; /* the source knows what disks hold: prepare() may set @disks */
	/* DEFINE's, an object, while prepare() runs: replicas that are to be read; NULL: none. */
	const json_t *disk_map;
	int64_t disks_ns; /* that the last round waited for them, its streams being done */
	json_t *disks; /* names of those that can be read instead of pages; the machine frees it */
	size_t compared;			 /* pages of it that the source was told of */
	const struct gw_dest_page_ops *page_ops; /* set by the caller; NULL: not offered */
	void *page_env;
	struct gw_page *page;	      /* paging.c's */
	struct gw_teleport *teleport; /* its disks, once memory follows the guest; or NULL */
	/*
	 * Post-copy: connections that the source opens for it; 0: it does not want it, or
	 * prepare() has found that this host cannot, and READY does not offer it.
	 */
	unsigned int paging;
	uint32_t departures;	    /* of the VM, before this one */
	json_t *ids;		    /* of the newest of them, newest first */
	uint8_t id[GW_ID_LEN];	    /* of this one; set by the caller */
	struct gw_receive *receive; /* receive.c's */
	struct gw_held held;	    /* device state that QEMU does not have yet */
	struct gw_legs legs;	    /* of the VM: told by the source; at the end with this one */
	uint64_t leg_us;	    /* of this one, so far; 0: not known */
	_Atomic enum gw_dest_state state;
	/* Where the source answers questions, as its --listen says; may be empty. */
	char listen[GW_ADDRESS_MAX];
	bool run; /* the guest ran at the source: resume it on COMMIT */
	bool committed;
	bool reuse;	/* the source will send a ledger */
	bool unchecked; /* it returns at once: what is kept may be compared as the guest runs */
	bool whole;	/* all device state has come */
	bool no_paging; /* post-copy was wanted, and this host cannot */
	bool held_back; /* what is in the inbox has not been looked at */
	bool revoked;	/* it was, and QEMU refused a guest that had not taken a step */
	/* Post-copy: why what is missing is nowhere any more, as the source says; "": it is not so.
	 */
	char lost[512];
	char error[1024];
};

/**
 * gw_dest_run() - one incoming migration, after its OPEN was read.
 *
 * Return: 0: the guest belongs here now. Otherwise -errno with the message
 * also in @d->error; unless @d->committed, nothing of it is left here.
 */
int gw_dest_run(struct gw_dest *d);

/* While preparing, gw_dest_wait() is called this often: the source minds silence, not work. */
#define GW_DEST_WAIT_MS 2000

/**
 * gw_dest_wait() - tell the source that its VM is being prepared for.
 * @what: is being done, for people
 *
 * From ops->prepare(), by any one thread, or while memory is verified. A source of
 * version 1 is told nothing.
 */
void gw_dest_wait(struct gw_dest *d, const char *what);

/**
 * gw_dest_heed() - whether a stream has failed here.
 *
 * The source may be waiting for that stream to take more, so the failure must
 * not wait for the end of the round. For the control connection's on_wake.
 *
 * Return: 0, or the failure with its message.
 */
int gw_dest_heed(struct gw_dest *d);

/**
 * gw_dest_recover() - put things right after a worker died here.
 * @phase: from the journal
 * @run: likewise: the guest ran at the source
 *
 * Return: what became of the guest, and that is final; GW_OUTCOME_UNKNOWN: it
 * cannot be told now, and the journal must stay for another try.
 */
enum gw_outcome gw_dest_recover(const struct gw_dest_ops *ops, void *env, enum gw_dest_phase phase,
				bool run, enum gw_dest_verdict verdict);

/**
 * gw_dest_page_on() - go on where the worker died that brought memory to a guest that runs
 * here, or was to. @d: as for gw_dest_run(), with its memory, and without connections
 * @outcome: as gw_dest_recover(), which settles it first where that is due
 *
 * Return: 0: *outcome is final, and where that is RUNNING nothing is missing any more.
 * Otherwise -errno, as of gw_dest_page_ops.look(), with the message also in @d->error.
 */
int gw_dest_page_on(struct gw_dest *d, enum gw_dest_phase phase, enum gw_dest_verdict verdict,
		    enum gw_outcome *outcome);

/**
 * gw_dest_never_ran() - QEMU refused to resume a guest that was committed here.
 *
 * Return: 0: it has not taken a step, and the journal says that it is not ours:
 * discard it; -EINPROGRESS or another failure: it may have run.
 */
int gw_dest_never_ran(const struct gw_dest_ops *ops, void *env);

#endif
