/* SPDX-License-Identifier: GPL-2.0-or-later */
/* hostile.h - what the scripts of hostile sources share; see hostile_source.c. */
#ifndef SIM_HOSTILE_H
#define SIM_HOSTILE_H

#include "sim.h"

#define STREAMS 2

struct script {
	const char *name;
	void (*run)(void);
	const char *says; /* the destination, somewhere in its reason */
};

/* hostile_pages.c */
extern const struct script paging_scripts[];
extern const unsigned int nr_paging_scripts;
void paging_close(void);

/* The script's control connection. */
extern struct gw_transport *control;

struct gw_transport *dial(unsigned int kind, unsigned int stream);
/* Wait for @type; the destination may end it earlier, as it should. */
bool expect(struct gw_transport *t, unsigned int type);
void say(struct gw_transport *t, unsigned int type, uint64_t arg);
void define(const char *text);
/* The streams; READY and the streams. */
bool joined_streams(void);
bool joined(void);

#endif
