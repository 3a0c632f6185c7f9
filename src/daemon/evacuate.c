// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * evacuate.c - `godwit evacuate`: what a split VM has at one sub-host goes to others, while it runs
 * (decision 32).
 *
 *   begin   others that are to take its place are called, and all of it is off if one cannot be.
 *           Then the sub-host leaves, by the VM's record: nothing is put there any more
 *   then    its pages come back as there is room (pager/bulk.c), and what is colder makes that;
 *           when nothing is there it is dismissed (pager/servers.c)
 *   end     it is gone by the record, too
 *
 * Whoever follows a keeper that died goes on by the record. A sub-host that cannot be reached
 * leaves once it can.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "error.h"
#include "keeper.h"
#include "log.h"
#include "split_hosts.h"

/* By its address, or by what it calls itself. */
static int find(struct gw_keeper *k, const char *who)
{
	int found = gw_split_record_find(&k->record, who);

	for (unsigned int i = 0; found < 0 && i < k->all.nr; i++) {
		struct gw_server *s = &k->servers[i];
		gw_locked(&s->lock);

		if (!s->gone && s->host[0] && !strcmp(s->host, who))
			found = (int)i;
	}
	return found >= 0 ? found
			  : gw_fail(-ENOENT,
				    "VM '%s' has nothing at %s; 'godwit status %s' says which "
				    "sub-hosts it has",
				    k->vm.def.name, who, k->vm.def.name);
}

/* Who is to take its place: as said, or by the registry. */
static int choose(struct gw_keeper *k, const json_t *args, unsigned int leaving, json_t **to)
{
	const uint64_t memory = gw_definition_bytes(&k->vm.def);
	const uint64_t there = k->record.servers[leaving].size;
	json_t *ask = json_copy((json_t *)(uintptr_t)args), *but = json_array(), *chosen = NULL;
	struct gw_beside beside = { 0 };
	int rc = 0;

	for (unsigned int i = 0; i < k->record.nr_servers; i++)
		if (!k->record.servers[i].gone)
			json_array_append_new(but, json_string(k->record.servers[i].address));
	json_object_set_new(ask, "but", but);
	json_object_set_new(ask, "main-memory",
			    json_integer((json_int_t)(memory > there ? memory - there : 0)));
	/* The registry may take its time, and who waits for room waits for us. */
	if (json_object_get(args, "auto"))
		rc = gw_beside_start(&beside, k);
	if (!rc)
		rc = gw_split_hosts(k->w, ask, memory, NULL, &chosen);
	gw_beside_stop(&beside);
	*to = json_incref(json_object_get(chosen, "to"));
	json_decref(chosen);
	json_decref(ask);
	return rc;
}

/* As the record has them now, and did not before: in place of @leaving. */
static int call_new(struct gw_keeper *k, const struct gw_split_record *before, unsigned int leaving)
{
	int rc = 0;

	for (unsigned int i = 0; !rc && i < k->record.nr_servers; i++) {
		struct gw_server *s = &k->servers[i];

		if (i < before->nr_servers && before->servers[i].gone == k->record.servers[i].gone)
			continue;
		memcpy(s->address, k->record.servers[i].address, GW_ADDRESS_MAX);
		s->size = k->record.servers[i].size;
		k->joins[i] = (uint8_t)(leaving + 1);
		k->split.threads = GW_MEMORY_CONNECTIONS * k->record.nr_servers;
		rc = gw_servers_add(&k->all, i);
	}
	return rc;
}

/* Nothing is put at @i any more, and all that is there comes. */
static int leave(struct gw_keeper *k, unsigned int i)
{
	int rc;

	k->record.servers[i].leaves = true;
	rc = gw_keeper_save(k);
	if (rc)
		return rc;
	k->servers[i].leaves = true;
	gw_servers_wake(&k->all);
	return 0;
}

static int evacuate(struct gw_keeper *k, unsigned int i)
{
	gw_info("VM '%s': what it has at %s goes elsewhere", k->vm.def.name, k->servers[i].address);
	return leave(k, i);
}

static bool anybody_joins(const struct gw_keeper *k, unsigned int leaving)
{
	for (unsigned int i = 0; i < k->record.nr_servers; i++)
		if (k->joins[i] == leaving + 1)
			return true;
	return false;
}

