/* SPDX-License-Identifier: GPL-2.0-or-later */
/* run.h - run another program to its end, and take what it prints. */
#ifndef GW_RUN_H
#define GW_RUN_H

#include <stdbool.h>
#include <stddef.h>

/**
 * gw_run() - run @argv, found by PATH.
 * @errors: what it prints as errors is taken, too; else that is our own error output
 * @out: the first @len - 1 bytes of it, and NUL
 *
 * Waits for it, however long it takes. Return: how it ended, as from waitpid(); -errno with a
 * message: it could not be begun.
 */
int gw_run(char *const argv[], bool errors, char *out, size_t len);

#endif
