// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * registry_redis.c - a registry in a Redis or Valkey server.
 *
 *   {godwit}:KIND:GROUP   a hash: key -> document, for hosts, images and links
 *   {godwit}:vm           a hash: name -> holder, a newline, document
 *   {godwit}:held:HOST    a set: the VMs that HOST holds
 *
 * The braces keep all of it in one slot of a cluster, as the script that
 * changes a VM needs. A key, hence a holder, has no newline.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "error.h"
#include "io.h"
#include "redis.h"
#include "registry.h"

#define VMS "{godwit}:vm"

/* Redis runs a script as one: nobody sees the middle of it. */
static const char script[] =
	"local v = redis.call('HGET', KEYS[1], ARGV[1])\n"
	"local holder, text = '', '{}'\n"
	"if v then\n"
	" local i = string.find(v, '\\n', 1, true)\n"
	" if i then holder = string.sub(v, 1, i - 1); text = string.sub(v, i + 1) end\n"
	"end\n"
	"if holder ~= '' and holder ~= ARGV[2] and holder ~= ARGV[3] then return holder end\n"
	"if holder == ARGV[2] then redis.call('SREM', KEYS[2], ARGV[1]) end\n"
	"if ARGV[3] == '' then\n"
	" redis.call('HDEL', KEYS[1], ARGV[1])\n"
	"else\n"
	" if #ARGV > 3 then text = ARGV[4] end\n"
	" redis.call('HSET', KEYS[1], ARGV[1], ARGV[3] .. '\\n' .. text)\n"
	" redis.call('SADD', KEYS[3], ARGV[1])\n"
	"end\n"
	"return ''\n";

struct redis {
	struct gw_registry r;
	struct gw_redis *c;
};

static struct redis *redis_of(struct gw_registry *r)
{
	return (struct redis *)r;
}

static int call(struct gw_registry *r, int argc, const char *const argv[], redisReply **reply)
{
	return gw_redis_call(redis_of(r)->c, argc, argv, r->deadline, reply);
}

static int forget(int rc, redisReply *reply)
{
	freeReplyObject(reply);
	return rc;
}

static char *hash_of(enum gw_registry_kind kind, const char *group)
{
	return kind == GW_REGISTRY_VM
		       ? gw_path(VMS)
		       : gw_path("{godwit}:%s:%s", gw_registry_kind_name(kind), group);
}

/* One value of a hash, which may be anything. */
static int take(enum gw_registry_kind kind, const char *group, const char *key, char *value,
		gw_document_fn fn, void *arg)
{
	struct gw_document d = { kind, group, key, "", value };
	char *newline = kind == GW_REGISTRY_VM ? strchr(value, '\n') : NULL;

	if (newline) {
		*newline = '\0';
		d.holder = value;
		d.text = newline + 1;
	}
	return fn(arg, &d);
}

static int redis_get(struct gw_registry *r, enum gw_registry_kind kind, const char *group,
		     const char *key, gw_document_fn fn, void *arg)
{
	gw_autofree char *hash = hash_of(kind, group);
	const char *const argv[] = { "HGET", hash, key };
	redisReply *reply;
	int rc = call(r, 3, argv, &reply);

	if (!rc && reply->type == REDIS_REPLY_STRING)
		rc = take(kind, group, key, reply->str, fn, arg);
	return forget(rc, reply);
}

static int redis_list(struct gw_registry *r, enum gw_registry_kind kind, const char *group,
		      gw_document_fn fn, void *arg)
{
	gw_autofree char *hash = hash_of(kind, group);
	const char *const argv[] = { "HGETALL", hash };
	redisReply *reply;
	int rc = call(r, 2, argv, &reply);

	for (size_t i = 0; !rc && reply->type == REDIS_REPLY_ARRAY && i + 1 < reply->elements &&
			   i / 2 < GW_REGISTRY_LIST_MAX;
	     i += 2)
		if (reply->element[i]->type == REDIS_REPLY_STRING &&
		    reply->element[i + 1]->type == REDIS_REPLY_STRING)
			rc = take(kind, group, reply->element[i]->str, reply->element[i + 1]->str,
				  fn, arg);
	return forget(rc, reply);
}

static int redis_put(struct gw_registry *r, enum gw_registry_kind kind, const char *group,
		     const char *key, const char *text)
{
	gw_autofree char *hash = hash_of(kind, group);
	const char *const argv[] = { "HSET", hash, key, text };
	redisReply *reply;
	int rc = call(r, 4, argv, &reply);

	return forget(rc, reply);
}

static int redis_remove(struct gw_registry *r, enum gw_registry_kind kind, const char *group,
			const char *key)
{
	gw_autofree char *hash = hash_of(kind, group);
	const char *const argv[] = { "HDEL", hash, key };
	redisReply *reply;
	int rc = call(r, 3, argv, &reply);

	return forget(rc, reply);
}

static int redis_change(struct gw_registry *r, const char *name, const char *from, const char *to,
			const char *text, char holder[GW_REGISTRY_KEY_MAX])
{
	gw_autofree char *held_from = gw_path("{godwit}:held:%s", from);
	gw_autofree char *held_to = gw_path("{godwit}:held:%s", to);
	const char *const argv[] = { "EVAL",  script, "3",  VMS, held_from,
				     held_to, name,   from, to,	 text };
	redisReply *reply;
	int rc = call(r, text ? 10 : 9, argv, &reply);

	if (rc)
		return rc;
	if (reply->type != REDIS_REPLY_STRING || (reply->str[0] && !gw_registry_key_ok(reply->str)))
		rc = gw_fail(-EBADMSG, "the registry's record of vm '%s' cannot be", name);
	else if (reply->str[0]) {
		memcpy(holder, reply->str, strlen(reply->str) + 1);
		rc = gw_fail(-EEXIST, "host '%s' has VM '%s'", holder, name);
	}
	return forget(rc, reply);
}

static int redis_held(struct gw_registry *r, const char *holder, gw_document_fn fn, void *arg)
{
	gw_autofree char *set = gw_path("{godwit}:held:%s", holder);
	const char *const argv[] = { "SMEMBERS", set };
	redisReply *reply;
	int rc = call(r, 2, argv, &reply);

	for (size_t i = 0; !rc && reply->type == REDIS_REPLY_ARRAY && i < reply->elements &&
			   i < GW_REGISTRY_LIST_MAX;
	     i++)
		if (reply->element[i]->type == REDIS_REPLY_STRING)
			rc = fn(arg, &(struct gw_document){ GW_REGISTRY_VM, "",
							    reply->element[i]->str, holder, "" });
	return forget(rc, reply);
}

static void redis_close(struct gw_registry *r)
{
	gw_redis_free(redis_of(r)->c);
	free(r);
}

static const struct gw_registry_ops redis_ops = {
	.get = redis_get,
	.list = redis_list,
	.put = redis_put,
	.remove = redis_remove,
	.change = redis_change,
	.held = redis_held,
	.close = redis_close,
};

struct gw_registry *gw_registry_redis(const char *url)
{
	struct redis *r = calloc(1, sizeof(*r));

	if (!r) {
		gw_fail(-ENOMEM, "no memory for a registry");
		return NULL;
	}
	r->r.ops = &redis_ops;
	r->c = gw_redis_new(url);
	if (!r->c) {
		free(r);
		return NULL;
	}
	return &r->r;
}
