/* SPDX-License-Identifier: GPL-2.0-or-later */
/* shell.h - what a test has other programs do in its folder. */
#ifndef TEST_SHELL_H
#define TEST_SHELL_H

#include "unit.h"

/** unit_shell() - run a command in @folder; the test fails if it does. */
__attribute__((format(printf, 2, 3))) static inline void unit_shell(const char *folder,
								    const char *fmt, ...)
{
	char command[1024];
	int n = snprintf(command, sizeof(command), "cd %s && ", folder);
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(command + n, sizeof(command) - (size_t)n, fmt, ap);
	va_end(ap);
	if (system(command)) /* NOLINT(cert-env33-c): the test's own words */
		fail_msg("%s", command);
}

#endif
