// SPDX-License-Identifier: GPL-2.0-or-later
/* held.c - device state that QEMU does not have yet; see held.h. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "error.h"
#include "held.h"

int gw_held_add(struct gw_held *h, const void *bytes, size_t len)
{
	if (len > GW_HELD_MAX - h->len)
		return gw_fail(-E2BIG, "more than %lu MiB of device state", GW_HELD_MAX >> 20);
	while (len) {
		uint8_t **part = &h->parts[h->len / GW_HELD_PART];
		const size_t at = h->len % GW_HELD_PART;
		const size_t n = len < GW_HELD_PART - at ? len : GW_HELD_PART - at;

		if (!*part)
			*part = malloc(GW_HELD_PART);
		if (!*part)
			return gw_fail(-ENOMEM, "no memory for device state");
		memcpy(*part + at, bytes, n);
		bytes = (const uint8_t *)bytes + n;
		h->len += n;
		len -= n;
	}
	return 0;
}

int gw_held_give(const struct gw_held *h, int (*fn)(void *arg, const void *bytes, size_t len),
		 void *arg)
{
	int rc = 0;

	for (size_t at = 0; !rc && at < h->len; at += GW_HELD_PART)
		rc = fn(arg, h->parts[at / GW_HELD_PART],
			h->len - at < GW_HELD_PART ? h->len - at : GW_HELD_PART);
	return rc;
}

void gw_held_drop(struct gw_held *h)
{
	for (size_t i = 0; i < GW_HELD_MAX / GW_HELD_PART && h->parts[i]; i++) {
		free(h->parts[i]);
		h->parts[i] = NULL;
	}
	h->len = 0;
}
