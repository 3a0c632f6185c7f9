// SPDX-License-Identifier: GPL-2.0-or-later
/* tasks.c - those that are threads; see tasks.h. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "clock.h"
#include "error.h"
#include "tasks.h"

struct thread {
	pthread_t id;
	void (*fn)(void *arg);
	void *arg;
};

static int64_t op_now(void *env)
{
	(void)env;
	return gw_now();
}

static void op_urgency(void *env, enum gw_urgency urgency)
{
	(void)env;
	gw_thread_urgency(urgency);
}

static void *run(void *arg)
{
	const struct thread *t = arg;

	t->fn(t->arg);
	return NULL;
}

static void *op_spawn(void *env, void (*fn)(void *arg), void *arg)
{
	struct thread *t = malloc(sizeof(*t));
	int err = ENOMEM;

	(void)env;
	if (t) {
		t->fn = fn;
		t->arg = arg;
		err = pthread_create(&t->id, NULL, run, t);
	}
	if (!err)
		return t;
	free(t);
	gw_fail(-err, "cannot start a thread: %s", strerror(err));
	return NULL;
}

static void op_join(void *env, void *task)
{
	struct thread *t = task;

	(void)env;
	pthread_join(t->id, NULL);
	free(t);
}

static void op_rest(void *env, pthread_cond_t *cond, pthread_mutex_t *lock, int64_t until)
{
	(void)env;
	gw_wait_until(cond, lock, until);
}

static void op_signal(void *env, pthread_cond_t *cond)
{
	(void)env;
	pthread_cond_signal(cond);
}

const struct gw_task_ops gw_threads = {
	.now = op_now,
	.urgency = op_urgency,
	.spawn = op_spawn,
	.join = op_join,
	.rest = op_rest,
	.signal = op_signal,
};
