/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * qmp.h - a client of QEMU's monitor.
 *
 * Rules: one thread per connection. Commands wait for their answer: one at a time, or
 * several that do not depend on each other in one go (gw_qmp_ask()). Events of
 * QEMU's migration that arrive meanwhile are kept until somebody waits for them,
 * others are not. Nothing waits longer than its deadline, connecting and sending
 * included (invariant 16), and the message says for what it waited. QEMU's own
 * error text becomes the message.
 */
#ifndef GW_QMP_H
#define GW_QMP_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct gw_qmp;

/* How long QEMU may take to answer a command, unless the caller knows better. */
#define GW_QMP_TIMEOUT_MS 10000

/**
 * gw_qmp_open() - connect to a monitor socket and negotiate capabilities.
 * @deadline: ns
 *
 * Return: the connection (gw_qmp_close()), or NULL with a message.
 */
struct gw_qmp *gw_qmp_open(const char *path, int64_t deadline);
void gw_qmp_close(struct gw_qmp *q);

/**
 * gw_qmp_patience() - how long QEMU may take to answer each command from now on, in ms.
 * GW_QMP_TIMEOUT_MS after gw_qmp_open(). An answer that comes too late is dropped.
 */
void gw_qmp_patience(struct gw_qmp *q, int ms);

/**
 * gw_qmp_call() - execute @command and wait for the answer.
 * @args: arguments, a reference is taken over; may be NULL
 * @answer: what it returned, owned by the caller; may be NULL
 *
 * Return: 0; -EREMOTEIO if QEMU refused (its text is the message); -errno if
 * the connection broke or timed out.
 */
int gw_qmp_call(struct gw_qmp *q, const char *command, json_t *args, json_t **answer);

/** struct gw_question - one of several that are asked in one go. gw_questions_free(). */
struct gw_question {
	const char *command; /* and @args: as for gw_qmp_call() */
	json_t *args;
	json_t *answer; /* what it returned; NULL: nothing, or it was refused */
	char *refusal;	/* why QEMU refused it, or NULL */
};

/** gw_question_hmp() - a human monitor command as a question. */
struct gw_question gw_question_hmp(const char *command);

/**
 * gw_qmp_ask() - ask @n questions, each of which must be good to ask whatever the others' answers.
 *
 * What a command costs is its bytes, which QEMU reads one at a time, and, where the
 * processors are busy, that it and we wake each other. The second is spared. They are
 * executed and answered in order, each within the connection's patience of the one
 * before. That QEMU refuses one is for whoever looks at its answer.
 *
 * Return: 0 if all are answered; -errno if the connection broke or timed out.
 */
int gw_qmp_ask(struct gw_qmp *q, struct gw_question *asked, size_t n);

/**
 * gw_question_answer() - what a question that was asked came to.
 * @answer: set to what it returned, which stays the question's; may be NULL
 *
 * Return: 0, or -EREMOTEIO if QEMU refused (its text is the message).
 */
int gw_question_answer(const struct gw_question *asked, const json_t **answer);

/** gw_question_text() - what a human monitor command printed; NULL with a message. */
const char *gw_question_text(const struct gw_question *asked);

void gw_questions_free(struct gw_question *asked, size_t n);

/** gw_qmp_text() - string @key of an answer; "" if there is none. Lives as long as @answer. */
static inline const char *gw_qmp_text(const json_t *answer, const char *key)
{
	const char *text = json_string_value(json_object_get(answer, key));

	return text ? text : "";
}

/** gw_qmp_send_fd() - QMP getfd: give QEMU a descriptor under @name. */
int gw_qmp_send_fd(struct gw_qmp *q, const char *name, int fd);

/** gw_qmp_hmp() - run a human monitor command. Return: its text (free()), NULL with a message. */
char *gw_qmp_hmp(struct gw_qmp *q, const char *command);

/**
 * gw_qmp_wait_migration() - wait until QEMU's own migration reaches @status.
 * @deadline: ns
 *
 * Needs the `events` capability. Return: 0; -EREMOTEIO if it failed or was
 * cancelled instead, with QEMU's reason.
 */
int gw_qmp_wait_migration(struct gw_qmp *q, const char *status, int64_t deadline);

/**
 * gw_qmp_shut_down() - of a QEMU that has ended: whether its guest had powered off, or somebody
 * had asked for the end on a monitor. False also where it crashed, or was killed by a signal.
 */
bool gw_qmp_shut_down(struct gw_qmp *q);

/** gw_qmp_resumes() - how often the guest was continued, by the events read so far. */
unsigned int gw_qmp_resumes(const struct gw_qmp *q);

/**
 * gw_qmp_asleep() - whether the guest fell asleep (S3) since gw_qmp_open(), by the events
 * read so far. A QEMU since 9.0 that is told to stop it then calls it paused.
 */
bool gw_qmp_asleep(const struct gw_qmp *q);

/** gw_qmp_status() - query-status' status ("running", "paused", ...) into @status. */
int gw_qmp_status(struct gw_qmp *q, char *status, size_t len);

/** gw_qmp_pid() - the QEMU's process, whoever made its socket (by its vCPU threads). */
int gw_qmp_pid(struct gw_qmp *q, pid_t *pid);

/**
 * gw_qmp_check() - that this is the monitor of QEMU @pid.
 *
 * The socket of a QEMU that Godwit did not start has a name where its user wanted it,
 * in /tmp perhaps: somebody else may answer there by now, or another VM's QEMU.
 *
 * Return: 0; -EPERM: served by a user who is neither root, nor we, nor QEMU's; -ESRCH: by
 * another QEMU; -errno.
 */
int gw_qmp_check(struct gw_qmp *q, pid_t pid);

#endif
