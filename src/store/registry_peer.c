// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * registry_peer.c - a registry that another godwitd serves, and the serving.
 *
 *   client                                  server
 *     OPEN {versions, kind registry}    ->
 *                                       <-  ACCEPT {version}
 *     QUERY {json}                      ->
 *                                       <-  ANSWER {json}     any number of times
 *
 * A query is what gw_registry_ops takes, word for word; an answer is
 * {"documents":[[group,key,holder,text],...]}, or {"error":text,"code":word}
 * with "holder" if the code is "exists". godwit-wire(5) has the fields.
 *
 * Rules: the server checks all of a query before the engine sees it, the
 * client all of an answer (invariant 10). Queries may be repeated: a client
 * that lost its connection asks again on a new one.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "clock.h"
#include "error.h"
#include "frame.h"
#include "io.h"
#include "log.h"
#include "peers.h"
#include "registry.h"
#include "transport.h"

static const struct {
	const char *word;
	int code;
} codes[] = {
	{ "exists", -EEXIST },	 { "invalid", -EINVAL }, { "timeout", -ETIMEDOUT },
	{ "damaged", -EBADMSG }, { "failed", -EIO },
};

static const char *word_of(int rc)
{
	for (size_t i = 0; i < GW_ARRAY_SIZE(codes); i++)
		if (codes[i].code == rc)
			return codes[i].word;
	return "failed";
}

static int code_of(const char *word)
{
	for (size_t i = 0; word && i < GW_ARRAY_SIZE(codes); i++)
		if (!strcmp(codes[i].word, word))
			return codes[i].code;
	return -EIO;
}

static const char *string_of(const json_t *object, const char *key)
{
	const char *text = json_string_value(json_object_get(object, key));

	return text ? text : "";
}

static int send_json(struct gw_transport *t, unsigned int type, json_t *json)
{
	gw_autofree char *text = json ? json_dumps(json, JSON_COMPACT) : NULL;

	json_decref(json);
	if (!text)
		return gw_fail(-EINVAL, "%s: no memory, or not UTF-8", gw_message_name(type));
	return gw_frame_send_buf(t, type, 0, text, strlen(text));
}

/* The client's end. */

struct peer {
	struct gw_registry r;
	char *address;
	struct gw_transport *t;
	struct gw_frame inbox;
};

static struct peer *peer_of(struct gw_registry *r)
{
	return (struct peer *)r;
}

/* One frame, of type @type. */
static int expect(struct peer *p, unsigned int type)
{
	int rc = gw_frame_recv(p->t, &p->inbox, p->r.deadline);

	if (rc || p->inbox.type == type)
		return rc;
	if (p->inbox.type == GW_MSG_ERROR)
		return gw_fail(-ECONNREFUSED, "registry godwit://%s: %.*s", p->address,
			       (int)p->inbox.len, (const char *)p->inbox.payload);
	return gw_fail(-EPROTO, "registry godwit://%s: %s instead of %s", p->address,
		       gw_message_name(p->inbox.type), gw_message_name(type));
}

static int connect_peer(struct peer *p)
{
	const struct gw_peer peer = { .address = p->address, .wake = { .fd = -1 } };
	const struct gw_open open = { .kind = GW_OPEN_REGISTRY };
	int rc;

	p->t = gw_peer_connect(&peer, p->r.deadline);
	if (!p->t)
		return gw_fail_prefix(gw_now() >= p->r.deadline ? -ETIMEDOUT : -ECONNREFUSED,
				      "registry godwit://%s: ", p->address);
	rc = gw_peer_open(p->t, &open, GW_MSG_ACCEPT, &p->inbox, p->r.deadline);
	if (rc == -EREMOTEIO || rc == -EPROTO)
		gw_fail_prefix(rc, "registry godwit://%s: ", p->address);
	return rc == -EREMOTEIO ? -ECONNREFUSED : rc;
}

/* Ask, and read the answer into p->inbox. */
static int ask(struct peer *p, json_t *query)
{
	for (;;) {
		const bool fresh = !p->t;
		int rc = fresh ? connect_peer(p) : 0;

		if (!rc)
			rc = send_json(p->t, GW_MSG_QUERY, json_incref(query));
		if (!rc)
			rc = expect(p, GW_MSG_ANSWER);
		if (!rc)
			return 0;
		gw_transport_close(&p->t);
		/* The server ends idle connections, and may have been started again. */
		if (fresh || !gw_transport_lost(rc) || gw_now() >= p->r.deadline)
			return rc;
	}
}

static int cannot_be(const struct peer *p)
{
	return gw_fail(-EPROTO, "registry godwit://%s: an answer that cannot be", p->address);
}

static int take_documents(const struct peer *p, const json_t *answer, enum gw_registry_kind kind,
			  gw_document_fn fn, void *arg)
{
	const json_t *list = json_object_get(answer, "documents"), *one;
	int rc = 0;
	size_t i;

	if (!json_is_array(list) || json_array_size(list) > GW_REGISTRY_LIST_MAX)
		return cannot_be(p);
	json_array_foreach(list, i, one) {
		const struct gw_document d = { kind, json_string_value(json_array_get(one, 0)),
					       json_string_value(json_array_get(one, 1)),
					       json_string_value(json_array_get(one, 2)),
					       json_string_value(json_array_get(one, 3)) };

		if (!d.group || !d.key || !d.holder || !d.text)
			return cannot_be(p);
		rc = fn(arg, &d);
		if (rc)
			break;
	}
	return rc;
}

