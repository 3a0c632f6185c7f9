/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * agent.h - asking a guest where on its disks its page cache lies (guest/abi.h).
 *
 * godwit-agent in the guest answers on a virtio-serial port, from the kernel module if that is
 * there. Nothing it says is trusted (invariant 10): what is out of bounds ends it, what is not
 * true is found out by who compares contents.
 *
 *   ask ──> skip what is left of other answers ──> PIECE ... ──> END
 *
 * A piece may end in the middle of a record, so records are put together across pieces.
 */
#ifndef GW_AGENT_H
#define GW_AGENT_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "qmp.h"

/* Longest name that a guest gives a disk. */
#define GW_AGENT_TEXT_MAX 127

/** struct gw_agent_told - an answer's end. @module: the guest's kernel module told it. */
struct gw_agent_told {
	uint64_t runs, pages;
	bool module;
};

/** struct gw_agent_hears - who takes an answer. 0, or -errno, which ends it. */
struct gw_agent_hears {
	/* From here on disk @index is the one that the guest calls @text. */
	int (*disk)(void *arg, unsigned int index, const char *text, uint64_t sectors);
	/* @count frames from @frame on are what the disk has from @sector on. */
	int (*run)(void *arg, uint64_t frame, uint64_t count, unsigned int index, uint64_t sector);
	void *arg;
};

/**
 * gw_agent_find() - the socket of the agent's port, as @q's QEMU says.
 * @path: set to its name in QEMU's mount namespace, the caller's; NULL on failure
 *
 * Return: 0; -ENOENT: the VM has no such port, or none with a socket of its own, or nobody in the
 * guest has it open.
 */
int gw_agent_find(struct gw_qmp *q, char **path);

/**
 * gw_agent_disks() - what a guest calls the VM's disks.
 * @disks: set to an array of {"disk": as gw_image_disk(), "key": for gw_agent_match(),
 * "sectors"}, the caller's
 */
int gw_agent_disks(struct gw_qmp *q, json_t **disks);

/**
 * gw_agent_match() - which of @disks the guest calls @text. Bus numbers are the guest's, so a
 * disk is told by its place on its bus and by its size; if that is several, it is none.
 * Return: its name, @disks'; or NULL.
 */
const char *gw_agent_match(const json_t *disks, const char *text, uint64_t sectors);

/** gw_agent_connect() - to the socket @path of process @pid. A descriptor, or -errno. */
int gw_agent_connect(pid_t pid, const char *path);

/**
 * gw_agent_ask() - ask, and hear the answer to its end.
 * @fd: connected, does not block
 * @pages_max: of the VM: no honest guest has more runs, or tells of twice as many
 *
 * Return: 0; -ETIMEDOUT: the guest has not said all of it by @deadline (ns); -EPROTO; what @to
 * returned; -ENOTSUP: an agent of another version.
 */
int gw_agent_ask(int fd, int64_t deadline, uint64_t pages_max, const struct gw_agent_hears *to,
		 struct gw_agent_told *told);

#endif
