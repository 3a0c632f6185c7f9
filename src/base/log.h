/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * log.h - what a daemon or worker tells its operator, on standard error.
 *
 * Rules: one event, one line; a failure is logged by whoever ends its journey,
 * not at each level. Under systemd the priority goes in front as <N>.
 */
#ifndef GW_LOG_H
#define GW_LOG_H

enum gw_log_level {
	GW_LOG_ERROR = 3,
	GW_LOG_WARNING = 4,
	GW_LOG_INFO = 6,
	GW_LOG_DEBUG = 7,
};

/**
 * gw_log_init() - name this process in its log lines.
 * @who: e.g. "godwitd" or "godwitd[out web1]"; copied
 * @level: least important level that is printed
 */
void gw_log_init(const char *who, enum gw_log_level level);

/** gw_log_rename() - a new name, at the level that was set. */
void gw_log_rename(const char *who);

/** gw_log() - print one line at @level; @fmt has no newline. */
void gw_log(enum gw_log_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#define gw_err(...)   gw_log(GW_LOG_ERROR, __VA_ARGS__)
#define gw_warn(...)  gw_log(GW_LOG_WARNING, __VA_ARGS__)
#define gw_info(...)  gw_log(GW_LOG_INFO, __VA_ARGS__)
#define gw_debug(...) gw_log(GW_LOG_DEBUG, __VA_ARGS__)

#endif
