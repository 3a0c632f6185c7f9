// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * fuzz_agent.c - what a guest's agent says into gw_agent_ask(), and what it calls disks.
 *
 * All of it is there when it is asked, and then the port closes. The id of the question is
 * always the same here, so that inputs can be answers to it (-Wl,--wrap=getrandom).
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include "agent.h"
#include "clock.h"
#include "fuzz.h"

#define RUNS_MAX 1000 /* and pages of the VM */

ssize_t __wrap_getrandom(void *buf, size_t len, unsigned int flags);

ssize_t __wrap_getrandom(void *buf, size_t len, unsigned int flags)
{
	(void)flags;
	memset(buf, 'i', len);
	return (ssize_t)len;
}

static unsigned int runs;

static int hear_disk(void *arg, unsigned int index, const char *text, uint64_t sectors)
{
	if (strlen(text) > GW_AGENT_TEXT_MAX)
		abort();
	gw_agent_match(arg, text, sectors);
	return index == 77 ? -ENOMEM : 0;
}

static int hear_run(void *arg, uint64_t frame, uint64_t count, unsigned int index, uint64_t sector)
{
	(void)arg;
	(void)index;
	if (++runs > RUNS_MAX || !count || count > 65536 || frame >> 48 || sector >> 48)
		abort();
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	json_t *disks = json_pack("[{s:s,s:s,s:i}]", "disk", "a", "key", "03.0", "sectors", 2048);
	const struct gw_agent_hears hears = { hear_disk, hear_run, disks };
	struct gw_agent_told told;
	int pair[2], rc;

	runs = 0;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) ||
	    fcntl(pair[0], F_SETFL, O_NONBLOCK) ||
	    (size && write(pair[1], data, size) != (ssize_t)size) || shutdown(pair[1], SHUT_WR))
		abort();
	rc = gw_agent_ask(pair[0], gw_now() + 60 * GW_S, RUNS_MAX, &hears, &told);
	if (rc > 0 || rc == -ETIMEDOUT || (!rc && told.runs != runs))
		abort();
	close(pair[0]);
	close(pair[1]);
	json_decref(disks);
	return 0;
}
