/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * servers.h - the memory servers of a split VM, as its main host sees them: connections, what is
 * asked of them, and what leaves for them (messages.h, split.h).
 *
 *   a thread for each server   down ──> up      connect, tell what is away; then, until a
 *                               ^        │      connection fails: release, fetch, page out
 *                               └────────┘      nothing that was asked for will come; what
 *                                               was leaving stays
 *   two more while it is up    receive: pages, what is stored, what is not there
 *   anybody                    gw_servers_request(): a fault's, on the requests' connection
 *
 * Rules: whoever has a fault to serve never waits for a server: what cannot be sent at once is
 * asked for when it is there again. A slow server keeps nobody waiting but those who need its
 * pages. What is sent on the bulk connection is sent by one thread, so releases and what leaves
 * stay in order. Queues are bounded: a full one of fetches drops, of releases waits for no one
 * either, but has the server tell what is left (it connects again).
 *
 * Where each page is stored twice, a unit leaves for two servers (copies.c): the one whose thread
 * sends it has the other's send it, too, and the last of them to have it, or to fail, has it leave.
 * What only one of them has comes back, and leaves again for two, once there are two.
 *
 * Servers come and go while others work: one that *leaves* gets nothing more, and all that is there
 * comes back and goes to others; then its thread dismisses it, and it is *gone*. Another may have
 * its place. Who makes them come, leave and go is the thread that starts and stops all of them.
 */
#ifndef GW_SERVERS_H
#define GW_SERVERS_H

#include <jansson.h>

#include "pipeline.h"
#include "split.h"
#include "tasks.h"
#include "transport.h"

/* Units on their way out to one server at a time. */
#define GW_LEAVING_MAX 16

#define GW_FETCHES_MAX	64
#define GW_RELEASES_MAX 4096

struct gw_servers;

/** struct gw_server - one of them. What is not atomic belongs to its thread, or to its lock. */
struct gw_server {
	/* set by the caller */
	char address[GW_ADDRESS_MAX];
	_Atomic uint64_t size; /* bytes that may be put there */

	struct gw_servers *all;
	unsigned int index;
	void *task;
	_Atomic bool up, failed;
	_Atomic bool stop;
	_Atomic bool leaves; /* set by the caller, and so is the next where it is so at first */
	_Atomic bool gone;
	_Atomic bool carries;		/* it has the feature split-carried */
	_Atomic bool alias;		/* of another of them: what lies there is not this one's */
	_Atomic uint64_t away;		/* pages that are there, and not here */
	_Atomic uint64_t lost;		/* pages that should be there, and are not */
	_Atomic int64_t down_since;	/* if it is not up */
	_Atomic int64_t refused_until;	/* it would not store what it was sent */
	_Atomic unsigned int departing; /* units that its thread sends it, and another another */
	_Atomic unsigned int sessions;	/* so often it was told what it must have */
	_Atomic int64_t heard;		/* when it was heard last, or owed nothing */

	pthread_mutex_t send; /* of the requests' connection */
	pthread_mutex_t lock; /* of what follows */
	pthread_cond_t work;
	char host[GW_HOST_MAX]; /* what it calls itself; "" until it was up */
	char error[256];	/* why it is down */
	bool dropped;		/* because a connection was lost */
	struct gw_transport *conns[GW_MEMORY_CONNECTIONS];
	struct gw_runs_queue {
		struct {
			size_t first;
			uint32_t count;
		} runs[GW_RELEASES_MAX];
		unsigned int n;
	} releases;
	bool overrun; /* of releases: it must be told what is left */
	bool told;    /* it is being: what comes from now on is to be released */
	struct gw_fetch {
		size_t first, count;
	} fetches[GW_FETCHES_MAX];
	unsigned int nr_fetches;
	struct {
		struct gw_leaving l;
		uint64_t frames;	     /* sent when all of it was */
		struct gw_departure *shared; /* NULL: it leaves for this one only */
	} leaving[GW_LEAVING_MAX];
	struct gw_departure *parts; /* that others have begun, and it is to be sent */
	unsigned int first_leaving, nr_leaving;
	uint64_t frames_sent, frames_stored;
	size_t next;	     /* unit that is to come, when all is to */
	int64_t next_remake; /* all were looked at */
	int64_t next_listen;
};

