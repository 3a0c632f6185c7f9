// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * dest_split.c - an arrival of which a part goes to sub-hosts: its keeper works from LOAD on in
 * the process that receives it, which goes on as that when the guest runs; see dest_env.h.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "clock.h"
#include "dest_env.h"
#include "error.h"
#include "log.h"
#include "peers.h"

#define REACH_NS (5 * GW_S)

int gw_dest_split_ask(struct gw_dest_env *e, const json_t *split)
{
	const uint64_t memory = gw_definition_bytes(&e->vm.def);
	struct gw_keeper *k = gw_keeper_new(e->w, e->vm.def.name);
	int rc;

	e->keeper = k;
	if (!k)
		return -ENOMEM;
	rc = gw_split_record_parse(&k->record, split);
	if (rc)
		return gw_fail_prefix(-EPROTO, "source: ");
	if (k->record.merging || k->record.stopped ||
	    k->record.main_memory < GW_MAIN_MEMORY_LEAST || k->record.main_memory >= memory ||
	    (!k->record.carried && k->record.unit_pages < GW_CHUNK_PAGES))
		return gw_fail(-EPROTO, "source: a split that cannot be");
	/* A part of a huge page may be here: the rest would be zeros that the guest sees. */
	e->vm.def.discards |= k->record.carried;
	e->d.split.nr = k->record.nr_servers;
	e->d.split.main_memory = k->record.main_memory;
	for (unsigned int i = 0; i < k->record.nr_servers; i++) {
		if (!k->record.servers[i].size)
			return gw_fail(-EPROTO, "source: a sub-host that may hold nothing");
		e->d.split.size[i] = k->record.servers[i].gone ? 0 : k->record.servers[i].size;
	}
	e->vm.split = gw_split_record_json(&k->record);
	return e->vm.split ? 0 : gw_fail(-ENOMEM, "no memory for a split");
}

int gw_dest_split_reach(struct gw_dest_env *e)
{
	for (unsigned int i = 0; i < e->keeper->record.nr_servers; i++) {
		const struct gw_peer peer = { .address = e->keeper->record.servers[i].address,
					      .wake = { .fd = -1 } };
		struct gw_transport *t;

		if (e->keeper->record.servers[i].gone)
			continue;
		t = gw_peer_connect(&peer, gw_now() + REACH_NS);
		if (!t)
			return gw_fail_prefix(-EHOSTUNREACH,
					      "host '%s' does not reach sub-host %s: ", e->w->host,
					      peer.address);
		gw_transport_close(&t);
	}
	return 0;
}

int gw_dest_split_prepare(struct gw_dest_env *e, struct gw_ram *ram,
			  const struct gw_guest_facts *facts)
{
	struct gw_keeper *k = e->keeper;
	int rc;

	k->ram = *ram;
	memset(ram, 0, sizeof(*ram));
	k->split.memory = &k->ram.memory;
	k->record.direct_io = facts->direct_io;
	if (gw_ram_has_huge_pages(&k->ram) && k->record.unit_pages < GW_UNIT_PAGES_MAX)
		return gw_fail(-EINVAL,
			       "the VM's memory lies on huge pages on host '%s', of which no part "
			       "can leave: use --chunk-pages %d",
			       e->w->host, GW_UNIT_PAGES_MAX);
	if (gw_ram_has_huge_pages(&k->ram) && k->record.carried)
		return gw_fail(-ENOTSUP,
			       "the VM's memory lies on huge pages on host '%s', to which one that "
			       "is split already cannot move: bring its memory back with 'godwit "
			       "merge' before",
			       e->w->host);
	json_decref(e->vm.split);
	e->vm.split = gw_split_record_json(&k->record);
	rc = gw_netpt_create_for(&k->split.table, k->table, &k->ram.memory, k->record.id,
				 k->record.unit_pages, k->record.replicas);
	if (!rc)
		rc = gw_keeper_watch(k, &e->vm, e->qmp);
	if (rc)
		return rc;
	e->history = calloc(k->split.table.units.nr, 1);
	if (!e->history)
		return gw_fail(-ENOMEM, "no memory for the VM's history");
	e->d.split.history = e->history;
	e->d.split.table = &k->split.table;
	return 0;
}

int gw_dest_split(void *env)
{
	struct gw_dest_env *e = env;
	struct gw_keeper *k = e->keeper;
	int rc = gw_keeper_open(k, e->vm.def.name);

	k->told = true; /* nobody here has asked for it */
	k->arrives = true;
	if (!rc)
		rc = gw_keeper_start(k, false);
	for (size_t unit = 0; !rc && unit < k->ageing.units.nr; unit++)
		gw_ageing_recall(&k->ageing, unit, e->history[unit]);
	return rc;
}

int gw_dest_split_take_over(struct gw_dest_env *e)
{
	int rc;

	e->keeper = gw_keeper_new(e->w, e->vm.def.name);
	rc = e->keeper ? gw_keeper_open(e->keeper, e->vm.def.name) : -ENOMEM;
	if (!rc)
		rc = gw_keeper_take_over(e->keeper);
	return rc ? rc : gw_keeper_start(e->keeper, true);
}

int gw_dest_split_keep(struct gw_dest_env *e)
{
	/* It has arrived, and so has what the keeper did not know when it loaded the record. */
	e->keeper->vm.legs = e->vm.legs;
	gw_qmp_close(e->qmp);
	e->qmp = NULL;
	e->keeper->known = true; /* from its source */
	return gw_keeper_keep(e->keeper);
}

void gw_dest_split_stop(struct gw_dest_env *e)
{
	if (e->keeper)
		gw_servers_stop(&e->keeper->all);
}

void gw_dest_split_end(struct gw_dest_env *e, bool dismiss)
{
	/* Only what has called them can have been promised anything. */
	if (e->keeper && e->keeper->all.servers && dismiss)
		gw_keeper_dismiss(e->keeper);
	if (e->keeper)
		gw_keeper_free(e->keeper);
	free(e->history);
	e->history = NULL;
	e->keeper = NULL;
}
