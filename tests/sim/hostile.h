/* SPDX-License-Identifier: GPL-2.0-or-later */
/* hostile.h - what hostile sources share (hostile_source*.c), and hostile destinations. */
#ifndef SIM_HOSTILE_H
#define SIM_HOSTILE_H

#include "sim.h"

#define STREAMS 2
#define SECRET	"0000000000000000000000000000000000000000000000000000000000000000"

struct script {
	const char *name;
	void (*run)(void);
	const char *says; /* the destination, somewhere in its reason */
};

/* hostile_source_pages.c */
extern const struct script paging_scripts[];
extern const unsigned int nr_paging_scripts;
void paging_close(void);
void paging_calls_for_ever(void *arg, unsigned int i);

/* hostile_source_away.c */
extern const struct script away_scripts[];
extern const unsigned int nr_away_scripts;

/* hostile_source_disks.c */
extern const struct script disk_scripts[];
extern const unsigned int nr_disk_scripts;

/* The script's control connection. */
extern struct gw_transport *control;
extern struct gw_transport *streams[STREAMS + 2];

struct gw_transport *dial(unsigned int kind, unsigned int stream);
/* Wait for @type; the destination may end it earlier, as it should. */
bool expect(struct gw_transport *t, unsigned int type);
void say(struct gw_transport *t, unsigned int type, uint64_t arg);
void define(const char *text);
/* The streams; READY and the streams. */
bool joined_streams(void);
bool joined(void);

/* The source moves its guest to @impostor, lie @i, and ends with a reason that has @says in it. */
void meet(const struct scenario *sc, void (*impostor)(void *arg, unsigned int i), unsigned int i,
	  const char *says);
/* Its guest runs on there, and stood still for so long at most. */
void guest_runs_on(unsigned int i, int64_t most_ns);

#endif
