// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * registry_records.c - records out of a registry's documents, and the reverse.
 *
 * Whoever can write to a registry can write anything there: every field is
 * checked here, and a document with a bad one is as good as none.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "error.h"
#include "log.h"
#include "registry.h"

/* Where a memory server has what it holds. */
#define MEMORY "memory"
#define DISK   "disk"

/* Reading stops at the first field that cannot be. */
struct fields {
	const json_t *json;
	bool bad;
};

static uint64_t whole_of(struct fields *f, const json_t *value, uint64_t max)
{
	if (!json_is_integer(value) || json_integer_value(value) < 0 ||
	    (uint64_t)json_integer_value(value) > max) {
		f->bad = true;
		return 0;
	}
	return (uint64_t)json_integer_value(value);
}

static uint64_t whole(struct fields *f, const char *key, uint64_t max)
{
	return whole_of(f, json_object_get(f->json, key), max);
}

static double real(struct fields *f, const char *key, double max)
{
	const json_t *value = json_object_get(f->json, key);
	const double number = json_number_value(value);

	if (!json_is_number(value) || !(number >= 0 && number <= max)) {
		f->bad = true;
		return 0;
	}
	return number;
}

/* Of printable ASCII: it goes to terminals. */
static void text(struct fields *f, const char *key, char *out, size_t len)
{
	const char *value = json_string_value(json_object_get(f->json, key));

	if (!value || strlen(value) >= len) {
		f->bad = true;
		return;
	}
	for (const char *c = value; *c; c++)
		f->bad |= *c < ' ' || *c > '~';
	snprintf(out, len, "%s", value);
}

static void id_of(struct fields *f, const json_t *value, uint8_t id[GW_ID_LEN])
{
	if (gw_id_parse(json_string_value(value), id))
		f->bad = true;
}

static void key_of(struct fields *f, const char *key, char *out, size_t len)
{
	if (!gw_registry_key_ok(key) || strlen(key) >= len)
		f->bad = true;
	else
		snprintf(out, len, "%s", key);
}

static int cannot_be(const struct gw_document *d)
{
	return gw_fail(-EBADMSG, "the registry's record of %s '%s%s%s' cannot be",
		       gw_registry_kind_name(d->kind), d->group, d->group[0] ? " " : "", d->key);
}

/* Read document @d with @read into @record. 0 or -EBADMSG. */
static int parse(const struct gw_document *d,
		 void (*read)(struct fields *f, const struct gw_document *d, void *record),
		 void *record)
{
	struct fields f = { .bad = false };
	json_t *json = strlen(d->text) <= GW_REGISTRY_TEXT_MAX
			       ? json_loads(d->text, JSON_REJECT_DUPLICATES, NULL)
			       : NULL;

	f.json = json;
	f.bad = !json_is_object(json);
	if (!f.bad)
		read(&f, d, record);
	json_decref(json);
	return f.bad ? cannot_be(d) : 0;
}

static int put(struct gw_registry *r, enum gw_registry_kind kind, const char *group,
	       const char *key, json_t *json)
{
	gw_autofree char *doc = json ? json_dumps(json, JSON_COMPACT | JSON_REAL_PRECISION(9))
				     : NULL;

	json_decref(json);
	if (!doc || strlen(doc) > GW_REGISTRY_TEXT_MAX)
		return gw_fail(-EINVAL, "%s '%s' cannot be put into a registry: %s",
			       gw_registry_kind_name(kind), key, doc ? "too long" : "not UTF-8");
	if ((group[0] && !gw_registry_key_ok(group)) || !gw_registry_key_ok(key))
		return gw_fail(-EINVAL, "'%s' is no name for a registry; see --name in godwitd(8)",
			       gw_registry_key_ok(key) ? group : key);
	gw_registry_begin(r);
	return r->ops->put(r, kind, group, key, doc);
}

static unsigned int nr_told(const struct gw_host_record *host)
{
	return host->nr_held < GW_HOST_HELD_MAX ? host->nr_held : GW_HOST_HELD_MAX;
}

static json_t *server_json(const struct gw_host_record *host)
{
	json_t *list = json_array();

	for (unsigned int i = 0; i < nr_told(host); i++)
		json_array_append_new(list,
				      json_pack("{s:s,s:s,s:I,s:I,s:s}", "vm", host->held[i].vm,
						"host", host->held[i].host, "promised",
						(json_int_t)host->held[i].promised, "here",
						(json_int_t)host->held[i].here, "where",
						host->held[i].on_disk ? DISK : MEMORY));
	return json_pack("{s:I,s:I,s:I,s:I,s:I,s:o}", "limit", (json_int_t)host->server_limit,
			 "free", (json_int_t)host->server_free, "swap-limit",
			 (json_int_t)host->swap_limit, "swap-free", (json_int_t)host->swap_free,
			 "vms", (json_int_t)host->nr_held, "held", list);
}