struct gw_servers_ops {
	/* A connection of @server, past OPEN and ACCEPT, or NULL with a message. */
	struct gw_transport *(*connect)(void *env, const struct gw_server *server,
					unsigned int index, int64_t deadline);
	/*
	 * The next unit that is to leave for @server, if one should now.
	 * Return: whether there is one.
	 */
	bool (*victim)(void *env, unsigned int server, size_t *unit);
	/* Something has changed that whoever watches the whole should look at. */
	void (*notify)(void *env);
};

struct gw_servers {
	/* set by the caller */
	const struct gw_servers_ops *ops;
	const struct gw_task_ops *tasks; /* gw_threads, but in a simulation */
	void *env;			 /* of both */
	const char *name, *host;	 /* of the VM, and what this host calls itself */
	struct gw_split *split;
	struct gw_sink *sink; /* gw_split_place(), and place.c's */
	struct gw_page_options options;
	int64_t missed_ns; /* one that is away for so long has no copies, where there are two */

	struct gw_server *servers; /* @nr, the caller's */
	_Atomic unsigned int nr;
	bool started;
	_Atomic bool merging;	     /* nothing leaves; all comes */
	_Atomic bool carried;	     /* another host's word is what may go (hold.h) */
	_Atomic int64_t short_since; /* for nothing that is to leave there are two; 0: there are */
	/*
	 * Held while a unit that was sent to two leaves, and while one is about to be told what it
	 * must have: what it had stored before, and nobody knew, is not there after that.
	 */
	pthread_mutex_t ending;
};

/** gw_servers_start() - a thread for each. 0 or -errno with a message, and nothing runs. */
int gw_servers_start(struct gw_servers *v);

/** gw_servers_stop() - end them, and what is on its way stays here. */
void gw_servers_stop(struct gw_servers *v);

/**
 * gw_servers_finish() - gw_servers_stop(), once all has come back. What was on its way out when
 * that was looked at may have left since: then they go on.
 *
 * Return: 1: nothing is away, and nobody works any more; 0: something is, and they do; -errno
 * with a message.
 */
int gw_servers_finish(struct gw_servers *v);

/**
 * gw_servers_add() - call one more, in place @index, which is the next, or that of one that is
 * gone. Its address and size are the caller's. 0 or -EAGAIN.
 */
int gw_servers_add(struct gw_servers *v, unsigned int index);

/**
 * gw_servers_is_gone() - whether nothing is any more at the server in place @index, which left, and
 * nobody works for it. Does not wait.
 */
bool gw_servers_is_gone(struct gw_servers *v, unsigned int index);

/**
 * gw_servers_dismiss() - tell all of them that they need to hold nothing any more; each by
 * @deadline. After gw_servers_stop(), or by a process that has called none of them. One that
 * cannot be reached keeps what it has.
 */
void gw_servers_dismiss(struct gw_servers *v, int64_t deadline);

/** gw_servers_request() - as in struct gw_split_ops, and so are the next two. */
int gw_servers_request(struct gw_servers *v, unsigned int server, const size_t *pages,
		       unsigned int n);
void gw_servers_fetch(struct gw_servers *v, unsigned int server, size_t first, size_t count);
void gw_servers_release(struct gw_servers *v, unsigned int server, size_t page, size_t count);

/**
 * gw_servers_may_leave() - whether @unit may leave for @server: for whoever holds a part of it,
 * else for whoever is there and has most room; if there is room for all of it.
 */
bool gw_servers_may_leave(struct gw_servers *v, unsigned int server, size_t unit);

/**
 * gw_servers_is_stuck() - whether @unit can leave for nobody now: what it has elsewhere is with one
 * that leaves, cannot be reached or is full, or nobody has room for it.
 */
bool gw_servers_is_stuck(struct gw_servers *v, size_t unit);

/** struct gw_missing_copies - pages that are away, of which not two servers that are up have a
 * copy. */
struct gw_missing_copies {
	size_t single; /* at least one is missing */
	size_t none;   /* who touches one of them waits */
};

/** gw_servers_missing() - how many there are. */
void gw_servers_missing(const struct gw_servers *v, struct gw_missing_copies *m);

/** gw_servers_wake() - there may be something to do. */
void gw_servers_wake(struct gw_servers *v);

/** gw_servers_compare() - what came was not released: each is told anew what it is to hold. */
void gw_servers_compare(struct gw_servers *v);

/** gw_servers_json() - how each stands; the caller's. */
json_t *gw_servers_json(struct gw_servers *v);

#endif