/* @query is taken over. @holder: where to put who has it; may be NULL. */
static int call(struct gw_registry *r, json_t *query, enum gw_registry_kind kind, gw_document_fn fn,
		void *arg, char *holder)
{
	struct peer *p = peer_of(r);
	const char *error, *held;
	json_t *answer = NULL;
	int rc = query ? ask(p, query) : gw_fail(-EINVAL, "a query that is not UTF-8");

	json_decref(query);
	if (rc)
		return rc;
	answer = json_loadb((const char *)p->inbox.payload, p->inbox.len, JSON_REJECT_DUPLICATES,
			    NULL);
	error = json_string_value(json_object_get(answer, "error"));
	held = string_of(answer, "holder");
	if (!json_is_object(answer)) {
		rc = cannot_be(p);
	} else if (error) {
		rc = gw_fail(code_of(string_of(answer, "code")), "%s", error);
		if (rc == -EEXIST && (!holder || !gw_registry_key_ok(held)))
			rc = cannot_be(p);
		else if (rc == -EEXIST)
			memcpy(holder, held, strlen(held) + 1);
	} else if (fn) {
		rc = take_documents(p, answer, kind, fn, arg);
	}
	json_decref(answer);
	return rc;
}

static int peer_get(struct gw_registry *r, enum gw_registry_kind kind, const char *group,
		    const char *key, gw_document_fn fn, void *arg)
{
	return call(r,
		    json_pack("{s:s,s:s,s:s,s:s}", "do", "get", "kind", gw_registry_kind_name(kind),
			      "group", group, "key", key),
		    kind, fn, arg, NULL);
}

static int peer_list(struct gw_registry *r, enum gw_registry_kind kind, const char *group,
		     gw_document_fn fn, void *arg)
{
	return call(r,
		    json_pack("{s:s,s:s,s:s}", "do", "list", "kind", gw_registry_kind_name(kind),
			      "group", group),
		    kind, fn, arg, NULL);
}

static int peer_put(struct gw_registry *r, enum gw_registry_kind kind, const char *group,
		    const char *key, const char *text)
{
	return call(r,
		    json_pack("{s:s,s:s,s:s,s:s,s:s}", "do", "put", "kind",
			      gw_registry_kind_name(kind), "group", group, "key", key, "text",
			      text),
		    kind, NULL, NULL, NULL);
}

static int peer_remove(struct gw_registry *r, enum gw_registry_kind kind, const char *group,
		       const char *key)
{
	return call(r,
		    json_pack("{s:s,s:s,s:s,s:s}", "do", "remove", "kind",
			      gw_registry_kind_name(kind), "group", group, "key", key),
		    kind, NULL, NULL, NULL);
}

static int peer_change(struct gw_registry *r, const char *name, const char *from, const char *to,
		       const char *text, char holder[GW_REGISTRY_KEY_MAX])
{
	return call(r,
		    json_pack("{s:s,s:s,s:s,s:s,s:s*}", "do", "change", "key", name, "from", from,
			      "to", to, "text", text),
		    GW_REGISTRY_VM, NULL, NULL, holder);
}

static int peer_held(struct gw_registry *r, const char *holder, gw_document_fn fn, void *arg)
{
	return call(r, json_pack("{s:s,s:s}", "do", "held", "key", holder), GW_REGISTRY_VM, fn, arg,
		    NULL);
}

static void peer_close(struct gw_registry *r)
{
	struct peer *p = peer_of(r);

	gw_transport_close(&p->t);
	gw_frame_free(&p->inbox);
	free(p->address);
	free(p);
}

static const struct gw_registry_ops peer_ops = {
	.get = peer_get,
	.list = peer_list,
	.put = peer_put,
	.remove = peer_remove,
	.change = peer_change,
	.held = peer_held,
	.close = peer_close,
};

/* "IP:PORT" or "[IP6]:PORT". Names would be looked up, and that has no deadline. */
static bool is_address(const char *address)
{
	const char *colon = strrchr(address, ':');
	gw_autofree char *host = colon ? gw_path("%.*s", (int)(colon - address), address) : NULL;
	struct in6_addr six;
	struct in_addr four;
	size_t len;

	if (!host || !colon[1] || strspn(colon + 1, "0123456789") != strlen(colon + 1))
		return false;
	len = strlen(host);
	if (host[0] == '[' && len > 2 && host[len - 1] == ']') {
		host[len - 1] = '\0';
		return inet_pton(AF_INET6, host + 1, &six) == 1;
	}
	return inet_pton(AF_INET, host, &four) == 1;
}

struct gw_registry *gw_registry_peer(const char *address)
{
	struct peer *p;

