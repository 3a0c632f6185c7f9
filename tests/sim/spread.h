/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * spread.h - a guest whose memory lies on several hosts, in one process and in virtual time: the
 * real pager of its main host (pager/split.h, pager/servers.h) and real memory servers
 * (memserver/serve.h, their stores on a tmpfs), between a simulated network, kernel and guest.
 *
 *   main host    vCPUs, a device, a page cache            spread_guest.c
 *                userfaultfds                             spread_kernel.c
 *                a pager, and whoever follows it          spread_main.c
 *   sub-hosts    a memory server each                     spread_sub.c
 *   the world    steps, faults, checks                    spread_world.c
 *   runs         by seed                                  spread.c
 *
 * Each op, park point and transport call is a step, and at any of them something may befall the
 * world (enum spread_fault). Whatever it is, at every step
 *
 *   - the newest bytes of each page are at the main host, or at the one that the network page
 *     table names (invariant 7);
 *   - what is here does not grow beyond the limit and a unit for each thread (invariant 8);
 *   - whoever reads a page reads its newest bytes, all of them;
 *
 * and in the end all of memory is back, and no server holds anything.
 *
 * Rules: as sim.h. A seed decides everything about a run.
 */
#ifndef SIM_SPREAD_H
#define SIM_SPREAD_H

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

#define SPREAD_SUBS	 3
#define SPREAD_CPUS	 4
#define SPREAD_PAGES	 1024
#define SPREAD_FAULTS	 8
#define SPREAD_PROCS	 64 /* of a kind, one after the other */
#define SPREAD_LISTENERS 2

enum spread_fault {
	SPREAD_NONE,
	SPREAD_CUT_ONE,	   /* the connection on which something is sent next is cut, and no other */
	SPREAD_CUT,	   /* all of one server's, which cannot be reached for a while */
	SPREAD_CUT_ALL,	   /* all servers' */
	SPREAD_STALL,	   /* nothing arrives for a while, then everything does */
	SPREAD_DAMAGE,	   /* a bit of what is sent next is flipped */
	SPREAD_HANG,	   /* a server's process stands still, and goes on */
	SPREAD_KILL,	   /* it dies, and is started again with its store */
	SPREAD_FULL,	   /* it can store nothing for a while */
	SPREAD_LOSE,	   /* it dies, and finds only some of its pages until it is started again */
	SPREAD_KILL_PAGER, /* another takes over */
	SPREAD_HANG_PAGER,
	SPREAD_KILL_ALL,  /* pager and servers at once */
	SPREAD_NO_MEMORY, /* the main host has none for a page that comes */
	SPREAD_PUNCH,	  /* what leaves cannot be punched */
	SPREAD_OVERRUN,	  /* more came than a server was told of */
	SPREAD_FAULTS_END,
};

/* Places where something strikes, besides those of enum gw_split_park. */
enum {
	SPREAD_COPYING = GW_SPLIT_FAULT + 1, /* some of several pages are placed */
	SPREAD_MENDING,			     /* what another left is put right */
	SPREAD_UNSPLIT,			     /* all is back, and every server knows that */
	SPREAD_PLACES,
};

struct spread_strike {
	enum spread_fault kind;
	unsigned int step; /* that, or the first after it that is at @where */
	int where;	   /* enum gw_split_park, or one of the above; -1: any step */
	unsigned int sub;
	int64_t ns;
	bool struck;
};

/* Roads that the runs of a sweep must have taken, each of them. */
enum spread_road {
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
	ROAD_COUNT,
};

/* A process that pages, and what it has. */
struct spread_pager {
	struct process process;
	struct gw_memory memory; /* the guest's, as it reaches it */
	struct gw_split split;
	struct gw_split_in in;
	struct gw_servers all;
	struct gw_server servers[SPREAD_SUBS];
	bool signalled[SPREAD_SUBS], was_up[SPREAD_SUBS], was_down[SPREAD_SUBS];
	bool notified, halting, mending;
	unsigned int listeners;
	struct gw_bitmap filled; /* units that may have something here */
	size_t prepared[8];
	unsigned int nr_prepared;
};

/* A process that holds pages. */
struct spread_server {
	struct process process;
	struct spread_sub *sub;
	struct gw_memserve serve;
	struct gw_transport *next[GW_MEMORY_CONNECTIONS], *conns[GW_MEMORY_CONNECTIONS];
	bool running[GW_MEMORY_CONNECTIONS], compared, dismissed;
};

