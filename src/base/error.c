// SPDX-License-Identifier: GPL-2.0-or-later
/* error.c - the calling thread's last failure; see error.h. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "error.h"

static _Thread_local char message[GW_ERROR_MAX];

int gw_fail(int code, const char *fmt, ...)
{
	char text[GW_ERROR_MAX]; /* the arguments may point into message */
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	memcpy(message, text, sizeof(message));
	return code;
}

int gw_fail_prefix(int code, const char *fmt, ...)
{
	char text[GW_ERROR_MAX];
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (n >= 0 && (size_t)n < sizeof(text))
		snprintf(text + n, sizeof(text) - (size_t)n, "%s", message);
	memcpy(message, text, sizeof(message));
	return code;
}

const char *gw_error(void)
{
	return message[0] ? message : "no error recorded";
}

void gw_error_clear(void)
{
	message[0] = '\0';
}