	if (!is_address(address)) {
		gw_fail(-EINVAL, "godwit://%s: write godwit://IP:PORT", address);
		return NULL;
	}
	p = calloc(1, sizeof(*p));
	if (!p) {
		gw_fail(-ENOMEM, "no memory for a registry");
		return NULL;
	}
	p->r.ops = &peer_ops;
	p->address = gw_path("%s", address);
	return &p->r;
}

/* The server's end. */

struct gathering {
	json_t *list;
	size_t bytes;
};

/* Documents beyond what fits a frame are left out; escaping may double them. */
static int gather(void *arg, const struct gw_document *d)
{
	struct gathering *g = arg;
	json_t *one;

	g->bytes += 2 * (strlen(d->group) + strlen(d->key) + strlen(d->holder) + strlen(d->text)) +
		    16;
	if (g->bytes > (size_t)gw_message_max(GW_MSG_ANSWER) - 1024)
		return 0;
	one = json_pack("[s,s,s,s]", d->group, d->key, d->holder, d->text);
	if (!one)
		gw_warn("the registry's record of %s '%s' is not UTF-8; ignored",
			gw_registry_kind_name(d->kind), d->group[0] ? d->group : "?");
	else
		json_array_append_new(g->list, one);
	return 0;
}

static bool key_or_none(const char *key)
{
	return !key[0] || gw_registry_key_ok(key);
}

static int kind_of(const char *word, enum gw_registry_kind *kind)
{
	for (unsigned int k = 0; k < GW_REGISTRY_KINDS; k++)
		if (!strcmp(word, gw_registry_kind_name(k))) {
			*kind = k;
			return 0;
		}
	return -EINVAL;
}

static bool is_document(const char *text)
{
	json_t *json = strlen(text) <= GW_REGISTRY_TEXT_MAX ? json_loads(text, 0, NULL) : NULL;
	const bool ok = json_is_object(json);

	json_decref(json);
	return ok;
}

/* What a query asks for, checked; the engine's answer goes into @documents and @holder. */
static int execute(struct gw_registry *r, const json_t *query, json_t *documents, char *holder)
{
	const char *what = string_of(query, "do"), *key = string_of(query, "key");
	const char *group = string_of(query, "group");
	const char *text = json_string_value(json_object_get(query, "text"));
	const char *from = string_of(query, "from"), *to = string_of(query, "to");
	struct gathering g = { .list = documents };
	enum gw_registry_kind kind = GW_REGISTRY_VM;
	const bool of_a_kind = json_object_get(query, "kind") != NULL;

	gw_registry_begin(r);
	if ((of_a_kind && kind_of(string_of(query, "kind"), &kind)) || !key_or_none(group) ||
	    !key_or_none(key) || !key_or_none(from) || !key_or_none(to) ||
	    (text && !is_document(text)))
		return gw_fail(-EINVAL, "a query with a field that cannot be");
	if (of_a_kind && !strcmp(what, "list"))
		return r->ops->list(r, kind, group, gather, &g);
	if (key[0] && of_a_kind && !strcmp(what, "get"))
		return r->ops->get(r, kind, group, key, gather, &g);
	if (key[0] && text && kind != GW_REGISTRY_VM && !strcmp(what, "put"))
		return r->ops->put(r, kind, group, key, text);
	if (key[0] && kind != GW_REGISTRY_VM && !strcmp(what, "remove"))
		return r->ops->remove(r, kind, group, key);
	if (key[0] && !strcmp(what, "change"))
		return r->ops->change(r, key, from, to, text, holder);
	if (key[0] && !strcmp(what, "held"))
		return r->ops->held(r, key, gather, &g);
	return gw_fail(-EINVAL, "a query that is none");
}

static int answer(struct gw_registry *r, struct gw_transport *t, const struct gw_frame *f)
{
	json_t *query = json_loadb((const char *)f->payload, f->len, JSON_REJECT_DUPLICATES, NULL);
	json_t *documents = json_array();
	char holder[GW_REGISTRY_KEY_MAX] = "";
	int rc = execute(r, query, documents, holder);

	json_decref(query);
	if (!rc)
		return send_json(t, GW_MSG_ANSWER, json_pack("{s:o}", "documents", documents));
	json_decref(documents);
	return send_json(t, GW_MSG_ANSWER,
			 json_pack("{s:s,s:s,s:s}", "error", gw_error(), "code", word_of(rc),
				   "holder", holder));
}

void gw_registry_serve(struct gw_registry *r, struct gw_transport *t, unsigned int idle_ms,
		       unsigned int life_ms)
{
	const int64_t end = gw_now() + life_ms * GW_MS;
	struct gw_frame f = { 0 };

	for (;;) {
		const int64_t idle = gw_now() + idle_ms * GW_MS;

		if (gw_frame_recv(t, &f, idle < end ? idle : end))
			break;
		if (f.type != GW_MSG_QUERY) {
			gw_fail(-EPROTO, "%s instead of QUERY", gw_message_name(f.type));
			gw_frame_send_buf(t, GW_MSG_ERROR, 0, gw_error(), strlen(gw_error()));
			break;
		}
		if (answer(r, t, &f))
			break;
	}
	gw_frame_free(&f);
}