static int begin(struct gw_keeper *k, const json_t *args)
{
	const char *who = json_string_value(json_object_get(args, "address"));
	const struct gw_split_record before = k->record;
	json_t *to = NULL;
	int rc, i;

	if (!who)
		return gw_fail(-EINVAL, "the sub-host to be evacuated is not named");
	if (k->record.merging)
		return gw_fail(-EBUSY, "all memory of VM '%s' is on its way back here",
			       k->vm.def.name);
	i = find(k, who);
	if (i < 0)
		return i;
	if (k->record.servers[i].leaves || anybody_joins(k, (unsigned int)i))
		return 0;
	rc = choose(k, args, (unsigned int)i, &to);
	if (!rc)
		rc = gw_split_record_join(&k->record, (unsigned int)i, to,
					  gw_definition_bytes(&k->vm.def));
	json_decref(to);
	if (!rc)
		rc = gw_keeper_save(k);
	if (!rc)
		rc = call_new(k, &before, (unsigned int)i);
	return rc || anybody_joins(k, (unsigned int)i) ? rc : evacuate(k, (unsigned int)i);
}

void gw_keeper_evacuate(struct gw_keeper *k)
{
	json_t *list = k->w->evacuate, *args;
	size_t i;

	k->w->evacuate = NULL;
	json_array_foreach(list, i, args) {
		const char *who = json_string_value(json_object_get(args, "address"));

		if (!begin(k, args))
			continue;
		gw_worker_refuse(k->w, "evacuate", who, gw_error());
		gw_error_clear();
	}
	json_decref(list);
}

/* Who asked may have called it by its address, or by its name. */
static void refuse(struct gw_keeper *k, unsigned int i, const char *why)
{
	gw_worker_refuse(k->w, "evacuate", k->servers[i].address, why);
	gw_worker_refuse(k->w, "evacuate", k->servers[i].host, why);
}

/* Those who are to take the place of @leaving: whether they are all there; or one is not. */
static int look_at_joining(struct gw_keeper *k, unsigned int leaving)
{
	bool all_up = true;
	char why[512] = "";
	int rc = 0;

	for (unsigned int i = 0; i < k->all.nr; i++) {
		struct gw_server *s = &k->servers[i];
		gw_locked(&s->lock);

		if (k->joins[i] != leaving + 1)
			continue;
		all_up = all_up && s->up;
		if (!s->up && s->error[0] && !why[0])
			snprintf(why, sizeof(why), "sub-host %s: %s", s->address, s->error);
	}
	for (unsigned int i = 0; !rc && (all_up || why[0]) && i < k->all.nr; i++) {
		if (k->joins[i] != leaving + 1)
			continue;
		k->joins[i] = 0;
		if (why[0])
			rc = leave(k, i);
	}
	if (why[0])
		refuse(k, leaving, why);
	return !rc && all_up ? evacuate(k, leaving) : rc;
}

/* Nothing is there any more. */
static int part(struct gw_keeper *k, unsigned int i)
{
	struct gw_server *s = &k->servers[i];
	int rc;

	k->record.servers[i].leaves = false;
	k->record.servers[i].gone = true;
	rc = gw_keeper_save(k);
	if (rc)
		return rc;
	gw_info("VM '%s' has nothing at %s any more", k->vm.def.name, s->address);
	gw_worker_done(k->w, "evacuate", s->address, gw_keeper_status(k));
	gw_worker_done(k->w, "evacuate", s->host, gw_keeper_status(k));
	return 0;
}

int gw_keeper_look_at_servers(struct gw_keeper *k)
{
	int rc = 0;

	for (unsigned int i = 0; !rc && i < k->record.nr_servers; i++) {
		if (anybody_joins(k, i))
			rc = look_at_joining(k, i);
		else if (k->record.servers[i].leaves && gw_servers_is_gone(&k->all, i))
			rc = part(k, i);
	}
	return rc;
}

int gw_worker_evacuate(struct gw_worker *w, const json_t *args, json_t **result)
{
	const char *name = json_string_value(json_object_get(args, "name"));
	struct gw_vm vm;
	int rc = gw_vm_load(w->paths, name, &vm);

	(void)result;
	if (rc == -ENOENT)
		return gw_fail(rc, "no VM '%s' on this host; see godwit list", name);
	if (rc)
		return rc;
	rc = vm.split ? gw_fail(-EAGAIN,
				"who keeps VM '%s' has ended, and another begins, who goes on with "
				"what was begun: 'godwit status %s' says how it stands",
				name, name)
		      : gw_fail(-EINVAL, "all memory of VM '%s' is here", name);
	gw_vm_free(&vm);
	return rc;
}