json_t *gw_registry_host_json(const struct gw_host_record *host)
{
	return json_pack("{s:s,s:I,s:I,s:f,s:I,s:o}", "address", host->address, "memory",
			 (json_int_t)host->memory, "free", (json_int_t)host->free, "load",
			 host->load, "reported", (json_int_t)host->reported, "memory-server",
			 server_json(host));
}

int gw_registry_put_host(struct gw_registry *r, const struct gw_host_record *host)
{
	return put(r, GW_REGISTRY_HOST, "", host->name, gw_registry_host_json(host));
}

/* Where it is not said, it is memory. */
static bool is_on_disk(struct fields *f)
{
	const json_t *where = json_object_get(f->json, "where");
	const char *text = json_string_value(where);

	f->bad |= where && (!text || (strcmp(text, MEMORY) != 0 && strcmp(text, DISK) != 0));
	return text && !strcmp(text, DISK);
}

/* Hosts of an earlier release say nothing of it, and are none. */
static void read_server(struct fields *f, struct gw_host_record *host)
{
	const json_t *list = json_object_get(f->json, "held"), *one;
	struct fields of = { .bad = false };
	size_t i;

	host->server_limit = whole(f, "limit", INT64_MAX);
	host->server_free = whole(f, "free", INT64_MAX);
	/* A release that knew no disk says nothing of one. */
	if (json_object_get(f->json, "swap-limit")) {
		host->swap_limit = whole(f, "swap-limit", INT64_MAX);
		host->swap_free = whole(f, "swap-free", INT64_MAX);
	}
	host->nr_held = (unsigned int)whole(f, "vms", INT32_MAX);
	f->bad |= !json_is_array(list) || json_array_size(list) != nr_told(host);
	if (f->bad)
		return;
	json_array_foreach(list, i, one) {
		of.json = one;
		text(&of, "vm", host->held[i].vm, sizeof(host->held[i].vm));
		text(&of, "host", host->held[i].host, sizeof(host->held[i].host));
		host->held[i].promised = whole(&of, "promised", INT64_MAX);
		host->held[i].here = whole(&of, "here", INT64_MAX);
		host->held[i].on_disk = is_on_disk(&of);
	}
	f->bad = of.bad;
}

static void read_host(struct fields *f, const struct gw_document *d, void *record)
{
	struct fields server = { .json = json_object_get(f->json, "memory-server") };
	struct gw_host_record *host = record;

	key_of(f, d->key, host->name, sizeof(host->name));
	text(f, "address", host->address, sizeof(host->address));
	host->memory = whole(f, "memory", INT64_MAX);
	host->free = whole(f, "free", INT64_MAX);
	host->load = real(f, "load", 1e6);
	host->reported = (int64_t)whole(f, "reported", INT64_MAX);
	if (server.json)
		read_server(&server, host);
	f->bad |= server.bad;
}

int gw_registry_put_image(struct gw_registry *r, const struct gw_image_record *image)
{
	char id[2 * GW_ID_LEN + 1];

	gw_id_format(image->id, id);
	return put(r, GW_REGISTRY_IMAGE, image->vm, image->host,
		   json_pack("{s:I,s:s,s:I,s:I}", "departure", (json_int_t)image->departure, "id",
			     id, "bytes", (json_int_t)image->bytes, "left",
			     (json_int_t)image->left));
}

static void read_image(struct fields *f, const struct gw_document *d, void *record)
{
	struct gw_image_record *image = record;

	key_of(f, d->group, image->vm, sizeof(image->vm));
	key_of(f, d->key, image->host, sizeof(image->host));
	image->departure = (uint32_t)whole(f, "departure", UINT32_MAX);
	id_of(f, json_object_get(f->json, "id"), image->id);
	image->bytes = whole(f, "bytes", INT64_MAX);
	image->left = (int64_t)whole(f, "left", INT64_MAX);
}

int gw_registry_drop_image(struct gw_registry *r, const char *vm, const char *host)
{
	if (!gw_registry_key_ok(vm) || !gw_registry_key_ok(host))
		return 0; /* never put there */
	gw_registry_begin(r);
	return r->ops->remove(r, GW_REGISTRY_IMAGE, vm, host);
}