/* A sub-host. */
struct spread_sub {
	unsigned int index;
	char name[8], folder[64];
	struct spread_server *server; /* NULL: none lives */
	struct gw_memstore *store;    /* as it lies there, whoever lives */
	uint8_t *maps[GW_MEMORY_BLOCKS_MAX];
	struct gw_bitmap lost; /* pages that it does not find just now */
	bool full, dismissed;
	unsigned int dismissed_of; /* which split */
	size_t promised;	   /* pages */
	int64_t away_until;	   /* nobody can reach it before */
};

struct spread_cpu {
	enum spread_state {
		SPREAD_RUNS,
		SPREAD_FAULTS_NOW, /* and nobody has been told */
		SPREAD_WAITS,	   /* somebody was */
	} state;
	size_t page;
	bool writes, protected;
};

struct spread {
	uint64_t seed;
	bool trace;
	unsigned int steps, life; /* after so many it is to end */
	uint64_t hash;
	struct rng rng;
	struct spread_strike strikes[SPREAD_FAULTS];
	unsigned int nr_strikes;
	bool only;   /* the one that its caller has named */
	int at_park; /* of this step; -1: none */
	bool over;   /* nobody is needed any more */

	/* what the seed has made of it */
	unsigned int nr_subs, unit_pages, touches_per_ms;
	unsigned int zeros; /* one in so many writes is of zeros */
	bool pinned;
	enum gw_compress compress;
	uint64_t sizes[SPREAD_SUBS];

	/* the main host */
	struct process daemon;
	struct buffers file;
	uint64_t must[SPREAD_PAGES]; /* which version of its bytes each page has; 0: zeros */
	uint64_t version;
	bool watched;
	struct gw_bitmap protected;
	struct spread_cpu cpu[SPREAD_CPUS];
	struct spread_cpu device; /* its page, once it runs: pinned */
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
	uint64_t target;	   /* pages */
	int64_t next_change, no_memory_until;
	bool punch_fails;
	struct spread_pager *pager; /* who lives */
	struct spread_pager *pagers[SPREAD_PROCS];
	unsigned int nr_pagers;

	struct spread_sub subs[SPREAD_SUBS];
	struct spread_server *servers[SPREAD_PROCS];
	unsigned int nr_servers;
	struct gw_memstore *stores[SPREAD_PROCS];
	unsigned int nr_stores;
	uint64_t touched, written;
};

extern struct spread spread;

/* spread_world.c */
void spread_run(uint64_t seed, bool faults, const struct spread_strike *strike);
void spread_road(enum spread_road road);
void spread_check_roads(void);
/* Everything that holds at every moment. */
void spread_check(void);
const char *spread_fault_name(enum spread_fault kind);

/* spread_guest.c */
void spread_guest_init(void);
void spread_guest_free(void);
void spread_tick(void);
void spread_wake(size_t page, size_t count);
/* Faults of a part of memory that nobody has been told of. Return: how many. */
unsigned int spread_faults(unsigned int part, struct gw_fault faults[GW_FAULTS_MAX], bool take);
bool spread_in_file(size_t page);
/* Whether @bytes are version @version of @page: all of them; or by the first and last word. */
bool spread_is(const uint8_t *bytes, size_t page, uint64_t version);
bool spread_seems(const uint8_t *bytes, size_t page, uint64_t version);
const uint8_t *spread_bytes(size_t page);
void spread_fill(uint8_t *bytes, size_t page, uint64_t version);
uint64_t spread_here(void);

/* spread_kernel.c */
extern const struct gw_memory_ops spread_memory_ops;
extern const struct gw_split_ops spread_split_ops;
int64_t spread_now(void *env);
void spread_notify(void *env);

/* spread_main.c */
void spread_pager_start(bool took_over);
void spread_pager_kill(void);

/* spread_sub.c */
void spread_sub_init(unsigned int index);
void spread_sub_remove(struct spread_sub *s);
void spread_sub_start(struct spread_sub *s);
void spread_sub_kill(struct spread_sub *s);
void spread_sub_call(struct spread_server *server, unsigned int index, struct gw_transport *t);
/* Whether version @version of @page lies there. */
bool spread_sub_has(const struct spread_sub *s, size_t page, uint64_t version);
void spread_sub_fill_up(struct spread_sub *s, bool full);
/* Some of its pages are not found any more; and all of them are. */
void spread_sub_lose(struct spread_sub *s);
void spread_sub_find(struct spread_sub *s);

#endif
