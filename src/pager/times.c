// SPDX-License-Identifier: GPL-2.0-or-later
/* times.c - how long those wait who fault; see times.h. */
#include <string.h>

#include "cleanup.h"
#include "times.h"

/* Places in which a page's fault may be found. */
#define PLACES 4

void gw_fault_times_init(struct gw_fault_times *t)
{
	memset(t, 0, sizeof(*t));
	pthread_mutex_init(&t->lock, NULL);
}

void gw_fault_times_free(struct gw_fault_times *t)
{
	pthread_mutex_destroy(&t->lock);
}

void gw_fault_begins(struct gw_fault_times *t, const struct gw_fault *fault, int64_t now)
{
	gw_locked(&t->lock);

	t->stats.faults++;
	for (size_t i = 0; i < PLACES; i++) {
		size_t k = (fault->page + i) % GW_FAULTS_TIMED;

		if (t->timed[k].since)
			continue;
		t->timed[k].fault = *fault;
		t->timed[k].since = now;
		break;
	}
}

static void count(struct gw_fault_stats *s, unsigned int vcpu, uint64_t ns)
{
	const uint64_t us = ns / 1000;
	const int bucket = us ? 63 - __builtin_clzll(us) : 0;

	s->measured++;
	s->sum_ns += ns;
	if (ns > s->most_ns)
		s->most_ns = ns;
	if (vcpu < GW_FAULT_VCPUS_MAX) {
		s->vcpus[vcpu].measured++;
		s->vcpus[vcpu].sum_ns += ns;
	}
	s->latency[bucket < GW_LATENCIES ? bucket : GW_LATENCIES - 1]++;
}

void gw_fault_ends(struct gw_fault_times *t, size_t page, int64_t now)
{
	gw_locked(&t->lock);

	for (size_t i = 0; i < PLACES; i++) {
		size_t k = (page + i) % GW_FAULTS_TIMED;

		if (!t->timed[k].since || t->timed[k].fault.page != page)
			continue;
		count(&t->stats, t->timed[k].fault.vcpu, (uint64_t)(now - t->timed[k].since));
		t->timed[k].since = 0;
		break;
	}
}

void gw_fault_stats(struct gw_fault_times *t, struct gw_fault_stats *stats)
{
	gw_locked(&t->lock);
	*stats = t->stats;
}