int gw_registry_put_link(struct gw_registry *r, const struct gw_link_record *link)
{
	return put(r, GW_REGISTRY_LINK, link->from, link->to,
		   json_pack("{s:I,s:I,s:I}", "bandwidth", (json_int_t)link->bandwidth,
			     "round-trip", (json_int_t)link->round_trip, "measured",
			     (json_int_t)link->measured));
}

static void read_link(struct fields *f, const struct gw_document *d, void *record)
{
	struct gw_link_record *link = record;

	key_of(f, d->group, link->from, sizeof(link->from));
	key_of(f, d->key, link->to, sizeof(link->to));
	link->bandwidth = whole(f, "bandwidth", INT64_MAX);
	link->round_trip = whole(f, "round-trip", INT64_MAX);
	link->measured = (int64_t)whole(f, "measured", INT64_MAX);
	f->bad |= !link->bandwidth;
}

/* A list that grows; of records of one kind. */
struct gathering {
	void (*read)(struct fields *f, const struct gw_document *d, void *record);
	size_t size, nr, room;
	char *records;
};

static int gather(void *arg, const struct gw_document *d)
{
	struct gathering *g = arg;

	if (g->nr == g->room) {
		const size_t room = g->room ? g->room * 2 : 16;
		char *bigger = realloc(g->records, room * g->size);

		if (!bigger)
			return gw_fail(-ENOMEM, "no memory for what the registry says");
		g->records = bigger;
		g->room = room;
	}
	memset(g->records + g->nr * g->size, 0, g->size);
	if (parse(d, g->read, g->records + g->nr * g->size))
		gw_warn("%s; ignored", gw_error());
	else
		g->nr++;
	return 0;
}

static int list(struct gw_registry *r, enum gw_registry_kind kind, const char *group,
		struct gathering *g, void **records, size_t *nr)
{
	int rc;

	gw_registry_begin(r);
	rc = r->ops->list(r, kind, group, gather, g);
	if (rc) {
		free(g->records);
		g->records = NULL;
		g->nr = 0;
	}
	*records = g->records;
	*nr = g->nr;
	return rc;
}

int gw_registry_hosts(struct gw_registry *r, struct gw_host_record **hosts, size_t *nr)
{
	struct gathering g = { .read = read_host, .size = sizeof(struct gw_host_record) };
	void *records;
	int rc = list(r, GW_REGISTRY_HOST, "", &g, &records, nr);

	*hosts = records;
	return rc;
}

int gw_registry_images(struct gw_registry *r, const char *vm, struct gw_image_record **images,
		       size_t *nr)
{
	struct gathering g = { .read = read_image, .size = sizeof(struct gw_image_record) };
	void *records;
	int rc = list(r, GW_REGISTRY_IMAGE, vm, &g, &records, nr);

	*images = records;
	return rc;
}

int gw_registry_links(struct gw_registry *r, const char *from, struct gw_link_record **links,
		      size_t *nr)
{
	struct gathering g = { .read = read_link, .size = sizeof(struct gw_link_record) };
	void *records;
	int rc = list(r, GW_REGISTRY_LINK, from, &g, &records, nr);

	*links = records;
	return rc;
}

static json_t *history_json(const struct gw_history *h)
{
	json_t *array = json_array();
	char id[2 * GW_ID_LEN + 1];

	for (unsigned int i = 0; i < h->nr; i++) {
		gw_id_format(h->at[i].id, id);
		json_array_append_new(array, json_pack("[I,s,I]", (json_int_t)h->at[i].departure,
						       id, (json_int_t)h->at[i].pages));
	}
	return array;
}

/* Ascending, and never fewer pages for a later departure. */
static void read_history(struct fields *f, const json_t *array, struct gw_history *h)
{
	const json_t *one;
	size_t i;

	if (!json_is_array(array) || json_array_size(array) > GW_HISTORY_MAX) {
		f->bad = true;
		return;
	}
	json_array_foreach(array, i, one) {
		h->at[i].departure = (uint32_t)whole_of(f, json_array_get(one, 0), UINT32_MAX);
		id_of(f, json_array_get(one, 1), h->at[i].id);
		h->at[i].pages = whole_of(f, json_array_get(one, 2), INT64_MAX / GW_PAGE_SIZE);
		f->bad |= !h->at[i].departure;
		if (i)
			f->bad |= h->at[i].departure <= h->at[i - 1].departure ||
				  h->at[i].pages < h->at[i - 1].pages;
		h->nr++;
	}
}

