// SPDX-License-Identifier: GPL-2.0-or-later
/* urgency.c - the kernel's measures for it; see urgency.h. */
#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "log.h"
#include "urgency.h"

/* struct sched_attr of the kernel, which glibc 2.36 does not have. */
struct attr {
	uint32_t size, policy;
	uint64_t flags;
	int32_t nice;
	uint32_t priority;
	uint64_t runtime, deadline, period;
};

void gw_thread_urgency(enum gw_urgency urgency)
{
	/* A slice (Linux 6.12; 0: the kernel's): who asks for less is let in earlier. */
	static const struct {
		int32_t nice;
		uint64_t slice_ns;
	} how[] = {
		[GW_URGENT] = { -15, 100000 },
		[GW_BULK] = { 5, 0 },
		[GW_BACKGROUND] = { 19, 0 },
	};
	const struct attr attr = { .size = sizeof(attr),
				   .nice = how[urgency].nice,
				   .runtime = how[urgency].slice_ns };

	if (syscall(SYS_sched_setattr, 0, &attr, 0))
		gw_debug("sched_setattr, nice %d: %s", attr.nice, strerror(errno));
}
