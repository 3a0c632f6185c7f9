// SPDX-License-Identifier: GPL-2.0-or-later
/* split_hosts.c - sub-hosts that nobody has named; see split_hosts.h. */
#include <errno.h>
#include <stdlib.h>
#include <time.h>

#include "error.h"
#include "page.h"
#include "split_hosts.h"
#include "split_record.h"
#include "sub_hosts.h"

/* What a main host keeps free for what it fetches (gw_split_record_spare()) lies there, too. */
#define SPARE (4ULL * GW_UNIT_PAGES_MAX * GW_PAGE_SIZE)

/* Those at the addresses @but are not to be chosen. Return: how many are left. */
static size_t drop(struct gw_host_record *hosts, size_t nr, const json_t *but)
{
	const json_t *one;
	size_t n = 0, i;

	for (size_t h = 0; h < nr; h++) {
		bool is = false;

		json_array_foreach(but, i, one) {
			is = is || !strcmp(hosts[h].address, json_string_value(one));
		}
		if (!is)
			hosts[n++] = hosts[h];
	}
	return n;
}

static int choose(const struct gw_worker *w, json_t *args, unsigned int count, uint64_t memory,
		  const char *main)
{
	const uint64_t stays = (uint64_t)json_integer_value(json_object_get(args, "main-memory"));
	const uint64_t copies = json_integer_value(json_object_get(args, "replicas")) == 2 ? 2 : 1;
	struct gw_host_record *hosts = NULL;
	json_t *to = json_array();
	struct gw_registry *r;
	size_t nr = 0;
	int rc;

	json_object_set_new(args, "to", to);
	if (!w->paths->registry)
		return gw_fail(-ENOTSUP, "this godwitd has no registry to choose sub-hosts by (see "
					 "--registry in godwitd(8)): name them");
	r = gw_registry_open(w->paths->registry, 0);
	rc = r ? gw_registry_hosts(r, &hosts, &nr) : -EINVAL;
	nr = rc ? 0 : drop(hosts, nr, json_object_get(args, "but"));
	gw_registry_close(r);
	if (rc)
		return gw_fail_prefix(rc, "without the registry no sub-host can be chosen: ");
	rc = gw_sub_hosts_choose(hosts, nr, count, w->host, main,
				 copies * ((memory > stays ? memory - stays : 0) + SPARE),
				 time(NULL), to);
	free(hosts);
	return rc;
}

int gw_split_hosts(const struct gw_worker *w, const json_t *args, uint64_t memory, const char *main,
		   json_t **chosen)
{
	const json_int_t count = json_integer_value(json_object_get(args, "auto"));

	*chosen = json_copy((json_t *)(uintptr_t)args);
	if (!*chosen)
		return gw_fail(-ENOMEM, "no memory for a split");
	if (!json_object_get(args, "auto"))
		return 0;
	if (count < 1 || count > GW_HOLDERS_MAX)
		return gw_fail(-EINVAL, "auto:N chooses 1 to %d sub-hosts", GW_HOLDERS_MAX);
	return choose(w, *chosen, (unsigned int)count, memory, main);
}
