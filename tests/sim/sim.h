/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * sim.h - a migration in one process and in virtual time: the real source and
 * destination machines between a simulated network, guest, QEMUs and daemons.
 *
 * Each op and each transport call is a step, and at any step something may
 * befall the world (enum fault_kind). Whatever it is, at every step
 *
 *   - the guest never runs on both hosts (invariant 1), and only where the
 *     journals say that it belongs;
 *
 * and at the end
 *
 *   - exactly one host has the guest, running if it ran before, at the latest
 *     once an operator has settled a migration that is in doubt;
 *   - it found its memory as it was at its stop (invariant 2);
 *   - the other host holds nothing of it.
 *
 * Rules: there is one simulation at a time, `sim`. A failed check prints how
 * to repeat the run and ends the program.
 */
#ifndef SIM_H
#define SIM_H

#include <stdbool.h>
#include <stdint.h>

#include "dest.h"
#include "fiber.h"
#include "guest.h"
#include "net.h"
#include "paged.h"
#include "source.h"
#include "step.h"

#define STEPS_MAX 131072

/* What every block of a disk is, as a digest. */
#define SIM_BLOCK                                      \
	{                                              \
		0x7777777777777777, 0x7777777777777777 \
	}

/* What an earlier move of the VM took. */
#define SIM_LEG_US 31000

enum fault_kind {
	FAULT_NONE,
	FAULT_CUT,	   /* the link is cut, for good */
	FAULT_CUT_SETTLE,  /* and mended for an operator who settles as soon as there is doubt */
	FAULT_STALL,	   /* nothing arrives for a time that TCP survives */
	FAULT_DAMAGE,	   /* a bit of what is sent next is flipped */
	FAULT_KILL_SOURCE, /* the worker there dies */
	FAULT_KILL_DEST,
	FAULT_KILL_BOTH,
	FAULT_QEMU_DEST, /* the destination's QEMU dies */
	FAULT_CANCEL,	 /* the user has second thoughts */
	FAULT_PAUSE,	 /* the user pauses the guest, or continues a paused one */
	FAULT_HALT,	 /* the guest powers itself off, and QEMU keeps it */
	FAULT_OP,	 /* the op of this step fails */
	FAULT_OP_LATE,	 /* it works, and is believed to have failed */
	FAULT_REFUSE,	 /* the destination's QEMU will not resume the guest: a disk is locked */
	FAULT_STILL,	 /* it stands still for STILL_NS, and then does what it was told */
	/* What hangs, for HANG_NS. */
	FAULT_HANG,	   /* the op or transport call of this step, and then it works */
	FAULT_HANG_FAIL,   /* and then it fails */
	FAULT_HANG_LATE,   /* it works at once, and says so only then */
	FAULT_STOP_SOURCE, /* the worker there is stopped; its kernel, QEMU and daemon are not */
	FAULT_STOP_DEST,
	FAULT_SLOW_SOURCE, /* from here on the disk there takes seconds for everything */
	FAULT_SLOW_DEST,
	FAULT_STILL_SOURCE, /* the source's QEMU: its storage hangs for STILL_NS */
	FAULT_LAG,	    /* from here on one step in LAG_ONE_IN takes long, on either side */
	FAULT_CUT_ONE, /* the connection on which something is sent next, and no other, is cut */
	FAULT_KINDS,
};

struct fault {
	enum fault_kind kind;
	unsigned int step;
};

/* Longer than every deadline of the machines. */
#define HANG_NS (30 * GW_S)

struct scenario {
	const char *name;
	struct behaviour guest;
	unsigned int streams;
	unsigned int downtime_limit_ms;
	uint64_t max_bandwidth;
	uint64_t link_rate;    /* bytes per second; 0: a gigabit's */
	int64_t uneven;	       /* ns by which pieces on different connections overtake each other */
	uint64_t stopped_rate; /* the same while the guest stands still; 0: no other */
	struct gw_page_options pages;
	size_t device_state;	/* bytes of it; 0: at random, up to DEVICE_STATE_MAX */
	uint64_t device_weight; /* bytes that QEMU says it will send, besides its devices */
	bool verify;
	bool paused;
	bool hasty;	/* an operator settles it as soon as it is in doubt */
	bool direct_io; /* what the machine is told; the guest does as it likes */
	enum reuse {
		REUSE_NONE,
		REUSE_BACK,	 /* the guest comes back after one stay elsewhere */
		REUSE_ROUND,	 /* after two */
		REUSE_UNTRACKED, /* nobody watched it since it arrived */
		REUSE_STRANGER,	 /* the image that is kept is of another history */
	} reuse;
	enum gw_postcopy postcopy;
	unsigned int postcopy_after; /* rounds */
	enum gw_defer_mode working_set;
	bool carried;	      /* it is split already (carried.h) */
	bool copies;	      /* its disk is copied (storage.h) */
	bool slow_compare;    /* the destination does not get through with its image in time */
	uint16_t version;     /* that the destination speaks at most; 0: this release's */
	unsigned int start_s; /* seconds that the destination's QEMU takes to start; 0: 50 ms */
	bool unequal;	      /* memory must differ: shows that the comparison can tell */
	unsigned int stride;  /* of a sweep's steps; 0: every one */
	int result;	      /* of a run without fault, or: */
#define SIM_MAY_BE_TOO_FAST 1 /* 0 or -ETIME, as it happens */
};

