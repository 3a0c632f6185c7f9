// SPDX-License-Identifier: GPL-2.0-or-later
/* crew.c - threads that do one thing in parallel; see crew.h. */
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "cleanup.h"
#include "crew.h"

int gw_crew_init(struct gw_crew *c)
{
	memset(c, 0, sizeof(*c));
	c->event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (c->event < 0)
		return gw_fail(-errno, "eventfd: %s", strerror(errno));
	pthread_mutex_init(&c->lock, NULL);
	return 0;
}

void gw_crew_free(struct gw_crew *c)
{
	close(c->event);
	pthread_mutex_destroy(&c->lock);
}

unsigned int gw_crew_cores(void)
{
	cpu_set_t cpus;
	int n = sched_getaffinity(0, sizeof(cpus), &cpus) ? 1 : CPU_COUNT(&cpus);

	return n < GW_CREW_MAX ? (unsigned int)n : GW_CREW_MAX;
}

void gw_crew_notify(struct gw_crew *c)
{
	uint64_t one = 1;

	if (write(c->event, &one, sizeof(one)) < 0)
		return; /* the counter is full: the owner is awake already */
}

void gw_crew_quiet(struct gw_crew *c)
{
	uint64_t count;

	if (read(c->event, &count, sizeof(count)) < 0)
		return; /* nothing was notified */
}

static void *work(void *arg)
{
	struct gw_crew_member *m = arg;
	struct gw_crew *c = m->crew;
	int rc = c->fn(c->arg, m->index);

	if (rc) {
		gw_locked(&c->lock);
		if (!c->rc) {
			c->rc = rc;
			snprintf(c->message, sizeof(c->message), "%s", gw_error());
		}
	}
	c->running--;
	gw_crew_notify(c);
	return NULL;
}

int gw_crew_start(struct gw_crew *c, unsigned int n, int (*fn)(void *arg, unsigned int i),
		  void *arg)
{
	c->fn = fn;
	c->arg = arg;
	c->rc = 0;
	c->n = 0;
	c->running = 0;
	for (unsigned int i = 0; i < n && i < GW_CREW_MAX; i++) {
		struct gw_crew_member *m = &c->members[i];
		int err;

		m->crew = c;
		m->index = i;
		c->running++;
		err = pthread_create(&m->thread, NULL, work, m);
		if (err) {
			c->running--;
			gw_locked(&c->lock);
			c->rc = -err;
			snprintf(c->message, sizeof(c->message), "cannot start a thread: %s",
				 strerror(err));
			return gw_fail(-err, "%s", c->message);
		}
		c->n++;
	}
	return 0;
}

bool gw_crew_failed(struct gw_crew *c)
{
	gw_locked(&c->lock);
	return c->rc != 0;
}

int gw_crew_join(struct gw_crew *c)
{
	for (unsigned int i = 0; i < c->n; i++)
		pthread_join(c->members[i].thread, NULL);
	c->n = 0;
	return c->rc ? gw_fail(c->rc, "%s", c->message) : 0;
}
