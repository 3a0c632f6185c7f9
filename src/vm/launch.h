/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * launch.h - start a QEMU that outlives us, and find it again.
 *
 * QEMU becomes a child of init in a session of its own (invariant 12), with
 * its output in DIR/qemu.log and its monitor listening before it runs, so
 * nobody waits for a socket to appear.
 */
#ifndef GW_LAUNCH_H
#define GW_LAUNCH_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "define.h"

/** struct gw_process - a process, told apart from a later one with the same number. */
struct gw_process {
	pid_t pid;
	uint64_t start; /* ticks since boot, from /proc/PID/stat */
};

/**
 * gw_launch() - start @def's QEMU.
 * @dir: its run directory, which exists
 * @ram_paths: an existing RAM file for each memory backend
 * @incoming: to receive a migration
 *
 * Return: 0 once QEMU is executing (it may still refuse its arguments: see
 * gw_launch_reason()), or -errno, such as -ENOENT for a missing binary.
 */
int gw_launch(const struct gw_definition *def, const char *dir, char *const ram_paths[],
	      bool incoming, struct gw_process *process);

/**
 * gw_launch_find() - the process that gw_launch() made in @dir, from the note
 * that it leaves in qemu.pid before it becomes QEMU. 0 or -ENOENT.
 */
int gw_launch_find(const char *dir, struct gw_process *process);

/** gw_launch_reason() - the last lines of @dir/qemu.log: why QEMU ended. free(). */
char *gw_launch_reason(const char *dir);

/** gw_process_identify() - fill in @process for a running @pid. 0 or -ESRCH. */
int gw_process_identify(pid_t pid, struct gw_process *process);

/** gw_process_alive() - whether that very process still runs (a zombie does not). */
bool gw_process_alive(const struct gw_process *process);

/** gw_process_ended() - whether it has ended, or does so within @ms. */
bool gw_process_ended(const struct gw_process *process, int ms);

/**
 * gw_process_yield() - let it run only where nobody else wants a processor.
 *
 * For a QEMU that only has to end: freeing its memory must not take time from
 * a guest. What cannot be changed stays as it is.
 */
void gw_process_yield(const struct gw_process *process);

/** gw_process_kill() - SIGKILL it, and wait until it is gone. */
void gw_process_kill(const struct gw_process *process);

/**
 * gw_process_end() - SIGKILL it, and wait for at most @ms until it is gone.
 *
 * Return: whether it is. One that hangs in the kernel never runs its guest again, but
 * may still hold what it has open.
 */
bool gw_process_end(const struct gw_process *process, int ms);

/** gw_process_open() - a pidfd that becomes readable when it ends, or -ESRCH. */
int gw_process_open(const struct gw_process *process);

/** gw_vm_qmp_path() - the monitor socket of a VM that Godwit launched. free(). */
char *gw_vm_qmp_path(const char *dir);

#endif
