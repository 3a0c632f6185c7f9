/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * hinter.h - where on a VM's disks the bytes of its pages lie, by whoever knows it best.
 *
 * The guest's agent (vm/agent.h) tells it of its page cache when a migration begins, and again near
 * the end of each round that is long enough: an answer is of one moment, and serves the round that
 * begins next, or none. Otherwise each disk's image has an index
 * (disk/index.h), asked as pages travel, in every round but the last. It lies in LIB/index, under a
 * name made of what the image is: of an overlay it is that of the raw image at the end of its
 * backing chain, which many VMs share. It is refreshed when a migration begins, for a while, and
 * whoever comes next goes on.
 *
 * Storage may hang, and a guest say nothing: all of it is done by a thread of its own, which is
 * left alone then.
 */
#ifndef GW_HINTER_H
#define GW_HINTER_H

#include <jansson.h>
#include <poll.h>
#include <stdint.h>
#include <sys/types.h>

#include "hints.h"
#include "physical.h"

#define GW_HINTER_OTHERS 2

struct gw_hinter;

enum gw_hinter_by {
	GW_HINTER_AUTO, /* the agent, or the index where it does not answer */
	GW_HINTER_AGENT,
	GW_HINTER_INDEX,
};

/**
 * struct gw_hinter_from - what it goes by. All is copied.
 * @images: gw_images_find(); @pid, @dir: as gw_opened_open(); @lib: LIB
 * @agent: the agent's socket; NULL: there is none. @disks: gw_agent_disks()
 * @nr_pages: of the VM
 */
struct gw_hinter_from {
	enum gw_hinter_by by;
	const json_t *images, *disks;
	pid_t pid;
	const char *dir, *lib, *agent;
	struct gw_physical physical;
	size_t nr_pages;
};

/** gw_hinter_start() - begin to ask. Return: gw_hinter_stop(), or NULL with a message. */
struct gw_hinter *gw_hinter_start(const struct gw_hinter_from *from);

/**
 * gw_hinter_wait() - until who is asked has answered, or the time for it is over.
 * @others: as of poll(): whoever is to be heard meanwhile, GW_HINTER_OTHERS of them
 *
 * Return: 0; -ETIMEDOUT; -EINTR: some of @others want to be. No message.
 */
int gw_hinter_wait(struct gw_hinter *h, struct pollfd *others);

/**
 * gw_hinter_hints() - what is known of pages, for the disks that @disks names, by their place in
 * it. Never waits: the first call is for the first round, any other takes what the guest has told
 * since the one before.
 *
 * Return: 0; -errno with a message: nothing is known, or not yet, or not any more.
 */
int gw_hinter_hints(struct gw_hinter *h, const json_t *disks, struct gw_hints *hints);

/**
 * gw_hinter_again() - the round that is under way ends in about @left_ns, after @ns in all.
 *
 * Asks the guest again where it has answered before, and so that it has time to: in the background,
 * and only a few times. For the thread that calls gw_hinter_hints(), as often as it likes.
 */
void gw_hinter_again(struct gw_hinter *h, int64_t ns, int64_t left_ns);

/** gw_hinter_stop() - nobody looks anything up any more. NULL is none. */
void gw_hinter_stop(struct gw_hinter *h);

#endif
