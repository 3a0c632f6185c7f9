/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * hold_site.h - a godwitd that is a memory server, and a main host that calls it. The daemon's loop
 * turns in this process; its workers are others.
 */
#ifndef TEST_HOLD_SITE_H
#define TEST_HOLD_SITE_H

#include "memserver.h"
#include "served.h"

#include <poll.h>

#include "budget.h"
#include "promise.h"
#include "worker.h"

#define MIB(n) ((uint64_t)(n) << 20)

struct site {
	struct served d;
	struct host *h; /* a main host */
	json_t *answer;
};

static inline int make(void **state)
{
	struct site *s = calloc(1, sizeof(*s));

	*state = s;
	if (!s || served_init(&s->d) || host_make((void **)&s->h))
		return -1;
	s->d.paths.server_limit = MIB(16);
	s->h->hold.size = MIB(2);
	return served_start(&s->d);
}

static inline int drop(void **state)
{
	struct site *s = *state;

	for (unsigned int i = 0; i < GW_MEMORY_CONNECTIONS; i++)
		gw_transport_close(&s->h->main[i]);
	served_drop(&s->d);
	json_decref(s->answer);
	host_drop((void **)&s->h);
	free(s);
	return 0;
}

static inline bool has_said(void *arg)
{
	struct pollfd pfd = { .fd = ((struct gw_transport *)arg)->poll_fd, .events = POLLIN };

	return poll(&pfd, 1, 0) > 0;
}

/* Connection @i of split @id, as far as the daemon goes; what it says is to be heard. */
static inline void dial(struct site *s, unsigned int i, unsigned int id)
{
	gw_autofree char *address = gw_path("127.0.0.1:%u", s->d.port);
	struct gw_open open = { .version_min = GW_VERSION_MIN,
				.version_max = GW_VERSION,
				.kind = GW_OPEN_MEMORY,
				.stream = i,
				.id = { (uint8_t)id, 1 } };
	uint8_t wire[GW_OPEN_LEN];
	struct gw_transport *t = gw_tcp_dial(address, SOON, NULL);

	assert_non_null(t);
	gw_open_encode(&open, wire);
	assert_int_equal(gw_frame_send_buf(t, GW_MSG_OPEN, 0, wire, sizeof(wire)), 0);
	gw_transport_close(&s->h->main[i]);
	s->h->main[i] = t;
	run_until(&s->d, has_said, t);
}

static inline void open_both(struct site *s, unsigned int id)
{
	s->h->frames = 0;
	for (unsigned int i = 0; i < GW_MEMORY_CONNECTIONS; i++) {
		dial(s, i, id);
		hear(s->h, i, GW_MSG_ACCEPT);
		assert_int_equal(s->h->f.arg, GW_VERSION);
	}
}

/* What lies there is what page 0 and those behind it have left. */
static inline void begin_at(struct site *s, unsigned int id, size_t pages)
{
	open_both(s, id);
	assert_int_equal(say_hold(s->h), pages);
	if (pages)
		say_run(s->h, 0, GW_MSG_MISSING, 0, pages);
	say(s->h, 0, GW_MSG_MISSING_END, NULL, 0);
	hear(s->h, 0, GW_MSG_HOLDING);
	assert_int_equal(s->h->f.arg, pages);
}

static inline void close_both(struct site *s)
{
	for (unsigned int i = 0; i < GW_MEMORY_CONNECTIONS; i++)
		gw_transport_close(&s->h->main[i]);
}

/* Who was promised nothing leaves, and what is called then is somebody else. */
static inline bool no_strangers(void *arg)
{
	for (const struct gw_job *job = ((struct site *)arg)->d.jobs->list; job; job = job->next)
		if (job->holds && !job->promised)
			return false;
	return true;
}

/* HOLD is refused, and @why. */
static inline void refused(struct site *s, unsigned int id, const char *why)
{
	json_t *json = gw_hold_json(&s->h->hold);
	gw_autofree char *text = json_dumps(json, 0);

	json_decref(json);
	dial(s, 0, id);
	hear(s->h, 0, GW_MSG_ACCEPT);
	say(s->h, 0, GW_MSG_HOLD, text, strlen(text));
	hear(s->h, 0, GW_MSG_ERROR);
	assert_non_null(memmem(s->h->f.payload, s->h->f.len, why, strlen(why)));
	gw_transport_close(&s->h->main[0]);
	run_until(&s->d, no_strangers, s);
}

static inline void on_end(void *arg, json_t *result)
{
	struct site *s = arg;

	json_decref(s->answer);
	s->answer = json_incref(result);
}

static inline bool answered(void *arg)
{
	return ((struct site *)arg)->answer != NULL;
}

/* `godwit held`, with @args, which are taken over. Return: what it says, borrowed. */
static inline const json_t *held(struct site *s, json_t *args)
{
	json_decref(s->answer);
	s->answer = NULL;
	assert_non_null(gw_jobs_start(s->d.jobs, "held", args,
				      (struct gw_job_client){ .on_end = on_end, .arg = s }));
	json_decref(args);
	run_until(&s->d, answered, s);
	return json_object_get(s->answer, "return");
}

static inline const json_t *list(struct site *s)
{
	return json_object_get(held(s, json_object()), "held");
}

static inline bool is_idle(void *arg)
{
	return !((struct site *)arg)->d.jobs->list;
}

static inline bool is_gone(void *arg)
{
	struct site *s = arg;

	return !gw_promise_connected(&s->d.paths, "01010000000000000000000000000000");
}

#define site_test(fn) cmocka_unit_test_setup_teardown(fn, make, drop)

#endif
