/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the lab's clients share; see host.h. */
#include <errno.h>
#include <inttypes.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "host.h"

const char *program_name;

void die(int error, const char *format, ...)
{
	va_list args;

	fprintf(stderr, "%s: ", program_name);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	if (error)
		fprintf(stderr, ": %s", strerror(error));
	fputc('\n', stderr);
	exit(EXIT_FAILURE);
}

static double parse_number(const char *what, const char *text, double min, double max)
{
	char *end;
	double value = strtod(text, &end);

	if (end == text || *end || !(value >= min && value <= max))
		die(0, "%s must be a number from %g to %g, not '%s'", what, min, max, text);
	return value;
}

struct options parse_options(int argc, char **argv, int64_t interval_ns)
{
	struct options o = { .interval_ns = interval_ns };
	const char *positional[3];
	int count = 0;

	for (int i = 1; i < argc; i++) {
		if (!strcmp(argv[i], "--json"))
			o.json = true;
		else if (!strcmp(argv[i], "--interval-us") && interval_ns && i + 1 < argc)
			o.interval_ns = NSEC_PER_USEC *
					parse_number("the interval", argv[++i], 1, 1e9);
		else if (argv[i][0] == '-' || count == 3)
			count = 4;
		else
			positional[count++] = argv[i];
	}
	if (count != 3)
		die(0, "usage: %s HOST PORT SECONDS|0 %s[--json]", program_name,
		    interval_ns ? "[--interval-us N] " : "");
	o.host = positional[0];
	o.port = positional[1];
	o.duration_ns = NSEC_PER_SEC * parse_number("SECONDS", positional[2], 0, 1e6);
	return o;
}

int connect_to(const struct options *options, int type)
{
	struct addrinfo hints = { .ai_family = AF_UNSPEC, .ai_socktype = type };
	struct addrinfo *address;
	int fd, error;

	error = getaddrinfo(options->host, options->port, &hints, &address);
	if (error)
		die(0, "%s port %s: %s", options->host, options->port, gai_strerror(error));
	fd = socket(address->ai_family, type | SOCK_CLOEXEC, 0);
	if (fd < 0)
		die(errno, "cannot make a socket");
	if (connect(fd, address->ai_addr, address->ai_addrlen) < 0)
		die(errno, "cannot connect to %s port %s", options->host, options->port);
	freeaddrinfo(address);
	if (type == SOCK_STREAM)
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){ 1 }, sizeof(int));
	return fd;
}

int open_signals(void)
{
	sigset_t set;
	int fd;

	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigprocmask(SIG_BLOCK, &set, NULL);
	fd = signalfd(-1, &set, SFD_CLOEXEC);
	if (fd < 0)
		die(errno, "cannot wait for signals");
	return fd;
}

static struct timespec to_timespec(int64_t ns)
{
	return (struct timespec){ .tv_sec = ns / NSEC_PER_SEC, .tv_nsec = ns % NSEC_PER_SEC };
}

int open_timer(int64_t first_ns, int64_t interval_ns)
{
	struct itimerspec when = {
		.it_value = to_timespec(first_ns),
		.it_interval = to_timespec(interval_ns),
	};
	int fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);

	if (fd < 0 || timerfd_settime(fd, 0, &when, NULL) < 0)
		die(errno, "cannot make a timer");
	return fd;
}

void be_urgent(void)
{
	struct sched_param param = { .sched_priority = 1 };

	/* Without the right to, results are a little less sharp: no error. */
	sched_setscheduler(0, SCHED_FIFO, &param);
	mlockall(MCL_CURRENT | MCL_FUTURE);
}

int64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * NSEC_PER_SEC + now.tv_nsec;
}

void gap_event(struct gap *gap, int64_t now)
{
	if (!gap->first) {
		gap->first = gap->last = gap->at = now;
		return;
	}
	if (now - gap->last > gap->longest) {
		gap->longest = now - gap->last;
		gap->at = gap->last;
	}
	gap->last = now;
}

void tally_start(struct tally *tally, int64_t now)
{
	struct timespec wall;

	clock_gettime(CLOCK_REALTIME, &wall);
	tally->started_at = (double)wall.tv_sec + 1e-9 * (double)wall.tv_nsec;
	tally->started_ns = now;
	gap_event(&tally->gap, now);
}

void tally_operation(struct tally *tally)
{
	int64_t now = now_ns();
	size_t tick = (size_t)((now - tally->started_ns) / (RATE_TICK_MS * NSEC_PER_MSEC));

	if (!tally->started_ns)
		return;
	tally->operations++;
	if (tick < RATES_MAX)
		tally->rates[tick]++;
	gap_event(&tally->gap, now);
}

void tally_print(struct tally *tally, const char *error, bool json)
{
	int64_t now = now_ns(), silent = tally->started_ns ? now - tally->gap.last : 0;
	double seconds = tally->started_ns ? (double)(now - tally->started_ns) / NSEC_PER_SEC : 0;
	int ticks = (int)(seconds * 1000 / RATE_TICK_MS);

	if (tally->started_ns)
		gap_event(&tally->gap, now);
	printf(json ? "{\"operations\":%" PRIu64 ",\"per-second\":%.1f,\"gap-ms\":%.3f,"
		      "\"gap-at-ms\":%.3f,\"silent-ms\":%.3f,\"broken\":%s,\"error\":\"%s\","
		      "\"started-at\":%.3f,\"tick-ms\":%d,\"rates\":["
		    : "operations %" PRIu64 "\nper-second %.1f\ngap-ms %.3f\n"
		      "gap-at-ms %.3f\nsilent-ms %.3f\nbroken %s\nerror %s\n"
		      "started-at %.3f\ntick-ms %d\nrates ",
	       tally->operations, seconds > 0 ? (double)tally->operations / seconds : 0,
	       milliseconds(tally->gap.longest), milliseconds(tally->gap.at - tally->gap.first),
	       milliseconds(silent), error[0] ? "true" : "false", error, tally->started_at,
	       RATE_TICK_MS);
	for (int i = 0; i < RATES_MAX && i < ticks; i++)
		printf("%s%u", i ? (json ? "," : " ") : "", tally->rates[i]);
	puts(json ? "]}" : "");
}