/* Index of transports' wake_fd into sim.wake. */
enum {
	WAKE_SOURCE,
	WAKE_DEST,
	WAKE_COUNT
};

enum journal {
	JOURNAL_NONE,
	JOURNAL_MOVING,
	JOURNAL_COMMITTING,
	JOURNAL_SERVING,
	JOURNAL_LEFT,
	JOURNAL_RECEIVING,
	JOURNAL_COMMITTED,
	JOURNAL_RUNNING,
};

enum qemu {
	QEMU_NONE,
	QEMU_WAITING, /* for device state */
	QEMU_STOPPED,
	QEMU_RUNNING,
	QEMU_ENDED, /* quit, killed or crashed */
};

#define DEVICE_STATE_MAX (400UL << 10)

struct source_host {
	struct process worker, daemon;
	struct gw_source s;
	struct gw_ledger arrived,
		left; /* ledgers: of the guest's arrival here, and of its departure */
	enum qemu qemu;
	enum journal journal;
	bool ended;   /* the worker, by itself */
	bool working; /* its code, even if it is dead */
	unsigned int servers;
	bool notified;
	int64_t doubted_at;
	bool in_doubt;	 /* only an operator can tell now */
	bool committing; /* too late to cancel */
	int rc;
	/* What the guest's user, or the guest itself, has made of it: so it must end. */
	enum guest_will {
		GUEST_RUNS,
		GUEST_PAUSED,
		GUEST_OFF, /* a state that cannot be moved */
	} will;
	unsigned int resumes, resumes_seen; /* by whomever; when it was last looked at */
	bool pause_lost;
	bool resume; /* the journal's: it was stopped for the migration */
	bool saving; /* QEMU has begun to hand out its device state */
	size_t device_read;
	int64_t still_until; /* its QEMU stands still */
	int64_t stopped_at, longest_stop;
};

struct dest_host {
	struct process worker, daemon;
	struct gw_dest d;
	const struct gw_memory *memory; /* made for the guest, or what was kept of it */
	struct buffers made, image;
	struct gw_ledger kept;
	/* The comparison of the image, while the rounds go on. */
	bool compare_ended, hung_verifying, hung_answering;
	size_t compared; /* pages, from the first on */
	int64_t compare_by;
	struct gw_bitmap absent;
	enum qemu qemu;
	enum journal journal;
	bool run; /* the journal's */
	enum gw_outcome settled;
	bool ended;
	bool busy; /* the daemon is putting things right */
	bool took_over;
	bool fenced;	  /* its operator had it ended, whatever its guest was at */
	bool left_behind; /* RAM files or folder exist */
	size_t device_len;
	struct dest_stream {
		struct gw_transport *t;
		unsigned int index;
	} accepted[GW_DEST_STREAMS_MAX]; /* and not taken by the worker */
	unsigned int nr_accepted;
	bool notified;
	unsigned int receivers;
	bool working; /* the worker's code, even if it is dead */
	struct paged paged;
	bool tried;	     /* a keeper has ended */
	bool refuses;	     /* its QEMU does not resume the guest */
	int64_t still_until; /* its QEMU stands still */
	bool told_to_run;    /* while it did */
	bool asked;	     /* a source waits for an answer: no other recovery begins */
	bool doubted;	     /* somebody was told that nothing is known */
	bool loading;	     /* QEMU has all of its state */
};

struct sim {
	const struct scenario *sc;
	uint64_t seed;
	struct fault faults[2];
	bool trace;

	unsigned int steps;
	uint64_t hash;		   /* of every step, its time and its result, and of the end */
	uint8_t traits[STEPS_MAX]; /* of each step */
	bool settle_at_once, called;
	bool replaced;		  /* a worker that died, by a keeper, which knows nothing of legs */
	bool serves_on, pages_on; /* which of them */
	bool cancelled, cancelled_in_time;
	bool wake[WAKE_COUNT];
	bool late;	/* FAULT_OP_LATE struck this step; sim_late() */
	bool hang_late; /* FAULT_HANG_LATE, likewise */
	bool slow_source, slow_dest, lagging;
	bool hung_here; /* something at the source */
	struct rng lags;
	uint8_t device_state[DEVICE_STATE_MAX]; /* as QEMU saves it at the source */
	size_t device_len;

	/* What answers connections instead of the destination, if set; it owns arg. */
	void (*impostor)(void *arg, unsigned int i);
	json_t *definition;
	struct guest guest;
	struct source_host src;
	struct dest_host dst;
};

