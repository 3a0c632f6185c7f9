/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * sim_split.h - a guest whose memory lies on several hosts, in one process and in virtual time: the
 * real pager of its main host (pager/split.h, pager/servers.h) and real memory servers
 * (memserver/serve.h, their stores on a tmpfs), between a simulated network, kernel and guest.
 *
 *   main host    vCPUs, a device, a page cache            sim_split_guest.c
 *                userfaultfds                             sim_split_kernel.c
 *                a pager, and whoever follows it          sim_split_main.c
 *                who moves the guest to another           sim_split_move.c
 *   sub-hosts    a memory server each                     sim_split_sub.c
 *   the world    steps, faults, checks                    sim_split_world.c
 *   runs         by seed                                  sim_split.c
 *
 * Each op, park point and transport call is a step, and at any of them something may befall the
 * world (enum split_fault). Whatever it is, at every step
 *
 *   - the newest bytes of each page are at the main host, or at those that the network page
 *     table names (invariant 7): one of them, where another is gone for ever;
 *   - what is here does not grow beyond the limit and a unit for each thread (invariant 8);
 *   - whoever reads a page reads its newest bytes, all of them;
 *   - from when the main host to be knows where everything is until the guest runs on either,
 *     the first of these holds for that one, too;
 *
 * and in the end all of memory is back, and no server holds anything.
 *
 * Rules: as sim.h. A seed decides everything about a run.
 */
#ifndef SIM_SPLIT_H
#define SIM_SPLIT_H

#include "bitmap.h"
#include "buffers.h"
#include "fiber.h"
#include "net.h"
#include "place.h"
#include "rng.h"
#include "serve.h"
#include "servers.h"
#include "split.h"
#include "step.h"

#define SPLIT_SUBS	3
#define SPLIT_CPUS	4
#define SPLIT_PAGES	1024
#define SPLIT_FAULTS	8
#define SPLIT_PROCS	64 /* of a kind, one after the other */
#define SPLIT_LISTENERS 2

enum split_fault {
	SPLIT_NONE,
	SPLIT_CUT_ONE,	  /* the connection on which something is sent next is cut, and no other */
	SPLIT_CUT,	  /* all of one server's, which cannot be reached for a while */
	SPLIT_CUT_ALL,	  /* all servers' */
	SPLIT_STALL,	  /* nothing arrives for a while, then everything does */
	SPLIT_DAMAGE,	  /* a bit of what is sent next is flipped */
	SPLIT_HANG,	  /* a server's process stands still, and goes on */
	SPLIT_KILL,	  /* it dies, and is started again with its store */
	SPLIT_FULL,	  /* it can store nothing for a while */
	SPLIT_LOSE,	  /* it dies, and finds only some of its pages until it is started again */
	SPLIT_KILL_PAGER, /* another takes over */
	SPLIT_HANG_PAGER,
	SPLIT_KILL_ALL,		 /* pager and servers at once */
	SPLIT_NO_MEMORY,	 /* the main host has none for a page that comes */
	SPLIT_PUNCH,		 /* what leaves cannot be punched */
	SPLIT_OVERRUN,		 /* more came than a server was told of */
	SPLIT_DRAWN,		 /* those are drawn by anybody's seed */
	SPLIT_DIE = SPLIT_DRAWN, /* it dies with all that it has, and is never seen again */
	SPLIT_FAULTS_END,
};

/* Places where something strikes, besides those of enum gw_split_park. */
enum {
	SPLIT_COPYING = GW_SPLIT_FAULT + 1, /* some of several pages are placed */
	SPLIT_MENDING,			    /* what another left is put right */
	SPLIT_UNSPLIT,			    /* all is back, and every server knows that */
	SPLIT_PLACES,
	/* And for as long as one of these holds. */
	SPLIT_FROZEN = SPLIT_PLACES, /* a guest that moves stands still, and nothing leaves */
	SPLIT_NEXT,		     /* either may get it */
	SPLIT_CARRIED,		     /* it runs there, and its sub-hosts do not know that */
	SPLIT_MOVE_PLACES,
};

struct split_strike {
	enum split_fault kind;
	unsigned int step; /* that, or the first after it that is at @where */
	int where;	   /* enum gw_split_park, or one of the above; -1: any step */
	unsigned int sub;
	int64_t ns;
	bool struck;
};

