// SPDX-License-Identifier: GPL-2.0-or-later
/* log.c - log lines on standard error; see log.h. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "log.h"

static char name[64] = "godwit";
static enum gw_log_level least = GW_LOG_INFO;
static int journald = -1;

void gw_log_rename(const char *who)
{
	snprintf(name, sizeof(name), "%s", who);
}

void gw_log_init(const char *who, enum gw_log_level level)
{
	gw_log_rename(who);
	least = level;
	journald = getenv("JOURNAL_STREAM") != NULL;
}

void gw_log(enum gw_log_level level, const char *fmt, ...)
{
	char line[1400], stamp[40] = "";
	struct timespec ts;
	struct tm tm;
	va_list ap;
	int n;

	if (level > least)
		return;
	if (journald == 1) {
		snprintf(stamp, sizeof(stamp), "<%d>", (int)level);
	} else {
		clock_gettime(CLOCK_REALTIME, &ts);
		localtime_r(&ts.tv_sec, &tm);
		n = (int)strftime(stamp, sizeof(stamp), "%H:%M:%S", &tm);
		snprintf(stamp + n, sizeof(stamp) - (size_t)n, ".%03ld ", ts.tv_nsec / 1000000);
	}
	n = snprintf(line, sizeof(line), "%s%s: %s", stamp, name,
		     level == GW_LOG_ERROR     ? "error: "
		     : level == GW_LOG_WARNING ? "warning: "
					       : "");
	va_start(ap, fmt);
	vsnprintf(line + n, sizeof(line) - (size_t)n - 1, fmt, ap);
	va_end(ap);
	/* One write per line, so that processes sharing the log do not mix. */
	n = 0;
	while (line[n])
		n++;
	line[n++] = '\n';
	if (write(STDERR_FILENO, line, (size_t)n) < 0)
		return; /* nowhere left to report to */
}
