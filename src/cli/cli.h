/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * cli.h - what the commands of `godwit` share.
 *
 * Rules: results on standard output, messages and progress on standard error.
 * Exit status: 0 done, 1 failed, 2 wrong usage. Every command is one file
 * cmd_*.c with its own --help.
 */
#ifndef GW_CLI_H
#define GW_CLI_H

#include <getopt.h>
#include <jansson.h>
#include <stdbool.h>

#define GW_EXIT_USAGE 2

/** gw_cli_root - --root, or NULL. */
extern const char *gw_cli_root;

struct gw_call {
	const char *command;
	json_t *args; /* taken over */
	/* For each progress object; may be NULL. */
	void (*on_progress)(void *arg, const json_t *status);
	void *arg;
	/* Ctrl-C sends "cancel" for this VM instead of ending us; may be NULL. */
	const char *cancel_name;
	json_t *status; /* what an error came with; owned by the caller */
};

/**
 * gw_cli_call() - ask the daemon.
 * @result: what it returned, owned by the caller
 *
 * Return: 0 or -errno with the daemon's message recorded.
 */
int gw_cli_call(struct gw_call *call, json_t **result);

/** gw_cli_fail() - print the recorded message; the exit status 1. */
int gw_cli_fail(void);

/** gw_cli_print() - print @json on standard output as text and free it. */
void gw_cli_print(json_t *json);

/**
 * gw_cli_options() - getopt_long for a command: --help prints @help and ends 0,
 * a wrong option ends with GW_EXIT_USAGE.
 *
 * Return: the option's value, or -1 at the end.
 */
int gw_cli_options(int argc, char **argv, const struct option *longs, const char *help);

/** gw_cli_usage() - complain about the arguments and point to --help. Exit status 2. */
int gw_cli_usage(const char *command, const char *complaint);

/** gw_cli_number() - a decimal number from @min to @max. 0, or -EINVAL with a message. */
int gw_cli_number(const char *text, long min, long max, long *value);

int gw_cmd_run(int argc, char **argv);
int gw_cmd_attach(int argc, char **argv);
int gw_cmd_list(int argc, char **argv);
int gw_cmd_migrate(int argc, char **argv);
int gw_cmd_status(int argc, char **argv);
int gw_cmd_cancel(int argc, char **argv);
int gw_cmd_stop(int argc, char **argv);
int gw_cmd_images(int argc, char **argv);
int gw_cmd_held(int argc, char **argv);
int gw_cmd_hosts(int argc, char **argv);
int gw_cmd_recover(int argc, char **argv);
int gw_cmd_plan(int argc, char **argv);
int gw_cmd_check(int argc, char **argv);
int gw_cmd_split(int argc, char **argv);
int gw_cmd_merge(int argc, char **argv);
int gw_cmd_evacuate(int argc, char **argv);

struct gw_progress;

/**
 * gw_progress_new() - show a migration on a terminal, or nothing if @fd is none.
 * @fd: descriptor for the line; @forced: show it even if that is no terminal
 */
struct gw_progress *gw_progress_new(int fd, bool forced, const char *name, const char *address);
void gw_progress_show(void *progress, const json_t *status);
void gw_progress_free(struct gw_progress *p);

/**
 * gw_progress_round() - the last round that ended, in words: what was due
 * and what of it had not changed. Empty before there is one.
 */
void gw_progress_round(const json_t *status, char *text, size_t len);

/** gw_progress_postcopy() - how far post-copy is, at either host. False: it is not under way. */
bool gw_progress_postcopy(const json_t *status, char *text, size_t len);

/** gw_progress_split() - where a split VM's memory is, in words. False: it is not split. */
bool gw_progress_split(const json_t *status, char *text, size_t len);

/**
 * gw_split_option() - an option of split, which is one of migrate, too, into its @args.
 * @opt: 't'o (--split), 'm'ain-memory, 'c'hunk-pages, 'r'eplicas, history 'p'eriod or 's'hift, with
 * optarg
 * @option: its name, for the message
 */
int gw_split_option(char opt, const char *option, json_t *args);

/** gw_progress_spread() - what a migration has sent to sub-hosts, in words; "" if it has none. */
void gw_progress_spread(const json_t *status, char *text, size_t len);

/** gw_print_split() - the same for each sub-host, a line each on standard output. */
void gw_print_split(const json_t *status);

#endif