/* Roads that the runs of a sweep must have taken, each of them. */
enum split_road {
	ROAD_WRITTEN,	  /* a unit was written while it left, and stayed */
	ROAD_DEFERRED,	  /* a fault waited for room */
	ROAD_AHEAD,	  /* what nobody waited for came */
	ROAD_TORN_CAME,	  /* a pager died between a page's coming and its table's saying so */
	ROAD_TORN_PART,	  /* in the middle of several pages */
	ROAD_TORN_LEFT,	  /* between the table's saying so and a unit's being punched */
	ROAD_ABSENT,	  /* a server has lost pages */
	ROAD_FOUND,	  /* and found them again */
	ROAD_ENOSPC,	  /* it could not store a unit */
	ROAD_REFUSED,	  /* the main host had no memory for a page */
	ROAD_PUNCH,	  /* a unit could not be punched */
	ROAD_OVERRUN,	  /* a server had to be told what is left */
	ROAD_RECONNECTED, /* a server was there again */
	ROAD_MENDED,	  /* a pager took over */
	ROAD_MEND_DIED,	  /* and died before it was done */
	ROAD_MERGED,	  /* all came back, and left again later */
	ROAD_FINISHED,	  /* and not all: a unit left just then */
	ROAD_MERGE_DIED,  /* the pager died as all came back */
	ROAD_DEVICE_KEPT, /* a device pinned a page of a unit that was to leave */
	ROAD_DISMISSED,	  /* a server heard twice that nothing is to be kept */
	ROAD_EVACUATED,	  /* all that was at one went elsewhere, and it is not called any more */
	ROAD_ADDED,	  /* and it was needed again */
	ROAD_PART_DIED,	  /* the pager died while one was evacuated */
	ROAD_ROUNDS,	  /* it began to move, and was not to in the end */
	ROAD_MOVED,	  /* it runs on another host */
	ROAD_CAME_FROZEN, /* a page came while all was frozen, and the guest went on there */
	ROAD_LET_GO,	  /* nobody called the sub-hosts any more, and the guest went on there */
	ROAD_CAME_THERE,  /* a page came to the main host to be */
	ROAD_CARRIED,	  /* who called them for it in the end was its successor */
	ROAD_MOVER_DIED,  /* the pager died, with the guest standing still */
	ROAD_THERE_DIED,  /* the one there did */
	ROAD_TWICE,	  /* a unit left for two servers */
	ROAD_SINGLE,	  /* and one for one of two, as the other was away */
	ROAD_DROPPED,	  /* one of two lost what the other had */
	ROAD_GONE,	  /* one was never seen again, and it was no matter */
	ROAD_MOVED_TWICE, /* it moved, and each page was at two */
	ROAD_TOLD_SINGLE, /* the main host to be heard of a page that one of two lacks */
	ROAD_REMADE,	  /* each page had its second copy again */
	ROAD_COUNT,
};

/* Where a guest may run: a file that is its memory, and its page tables. */
struct split_host {
	struct buffers file;
	struct gw_bitmap protected;
};

/* A process that pages, and what it has. */
struct split_pager {
	struct process process;
	struct split_host *host;
	char table_path[64];
	bool moving, let_go;	  /* another is told of all that it has, and calls its servers */
	struct split_pager *from; /* of the other: who tells it */
	struct gw_transport *control; /* where */
	struct gw_memory memory;      /* the guest's, as it reaches it */
	struct gw_split split;
	struct gw_split_in in;
	struct gw_servers all;
	struct gw_server servers[SPLIT_SUBS];
	bool signalled[SPLIT_SUBS], was_up[SPLIT_SUBS], was_down[SPLIT_SUBS];
	bool notified, halting, mending;
	bool was_single;
	unsigned int listeners;
	struct gw_bitmap filled; /* units that may have something here */
	size_t prepared[8];
	unsigned int nr_prepared;
};

/* A process that holds pages. */
struct split_server {
	struct process process;
	struct split_sub *sub;
	struct gw_memserve serve;
	struct gw_transport *next[GW_MEMORY_CONNECTIONS], *conns[GW_MEMORY_CONNECTIONS];
	bool running[GW_MEMORY_CONNECTIONS], compared, dismissed;
};

/* A sub-host. */
struct split_sub {
	unsigned int index;
	char name[8], folder[64];
	struct split_server *server; /* NULL: none lives */
	struct gw_memstore *store;   /* as it lies there, whoever lives */
	uint8_t *maps[GW_MEMORY_BLOCKS_MAX];
	struct gw_bitmap lost; /* pages that it does not find just now */
	bool full, was_full;   /* since it was called; it may hear of that late */
	bool dead;	       /* for ever */
	bool dismissed;
	unsigned int dismissed_of; /* which split */
	size_t promised;	   /* pages */
	int64_t away_until;	   /* nobody can reach it before */
};

struct split_cpu {
	enum split_state {
		SPLIT_RUNS,
		SPLIT_FAULTS_NOW, /* and nobody has been told */
		SPLIT_WAITS,	  /* somebody was */
	} state;
	size_t page;
	bool writes, protected;
	int64_t since; /* it waits */
};

struct sim_split {
	uint64_t seed;
	bool trace;
	unsigned int steps, life; /* after so many it is to end */
	uint64_t hash;
	struct rng rng;
	struct split_strike strikes[SPLIT_FAULTS];
	unsigned int nr_strikes;
	bool only;   /* the one that its caller has named */
	int at_park; /* of this step; -1: none */
	bool over;   /* nobody is needed any more */

