// SPDX-License-Identifier: GPL-2.0-or-later
/* registry.c - which engine a URL means, and what all of them share; see registry.h. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "clock.h"
#include "error.h"
#include "registry.h"

static const struct {
	const char *scheme;
	struct gw_registry *(*open)(const char *rest);
	bool whole; /* the engine wants the URL with its scheme */
} engines[] = {
	{ "sqlite:", gw_registry_sqlite, false },
	{ "godwit://", gw_registry_peer, false },
	{ "redis://", gw_registry_redis, true },
	{ "rediss://", gw_registry_redis, true },
};

static const char *const kinds[GW_REGISTRY_KINDS] = {
	[GW_REGISTRY_HOST] = "host",
	[GW_REGISTRY_IMAGE] = "image",
	[GW_REGISTRY_LINK] = "link",
	[GW_REGISTRY_VM] = "vm",
};

const char *gw_registry_kind_name(enum gw_registry_kind kind)
{
	return kinds[kind];
}

struct gw_registry *gw_registry_open(const char *url, unsigned int timeout_ms)
{
	for (size_t i = 0; i < GW_ARRAY_SIZE(engines); i++) {
		const size_t len = strlen(engines[i].scheme);
		struct gw_registry *r;

		if (strncmp(url, engines[i].scheme, len) != 0)
			continue;
		r = engines[i].open(engines[i].whole ? url : url + len);
		if (r)
			r->timeout_ms = timeout_ms ? timeout_ms : GW_REGISTRY_MS;
		return r;
	}
	gw_fail(-EINVAL,
		"'%s' is not a registry; write sqlite:PATH, godwit://IP:PORT, "
		"redis://HOST:PORT or rediss://HOST:PORT",
		url);
	return NULL;
}

int gw_registry_url_ok(const char *url)
{
	struct gw_registry *r = gw_registry_open(url, 0);

	gw_registry_close(r);
	return r ? 0 : -EINVAL;
}

const char *gw_registry_url_shown(const char *url, char *text, size_t len)
{
	const char *slashes = strstr(url, "://"), *at = slashes ? strrchr(slashes, '@') : NULL;

	if (at)
		snprintf(text, len, "%.*s...%s", (int)(slashes + 3 - url), url, at);
	else
		snprintf(text, len, "%s", url);
	return text;
}

void gw_registry_close(struct gw_registry *r)
{
	if (r)
		r->ops->close(r);
}

void gw_registry_begin(struct gw_registry *r)
{
	r->deadline = gw_now() + r->timeout_ms * GW_MS;
}

bool gw_registry_key_ok(const char *key)
{
	size_t len = 0;

	for (; key && key[len]; len++)
		if (key[len] <= ' ' || key[len] > '~' || len + 1 >= GW_REGISTRY_KEY_MAX)
			return false;
	return len > 0;
}

static int check_keys(const char *first, const char *second)
{
	if (gw_registry_key_ok(first) && gw_registry_key_ok(second))
		return 0;
	return gw_fail(-EINVAL,
		       "a registry knows VMs and hosts only by names of 1 to %d printable "
		       "characters without blanks; '%s' is none (see --name in godwitd(8))",
		       GW_REGISTRY_KEY_MAX - 1, gw_registry_key_ok(first) ? second : first);
}

int gw_registry_claim(struct gw_registry *r, const char *name, const char *host)
{
	char holder[GW_REGISTRY_KEY_MAX] = "";
	int rc = check_keys(name, host);

	if (rc)
		return rc;
	gw_registry_begin(r);
	rc = r->ops->change(r, name, "", host, NULL, holder);
	if (rc == -EEXIST)
		return gw_fail(rc,
			       "there is a VM '%s' on host '%s' already, says the registry; take "
			       "another name, or end the one there",
			       name, holder);
	return rc;
}

int gw_registry_release(struct gw_registry *r, const char *name, const char *host)
{
	char holder[GW_REGISTRY_KEY_MAX] = "";
	int rc = check_keys(name, host);

	if (rc)
		return rc;
	gw_registry_begin(r);
	rc = r->ops->change(r, name, host, "", NULL, holder);
	return rc == -EEXIST ? 0 : rc;
}
