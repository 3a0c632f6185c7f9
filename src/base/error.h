/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * error.h - one message per failure, recorded where it is detected.
 *
 * Rules: a function that fails returns -errno and has recorded a message that
 * says what happened and, where there is something to do, what to do. Callers
 * pass the code on and do not record again; they may put context in front.
 * The message belongs to the calling thread and lives until the next failure.
 */
#ifndef GW_ERROR_H
#define GW_ERROR_H

#define GW_ERROR_MAX 1024

/**
 * gw_fail() - record a failure.
 * @code: negative errno to return
 * @fmt: what happened and what the user can do
 *
 * Return: @code.
 */
int gw_fail(int code, const char *fmt, ...) __attribute__((format(printf, 2, 3), cold));

/**
 * gw_fail_prefix() - put context in front of the recorded message.
 * @code: the code of the failure, passed through
 */
int gw_fail_prefix(int code, const char *fmt, ...) __attribute__((format(printf, 2, 3), cold));

/** gw_error() - the calling thread's last message, never NULL. */
const char *gw_error(void);

/** gw_error_clear() - forget the calling thread's message. */
void gw_error_clear(void);

#endif