	/* what the seed has made of it */
	unsigned int nr_subs, unit_pages, touches_per_ms;
	unsigned int zeros; /* one in so many writes is of zeros */
	bool pinned;
	enum gw_compress compress;
	uint64_t sizes[SPLIT_SUBS];
	bool evacuates;		/* sub-hosts leave, and come */
	bool sleeps;		/* the guest touches nothing while all of it comes back */
	struct rng evacuations; /* of its own: others' draws are as they were (tests/sim/seeds) */
	struct rng replicas;	/* and this one */
	unsigned int copies;	/* of what is away */
	bool naps;		/* the guest touches nothing for a while, again and again */
	bool dies_alone;	/* one does, or stands still for long, and nothing else happens */
	int64_t missed_ns;

	/* the main host */
	struct process daemon;
	struct split_host hosts[2], *host; /* where it runs */
	uint64_t must[SPLIT_PAGES];	   /* which version of its bytes each page has; 0: zeros */
	uint64_t version;
	bool watched;
	struct split_cpu cpu[SPLIT_CPUS];
	struct split_cpu device; /* its page, once it runs: pinned */
	bool pins, quiesced;
	int64_t pinned_until, ran_until;
	double debt;
	size_t hot;
	char table_path[64];
	unsigned int tables;
	uint8_t id[GW_ID_LEN];
	struct gw_netpt table; /* as it lies there */
	unsigned int splits;
	bool merging, merge_early; /* as soon as a unit leaves */
	bool leaves[SPLIT_SUBS], gone[SPLIT_SUBS];
	uint64_t target;	/* pages */
	uint64_t most_quiesced; /* may be here: some were asked for so that it could be quiesced */
	int64_t next_change, no_memory_until;
	bool punch_fails;
	struct split_pager *pager; /* who lives */
	bool moves;		   /* it goes to another main host, and back */
	bool carried; /* its pager, or who follows it, does not own the sub-hosts yet */
	unsigned int moved, tries;
	struct rng movers;	     /* of its own, as evacuations */
	struct split_pager *arrives; /* whoever is to page there */
	struct split_pager *next;    /* the same, once it could */
	struct split_pager *pagers[SPLIT_PROCS];
	unsigned int nr_pagers;

	struct split_sub subs[SPLIT_SUBS];
	struct split_server *servers[SPLIT_PROCS];
	unsigned int nr_servers;
	struct gw_memstore *stores[SPLIT_PROCS];
	unsigned int nr_stores;
	uint64_t touched, written;
};

extern struct sim_split sim_split;

/* sim_split_world.c */
void split_run(uint64_t seed, bool faults, const struct split_strike *strike);
void split_road(enum split_road road);
void split_check_roads(void);
/* Everything that holds at every moment. */
void split_check(void);
const char *split_fault_name(enum split_fault kind);

/* sim_split_guest.c */
void split_guest_init(void);
void split_guest_free(void);
void split_tick(void);
void split_wake(size_t page, size_t count);
/* Faults of a part of memory that nobody has been told of. Return: how many. */
unsigned int split_faults(unsigned int part, struct gw_fault faults[GW_FAULTS_MAX], bool take);
bool split_in_file(size_t page);
bool split_is_in(const struct split_host *host, size_t page);
/* Whether @bytes are version @version of @page: all of them; or by the first and last word. */
bool split_is(const uint8_t *bytes, size_t page, uint64_t version);
bool split_seems(const uint8_t *bytes, size_t page, uint64_t version);
const uint8_t *split_bytes(size_t page);
const uint8_t *split_bytes_at(const struct split_host *host, size_t page);
void split_fill(uint8_t *bytes, size_t page, uint64_t version);
uint64_t split_here(void);

/* sim_split_kernel.c */
extern const struct gw_memory_ops split_memory_ops;
extern const struct gw_split_ops split_ops;
int64_t split_now(void *env);
void split_notify(void *env);

/* sim_split_main.c */
void split_pager_start(bool took_over);
void split_pager_kill(void);
/* One at the main host to be, that knows of nothing yet. */
struct split_pager *split_pager_arrives(void);
/* It pages from here on, until the guest has ended, or is no more split, or it dies. */
void split_pager_work(struct split_pager *p);
/* It does not. */
void split_pager_end(struct split_pager *p);
/* What was reserved while it was frozen may come still. Return: as gw_split_thaw(). */
bool split_pager_thaw(struct split_pager *p);

/* sim_split_move.c */
void split_mover_start(struct split_pager *p);
void split_arrival_kill(void);

/* sim_split_sub.c */
void split_sub_init(unsigned int index);
void split_sub_remove(struct split_sub *s);
void split_sub_start(struct split_sub *s);
void split_sub_kill(struct split_sub *s);
void split_sub_call(struct split_server *server, unsigned int index, struct gw_transport *t);
/* Whether version @version of @page lies there. */
bool split_sub_has(const struct split_sub *s, size_t page, uint64_t version);
void split_sub_fill_up(struct split_sub *s, bool full);
/* Whether @page, which is away, is there by the page table. */
bool split_sub_is_at(const struct split_sub *s, size_t page);
/* Whether version @version of each page that lies there lies elsewhere, too. */
bool split_sub_is_spare(const struct split_sub *s);
void split_sub_die(struct split_sub *s);
/* Some of its pages are not found any more; and all of them are. */
void split_sub_lose(struct split_sub *s);
void split_sub_find(struct split_sub *s);

#endif
