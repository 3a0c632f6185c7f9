// SPDX-License-Identifier: GPL-2.0-or-later
/* error.c - the calling thread's last failure; see error.h. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "error.h"

static _Thread_local char message[GW_ERROR_MAX];

/* Bytes of the UTF-8 sequence at @p; 0 if it is none, or a control character. */
static size_t sequence(const unsigned char *p)
{
	size_t n = p[0] < 0x80	 ? 1
		   : p[0] < 0xc2 ? 0
		   : p[0] < 0xe0 ? 2
		   : p[0] < 0xf0 ? 3
		   : p[0] < 0xf5 ? 4
				 : 0;

	if (n == 1 && (p[0] < 0x20 || p[0] == 0x7f))
		return 0;
	for (size_t i = 1; i < n; i++)
		if ((p[i] & 0xc0) != 0x80)
			return 0;
	/* C1 controls, overlong forms, surrogates, beyond U+10FFFF. */
	if ((p[0] == 0xc2 && p[1] < 0xa0) || (p[0] == 0xe0 && p[1] < 0xa0) ||
	    (p[0] == 0xed && p[1] >= 0xa0) || (p[0] == 0xf0 && p[1] < 0x90) ||
	    (p[0] == 0xf4 && p[1] >= 0x90))
		return 0;
	return n;
}

/* Messages quote peers and QEMU, and go to terminals and into JSON. */
static void clean(char *text)
{
	for (unsigned char *p = (unsigned char *)text; *p;) {
		size_t n = sequence(p);

		if (!n)
			*p = *p == '\n' || *p == '\t' ? ' ' : '?';
		p += n ? n : 1;
	}
}

int gw_fail(int code, const char *fmt, ...)
{
	char text[GW_ERROR_MAX]; /* the arguments may point into message */
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	clean(text);
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
	clean(text);
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
