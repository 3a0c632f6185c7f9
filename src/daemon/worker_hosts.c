// SPDX-License-Identifier: GPL-2.0-or-later
/* worker_hosts.c - a worker that shows the hosts of the registry, and this one. */
#include <stdlib.h>
#include <string.h>

#include "error.h"
#include "host.h"
#include "registry.h"
#include "worker.h"

static int by_name(const void *a, const void *b)
{
	const struct gw_host_record *x = a, *y = b;

	return strcmp(x->name, y->name);
}

static json_t *to_json(const struct gw_host_record *host)
{
	json_t *json = gw_registry_host_json(host);

	json_object_set_new(json, "name", json_string(host->name));
	return json;
}

/* Those that have told the registry; this one as it is now. */
static int list(const struct gw_worker *w, json_t *hosts)
{
	struct gw_registry *r = w->paths->registry
					? gw_registry_open(w->paths->registry, GW_REGISTRY_USER_MS)
					: NULL;
	struct gw_host_record own, *others = NULL;
	bool told = false;
	size_t nr = 0;
	int rc = r ? gw_registry_hosts(r, &others, &nr) : 0;

	gw_registry_close(r);
	if (rc)
		return gw_fail_prefix(rc, "the registry does not tell which hosts there are: ");
	gw_host_look(w->paths, w->host, w->paths->listen ? w->paths->listen : "", &own);
	if (nr)
		qsort(others, nr, sizeof(*others), by_name);
	for (size_t i = 0; i < nr; i++) {
		const bool is_own = !strcmp(others[i].name, own.name);

		if (is_own) /* others reach it where it told them */
			memcpy(own.address, others[i].address, sizeof(own.address));
		json_array_append_new(hosts, to_json(is_own ? &own : &others[i]));
		told = told || is_own;
	}
	if (!told)
		json_array_append_new(hosts, to_json(&own));
	free(others);
	return 0;
}

int gw_worker_hosts(struct gw_worker *w, const json_t *args, json_t **result)
{
	json_t *hosts = json_array();
	int rc = list(w, hosts);

	(void)args;
	*result = json_pack("{s:s,s:b,s:o}", "host", w->host, "registry",
			    w->paths->registry != NULL, "hosts", hosts);
	if (!rc)
		return 0;
	json_decref(*result);
	*result = NULL;
	return rc;
}