extern struct sim sim;

/**
 * sim_late() - right after a step with STEP_LATE: what its op returns, once it has
 * worked. 0 or -ETIMEDOUT.
 */
int sim_late(void);

/* Roads that a few hundred random runs must have taken, each of them. */
enum rare {
	RARE_TAKEN_BACK,     /* a guest that was stopped to leave runs on at the source */
	RARE_AGAIN,	     /* and leaves by a later switchover */
	RARE_CANCELLED_LATE, /* by its user */
	RARE_IN_DOUBT,
	RARE_SETTLED_RUNNING, /* what the destination said to an operator */
	RARE_SETTLED_ABORTED,
	RARE_SETTLED_LOST,
	RARE_UNKNOWN,	      /* nothing, so that the operator had to forbid it */
	RARE_SOURCE_RECOVERS, /* after a worker's death */
	RARE_DEST_RECOVERS,
	RARE_RETRIED,	      /* a recovery failed, and was repeated */
	RARE_HUNG_STOPPED,    /* something hung while the guest stood still */
	RARE_HUNG_COMMITTING, /* while COMMIT was on its way */
	RARE_COMPARED_LATER,  /* an image, whose comparison ended after the first round */
	RARE_COMPARED_NEVER,  /* or was given up, and the guest moved without it */
	RARE_POSTCOPY,	      /* a guest whose memory followed it */
	RARE_SERVES_ON,	      /* another worker brought the rest of it */
	RARE_PAGES_ON,	      /* or took it */
	RARE_BOTH_ON,	      /* and both did */
	RARE_RECONNECTED,     /* connections that were lost came again */
	RARE_STILL_KNOWN,     /* and the source still knew what lies under missing pages */
	RARE_COMPLETE_LOST,   /* the source heard by asking that all of it had come */
	RARE_SETTLED_PAGING,  /* the source heard by asking that it is needed */
	RARE_CARRIED,	      /* a guest that was split before moved */
	RARE_CARRIED_BACK,    /* or ran on after its sub-hosts had been frozen */
	RARE_WAITED,	      /* pages waited when a guest was stopped */
	RARE_WAITED_POSTCOPY, /* and followed it */
	RARE_TELEPORTED,      /* pages came from the destination's disks */
	RARE_LACKED,	      /* or not, and came after all */
	RARE_COUNT,
};

/** sim_rare() - this run has taken one. */
void sim_rare(enum rare road);

/** sim_check_rare() - print how often each was taken; fail if one never was. */
void sim_check_rare(void);

/** sim_run() - one run from beginning to end, with all checks. Return: the source's result. */
int sim_run(const struct scenario *sc, uint64_t seed, const struct fault faults[2]);

/*
 * Its parts, for runs with a script on one side: make the world, run until
 * every fiber has ended, and take the world apart again.
 */
void sim_begin(const struct scenario *sc, uint64_t seed, const struct fault faults[2]);
void sim_go(void);
void sim_end(void);

/** sim_fault_name() - as the command line has it. */
const char *sim_fault_name(enum fault_kind kind);

/** sim_kill() - a process ends without a word. */
void sim_kill(struct process *process);

/* kept.c: a guest that was elsewhere, what the destination kept of it, and the checks. */
void kept_init(void);
void kept_free(void);
void kept_check(void);
/* Memory like @from. */
void kept_copy(struct buffers *to, const struct gw_memory *from);
/* Where the destination's ledger of the arrival lies. */
const char *kept_path(void);
/* Of the guest's digests; made of sim_secret. */
const struct gw_key *kept_key(void);
extern const uint8_t sim_secret[GW_SECRET_LEN];

/* source_host.c: QEMU, daemon and ops of the source. */
void source_init(void);
void source_start(void);
/* The user pauses or continues the guest; the guest powers off. */
void source_user(void);
void source_halt(void);
/* Whether the guest was continued while it was to stand still. */
bool source_disturbed(void);
void source_recover(void);
void source_settle(enum gw_outcome outcome);

/* dest_host.c, dest_daemon.c: the same for the destination. */
extern const struct gw_dest_ops dest_ops;
void dest_init(void);
void dest_free(void);
/* A new connection, as the daemon there sees it. */
void dest_accept(struct gw_transport *t);
void dest_recover(void);
void dest_qemu_dies(void);
/*
 * What the daemon answers to SETTLE, or FORBID; a worker that still receives is killed
 * first. UNKNOWN is written down.
 */
int dest_settle(bool forbid, enum gw_outcome *outcome);
/* Its QEMU, where it has come to. */
void dest_tick(void);
int dest_on_wake(void *arg);
void dest_close_streams(void);

/* hostile_*.c: peers that break the rules. Return: how many did. */
unsigned int hostile_sources(void);
unsigned int hostile_destinations(void);
unsigned int hostile_pagers(void);

#endif
