// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * fuzz_registry.c - what a registry says into records, and what a client asks
 * into gw_registry_serve().
 *
 * The first byte chooses. A record that is accepted must be one that could be
 * put; an engine must see nothing but keys and documents.
 */
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "frame.h"
#include "fuzz.h"
#include "log.h"
#include "registry.h"

static const char *text;

static int say(enum gw_registry_kind kind, gw_document_fn fn, void *arg)
{
	const struct gw_document d = { kind, kind == GW_REGISTRY_IMAGE ? "vm" : "a", "b", "c",
				       text };

	return fn(arg, &d);
}

static void check_key(const char *key)
{
	if (key[0] && !gw_registry_key_ok(key))
		abort();
}

static int on_get(struct gw_registry *r, enum gw_registry_kind kind, const char *group,
		  const char *key, gw_document_fn fn, void *arg)
{
	(void)r;
	check_key(group);
	check_key(key);
	return say(kind, fn, arg);
}

static int on_list(struct gw_registry *r, enum gw_registry_kind kind, const char *group,
		   gw_document_fn fn, void *arg)
{
	(void)r;
	check_key(group);
	return say(kind, fn, arg);
}

static int on_put(struct gw_registry *r, enum gw_registry_kind kind, const char *group,
		  const char *key, const char *document)
{
	(void)r;
	check_key(group);
	check_key(key);
	if (kind == GW_REGISTRY_VM || !key[0] || strlen(document) > GW_REGISTRY_TEXT_MAX)
		abort();
	return 0;
}

static int on_remove(struct gw_registry *r, enum gw_registry_kind kind, const char *group,
		     const char *key)
{
	return on_put(r, kind, group, key, "");
}

static int on_change(struct gw_registry *r, const char *name, const char *from, const char *to,
		     const char *document, char holder[GW_REGISTRY_KEY_MAX])
{
	(void)r;
	check_key(from);
	check_key(to);
	if (!gw_registry_key_ok(name) || (document && strlen(document) > GW_REGISTRY_TEXT_MAX))
		abort();
	strcpy(holder, "a");
	return -EEXIST;
}

static int on_held(struct gw_registry *r, const char *holder, gw_document_fn fn, void *arg)
{
	(void)r;
	check_key(holder);
	return say(GW_REGISTRY_VM, fn, arg);
}

static const struct gw_registry_ops ops = {
	.get = on_get,
	.list = on_list,
	.put = on_put,
	.remove = on_remove,
	.change = on_change,
	.held = on_held,
};

/* A connection that has one frame to read, and forgets what it is sent once that was made. */
struct pipe {
	struct gw_transport t;
	uint8_t bytes[GW_FRAME_HEADER + 65536];
	size_t len, at;
	bool full;
};

static int pipe_send(struct gw_transport *t, struct iovec *iov, int n)
{
	struct pipe *p = (struct pipe *)t;

	for (int i = 0; i < n && !p->full; i++) {
		memcpy(p->bytes + p->len, iov[i].iov_base, iov[i].iov_len);
		p->len += iov[i].iov_len;
	}
	return 0;
}

static int pipe_recv(struct gw_transport *t, void *buf, size_t len, int64_t deadline)
{
	struct pipe *p = (struct pipe *)t;

	(void)deadline;
	if (p->len - p->at < len)
		return -ECONNRESET;
	memcpy(buf, p->bytes + p->at, len);
	p->at += len;
	return 0;
}

static const struct gw_transport_ops pipe_ops = { .send = pipe_send, .recv = pipe_recv };

static void ask(struct gw_registry *r, const char *query, size_t len)
{
	static struct pipe p;

	p = (struct pipe){ .t.ops = &pipe_ops };
	if (gw_frame_send_buf(&p.t, GW_MSG_QUERY, 0, query, len))
		return;
	p.full = true;
	text = "{}";
	gw_registry_serve(r, &p.t, 1000, 1000);
}

/* What was read may be put, but for a link or host whose name is the document's. */
static void read_all(struct gw_registry *r, uint8_t which)
{
	struct gw_image_record *images = NULL;
	struct gw_host_record *hosts = NULL;
	struct gw_link_record *links = NULL;
	struct gw_vm_record vm;
	size_t nr = 0;

	if (which == 0 && !gw_registry_hosts(r, &hosts, &nr) && nr &&
	    gw_registry_put_host(r, hosts))
		abort();
	if (which == 1 && !gw_registry_images(r, "vm", &images, &nr) && nr &&
	    gw_registry_put_image(r, images))
		abort();
	if (which == 2 && !gw_registry_links(r, "a", &links, &nr) && nr &&
	    (!links->bandwidth || gw_registry_put_link(r, links)))
		abort();
	if (which == 3 && !gw_registry_vm(r, "b", &vm) && gw_registry_move(r, &vm, "c") != -EEXIST)
		abort();
	free(hosts);
	free(images);
	free(links);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct gw_registry r = { .ops = &ops, .timeout_ms = 1000 };
	gw_autofree char *rest = size ? strndup((const char *)data + 1, size - 1) : NULL;

	if (!rest)
		return 0;
	gw_log_init("fuzz", GW_LOG_ERROR);
	text = rest;
	if (data[0] % 5 == 4)
		ask(&r, rest, strlen(rest));
	else
		read_all(&r, data[0] % 5);
	return 0;
}
