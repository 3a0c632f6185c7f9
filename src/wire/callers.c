// SPDX-License-Identifier: GPL-2.0-or-later
/* callers.c - sets of connections; see callers.h. */
#include "callers.h"

void gw_callers_drop(struct gw_callers *c)
{
	while (c->nr)
		gw_transport_close(&c->conns[--c->nr]);
}

bool gw_callers_add(struct gw_callers *c, struct gw_transport *t, unsigned int index)
{
	if (!index)
		gw_callers_drop(c);
	if (index != c->nr || index >= GW_PAGING_MAX) {
		gw_transport_close(&t);
		return false;
	}
	c->conns[c->nr++] = t;
	return true;
}

bool gw_callers_take(struct gw_callers *c, struct gw_transport **t, unsigned int n)
{
	if (c->nr < n)
		return false;
	for (unsigned int i = 0; i < n; i++) {
		t[i] = c->conns[i];
		c->conns[i] = NULL;
	}
	while (c->nr > n)
		gw_transport_close(&c->conns[--c->nr]);
	c->nr = 0;
	return true;
}
