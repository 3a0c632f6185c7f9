// SPDX-License-Identifier: GPL-2.0-or-later
/* teller.c - a thread that says that something takes long; see teller.h. */
#include <errno.h>
#include <string.h>

#include "cleanup.h"
#include "clock.h"
#include "log.h"
#include "teller.h"

static void *work(void *arg)
{
	struct gw_teller *t = arg;
	bool end = false;

	while (!end) {
		const int64_t next = gw_now() + t->ms * GW_MS;

		{
			gw_locked(&t->lock);
			while (!t->end && gw_wait_until(&t->ended, &t->lock, next) != ETIMEDOUT)
				;
			end = t->end;
		}
		if (!end)
			t->tell(t->arg, t->what);
	}
	return NULL;
}

void gw_teller_start(struct gw_teller *t, int ms, void (*tell)(void *arg, const char *what),
		     void *arg, const char *what)
{
	t->ms = ms;
	t->tell = tell;
	t->arg = arg;
	t->what = what;
	t->end = false;
	pthread_mutex_init(&t->lock, NULL);
	pthread_cond_init(&t->ended, NULL);
	t->running = !pthread_create(&t->thread, NULL, work, t);
	if (!t->running)
		gw_warn("no thread to tell what is being done");
}

void gw_teller_now(struct gw_teller *t, const char *what)
{
	t->what = what;
}

void gw_teller_stop(struct gw_teller *t)
{
	if (t->running) {
		{
			gw_locked(&t->lock);
			t->end = true;
			pthread_cond_signal(&t->ended);
		}
		pthread_join(t->thread, NULL);
	}
	t->running = false;
	pthread_cond_destroy(&t->ended);
	pthread_mutex_destroy(&t->lock);
}