/* A VM that was claimed, of which its host has told nothing yet, is "{}". */
static void read_vm(struct fields *f, const struct gw_document *d, void *record)
{
	struct gw_vm_record *vm = record;

	key_of(f, d->key, vm->name, sizeof(vm->name));
	key_of(f, d->holder, vm->host, sizeof(vm->host));
	if (!json_object_size(f->json))
		return;
	text(f, "address", vm->address, sizeof(vm->address));
	vm->reported = (int64_t)whole(f, "reported", INT64_MAX);
	vm->departures = (uint32_t)whole(f, "departures", UINT32_MAX);
	vm->resident = whole(f, "resident", INT64_MAX);
	vm->dirty_rate = real(f, "dirty-rate", 1e12);
	vm->setup_ms = real(f, "setup", 1e9);
	vm->wire_per_changed = real(f, "wire-per-changed", 1e9);
	vm->device_bytes = whole(f, "device", INT64_MAX / 2);
	vm->wire_per_page = real(f, "wire-per-page", 1e6);
	read_history(f, json_object_get(f->json, "history"), &vm->history);
}

static int take_host(void *arg, const struct gw_document *d)
{
	return parse(d, read_host, arg);
}

int gw_registry_host(struct gw_registry *r, const char *name, struct gw_host_record *host)
{
	int rc;

	memset(host, 0, sizeof(*host));
	gw_registry_begin(r);
	rc = r->ops->get(r, GW_REGISTRY_HOST, "", name, take_host, host);
	if (!rc && !host->name[0])
		rc = gw_fail(-ENOENT, "the registry knows no host '%s'", name);
	return rc;
}

static int take_vm(void *arg, const struct gw_document *d)
{
	return parse(d, read_vm, arg);
}

int gw_registry_vm(struct gw_registry *r, const char *name, struct gw_vm_record *vm)
{
	int rc;

	memset(vm, 0, sizeof(*vm));
	gw_registry_begin(r);
	rc = r->ops->get(r, GW_REGISTRY_VM, "", name, take_vm, vm);
	if (!rc && !vm->name[0])
		rc = gw_fail(-ENOENT, "the registry knows no VM '%s'", name);
	if (rc)
		memset(vm, 0, sizeof(*vm));
	return rc;
}

int gw_registry_move(struct gw_registry *r, const struct gw_vm_record *vm, const char *from)
{
	json_t *json = json_pack(
		"{s:s,s:I,s:I,s:I,s:f,s:f,s:I,s:f,s:f,s:o}", "address", vm->address, "reported",
		(json_int_t)vm->reported, "departures", (json_int_t)vm->departures, "resident",
		(json_int_t)vm->resident, "dirty-rate", vm->dirty_rate, "setup", vm->setup_ms,
		"device", (json_int_t)vm->device_bytes, "wire-per-page", vm->wire_per_page,
		"wire-per-changed", vm->wire_per_changed, "history", history_json(&vm->history));
	gw_autofree char *doc = json ? json_dumps(json, JSON_COMPACT | JSON_REAL_PRECISION(9))
				     : NULL;
	char holder[GW_REGISTRY_KEY_MAX] = "";
	int rc;

	json_decref(json);
	if (!doc || strlen(doc) > GW_REGISTRY_TEXT_MAX || !gw_registry_key_ok(vm->name) ||
	    !gw_registry_key_ok(vm->host) || !gw_registry_key_ok(from))
		return gw_fail(-EINVAL, "VM '%s' of host '%s' cannot be put into a registry",
			       vm->name, vm->host);
	gw_registry_begin(r);
	rc = r->ops->change(r, vm->name, from, vm->host, doc, holder);
	if (rc == -EEXIST)
		return gw_fail(rc, "VM '%s' moved to host '%s', but the registry has it on '%s'",
			       vm->name, vm->host, holder);
	return rc;
}

static int take_name(void *arg, const struct gw_document *d)
{
	json_array_append_new(arg, json_string(d->key));
	return 0;
}

int gw_registry_held(struct gw_registry *r, const char *host, json_t **names)
{
	int rc;

	*names = json_array();
	gw_registry_begin(r);
	rc = r->ops->held(r, host, take_name, *names);
	if (rc) {
		json_decref(*names);
		*names = NULL;
	}
	return rc;
}
