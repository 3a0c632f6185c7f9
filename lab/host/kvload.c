/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * kvload LOAD MIB HOST PORT SECONDS|0 [--interval-us N] [--json]
 *
 * Fills a key-value server in the guest with MIB MiB of values, says so on
 * standard error, and then asks and changes them until its end. LOAD names a
 * row of the table below, which says how and after whose example.
 *
 * Rules: the answer to every request is known beforehand, because a key
 * belongs to one connection, and a value is a piece of a fixed block that key
 * and version select. So any byte that differs is an error: the guest lost or
 * mixed up memory. One operation under way for each connection, and one each
 * 100 us at most (--interval-us) over all; a late one is not made up for.
 *
 * Exits 1 if a connection broke or an answer was wrong.
 */
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../served.h"
#include "host.h"

#define CONNECTIONS   16
#define FILLING_DEPTH 32UL /* requests under way while filling */
#define VALUE_BYTES   1000
#define MESSAGE_MAX   (VALUE_BYTES + 128)
#define BUFFER_BYTES  (FILLING_DEPTH * MESSAGE_MAX)
/* memaslap cuts its values from such a block of letters and digits. */
#define BLOCK_BYTES   (10 << 20)
#define ZIPF	      0.99 /* YCSB's constant */
#define LATE_NS	      (10 * NSEC_PER_MSEC)

struct operation {
	uint32_t key;
	uint32_t version;
	bool set;
};

struct connection {
	int fd;
	uint32_t next; /* key to fill */
	struct operation asked[FILLING_DEPTH];
	unsigned int first, count; /* in that ring */
	size_t out_bytes, in_bytes;
	char out[BUFFER_BYTES], in[BUFFER_BYTES];
};

struct protocol {
	/* Both write into @to, which has MESSAGE_MAX bytes, and return how many. */
	size_t (*request)(char *to, const struct operation *o);
	size_t (*answer)(char *to, const struct operation *o);
};

static char *block;
static char error[160]; /* empty: all is well */

static const char *value(const struct operation *o)
{
	return block + mix64((uint64_t)o->version << 32 | o->key) % (BLOCK_BYTES - VALUE_BYTES);
}

static size_t put_value(char *to, size_t at, const struct operation *o, const char *behind)
{
	memcpy(to + at, value(o), VALUE_BYTES);
	at += VALUE_BYTES;
	return at + (size_t)sprintf(to + at, "%s", behind);
}

static size_t memcached_request(char *to, const struct operation *o)
{
	if (!o->set)
		return (size_t)sprintf(to, "get user%016" PRIx64 "\r\n", mix64(o->key));
	return put_value(to,
			 (size_t)sprintf(to, "set user%016" PRIx64 " 0 0 %d\r\n", mix64(o->key),
					 VALUE_BYTES),
			 o, "\r\n");
}

static size_t memcached_answer(char *to, const struct operation *o)
{
	if (o->set)
		return (size_t)sprintf(to, "STORED\r\n");
	return put_value(to,
			 (size_t)sprintf(to, "VALUE user%016" PRIx64 " 0 %d\r\n", mix64(o->key),
					 VALUE_BYTES),
			 o, "\r\nEND\r\n");
}

static size_t redis_request(char *to, const struct operation *o)
{
	size_t at = (size_t)sprintf(to, "*%d\r\n$3\r\n%s\r\n$20\r\nuser%016" PRIx64 "\r\n",
				    o->set ? 3 : 2, o->set ? "SET" : "GET", mix64(o->key));

	if (!o->set)
		return at;
	at += (size_t)sprintf(to + at, "$%d\r\n", VALUE_BYTES);
	return put_value(to, at, o, "\r\n");
}

static size_t redis_answer(char *to, const struct operation *o)
{
	if (o->set)
		return (size_t)sprintf(to, "+OK\r\n");
	return put_value(to, (size_t)sprintf(to, "$%d\r\n", VALUE_BYTES), o, "\r\n");
}

static const struct protocol memcached = { memcached_request, memcached_answer };
static const struct protocol redis = { redis_request, redis_answer };

static const struct load {
	const char *name;
	const struct protocol *protocol;
	unsigned int set_percent;
	bool zipf;
} loads[] = {
	{ "memaslap", &memcached, 10, false },	     /* its own default */
	{ "memaslap-sets", &memcached, 100, false }, /* set and get at 1:0 */
	{ "ycsb", &redis, 50, true },		     /* its workload A */
};

struct state {
	const struct load *load;
	uint32_t keys;
	uint32_t *versions;
	double zeta, zeta_eta; /* of the zipfian distribution over the keys */
	uint64_t random;
	int64_t interval_ns, due_ns;
	struct tally tally;
	struct connection connections[CONNECTIONS];
	struct pollfd polled[CONNECTIONS + 1];
};

static uint64_t draw(struct state *s)
{
	return mix64(s->random++);
}

/* As Gray et al., "Quickly generating billion-record synthetic databases", and YCSB do it. */
static void prepare_zipf(struct state *s)
{
	double zeta = 0;

	for (uint32_t i = 1; i <= s->keys; i++)
		zeta += 1 / pow(i, ZIPF);
	s->zeta = zeta;
	s->zeta_eta = (1 - pow(2.0 / s->keys, 1 - ZIPF)) / (1 - (1 + pow(0.5, ZIPF)) / zeta);
}

static uint32_t zipf_rank(struct state *s)
{
	double u = (double)(draw(s) >> 11) * 0x1p-53;
	double rank;

	if (u * s->zeta < 1)
		return 0;
	if (u * s->zeta < 1 + pow(0.5, ZIPF))
		return 1;
	rank = s->keys * pow(s->zeta_eta * u - s->zeta_eta + 1, 1 / (1 - ZIPF));
	return rank < s->keys ? (uint32_t)rank : s->keys - 1;
}

/* One of the keys of connection @index; popular ones lie anywhere. */
static uint32_t draw_key(struct state *s, unsigned int index)
{
	uint64_t any = s->load->zipf ? mix64(zipf_rank(s)) : draw(s);

	return (uint32_t)(any % (s->keys / CONNECTIONS)) * CONNECTIONS + index;
}

static void ask(struct state *s, struct connection *c, uint32_t key, bool set)
{
	struct operation *o = &c->asked[(c->first + c->count++) % FILLING_DEPTH];

	*o = (struct operation){ .key = key, .set = set };
	o->version = s->versions[key] += set;
	c->out_bytes += s->load->protocol->request(c->out + c->out_bytes, o);
}

static void fill(struct state *s, struct connection *c)
{
	while (c->next < s->keys && c->count < FILLING_DEPTH &&
	       c->out_bytes + MESSAGE_MAX <= BUFFER_BYTES) {
		ask(s, c, c->next, true);
		c->next += CONNECTIONS;
	}
}

/* Takes the answers that are complete. */
static void take_answers(struct state *s, struct connection *c)
{
	size_t at = 0;

	while (c->count) {
		char expected[MESSAGE_MAX];
		size_t bytes = s->load->protocol->answer(expected, &c->asked[c->first]);
		size_t there = c->in_bytes - at < bytes ? c->in_bytes - at : bytes;

		if (memcmp(c->in + at, expected, there)) {
			snprintf(error, sizeof(error), "wrong answer to %s of key %u, version %u",
				 c->asked[c->first].set ? "a change" : "a request",
				 c->asked[c->first].key, c->asked[c->first].version);
			return;
		}
		if (there < bytes)
			break;
		at += bytes;
		c->first = (c->first + 1) % FILLING_DEPTH;
		c->count--;
		tally_operation(&s->tally);
	}
	c->in_bytes -= at;
	memmove(c->in, c->in + at, c->in_bytes);
	if (!c->count && c->in_bytes)
		snprintf(error, sizeof(error), "an answer that nobody asked for");
}

static void receive(struct state *s, struct connection *c)
{
	ssize_t bytes = recv(c->fd, c->in + c->in_bytes, BUFFER_BYTES - c->in_bytes, MSG_DONTWAIT);

	if (bytes < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (bytes <= 0) {
		snprintf(error, sizeof(error), "a connection broke: %s",
			 bytes ? strerror(errno) : "closed by the guest");
		return;
	}
	c->in_bytes += (size_t)bytes;
	take_answers(s, c);
}

static void send_out(struct connection *c)
{
	ssize_t bytes = send(c->fd, c->out, c->out_bytes, MSG_NOSIGNAL | MSG_DONTWAIT);

	if (bytes < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (bytes < 0) {
		snprintf(error, sizeof(error), "sending: %s", strerror(errno));
		return;
	}
	c->out_bytes -= (size_t)bytes;
	memmove(c->out, c->out + bytes, c->out_bytes);
}

/* Gives work to connections that have none; returns when there may be more. */
static int64_t give_work(struct state *s, int64_t now)
{
	bool filling = false;

	if (!s->tally.started_ns) {
		for (unsigned int i = 0; i < CONNECTIONS; i++) {
			fill(s, &s->connections[i]);
			filling |= s->connections[i].count > 0;
		}
		if (filling)
			return INT64_MAX;
		s->due_ns = now;
		tally_start(&s->tally, now);
		fputs("kvload: filled\n", stderr);
	}
	if (s->due_ns < now - LATE_NS)
		s->due_ns = now;
	for (unsigned int i = 0, start = (unsigned int)draw(s); i < CONNECTIONS; i++) {
		unsigned int index = (start + i) % CONNECTIONS;

		if (s->due_ns > now)
			return s->due_ns;
		if (s->connections[index].count)
			continue;
		ask(s, &s->connections[index], draw_key(s, index),
		    draw(s) % 100 < s->load->set_percent);
		s->due_ns += s->interval_ns;
	}
	return INT64_MAX; /* all have work: an answer will say when to go on */
}

static void run(struct state *s, int64_t end)
{
	s->polled[CONNECTIONS] = (struct pollfd){ .fd = open_signals(), .events = POLLIN };
	while (!error[0] && !s->polled[CONNECTIONS].revents) {
		int64_t now = now_ns(), next, wait;
		struct timespec timeout;

		if (now >= end)
			return;
		next = give_work(s, now);
		wait = (next < end ? next : end) - now;
		timeout = (struct timespec){ .tv_sec = wait / NSEC_PER_SEC,
					     .tv_nsec = wait % NSEC_PER_SEC };
		for (unsigned int i = 0; i < CONNECTIONS; i++) {
			struct connection *c = &s->connections[i];

			if (c->out_bytes)
				send_out(c);
			s->polled[i].events = POLLIN | (c->out_bytes ? POLLOUT : 0);
		}
		if (ppoll(s->polled, CONNECTIONS + 1, &timeout, NULL) < 0 && errno != EINTR)
			die(errno, "cannot poll");
		for (unsigned int i = 0; i < CONNECTIONS && !error[0]; i++)
			if (s->polled[i].revents & ~POLLOUT)
				receive(s, &s->connections[i]);
	}
}

int main(int argc, char **argv)
{
	static struct state s = { .random = 1 };
	struct options options;
	unsigned long mib;

	program_name = "kvload";
	if (argc < 6)
		die(0, "usage: kvload LOAD MIB HOST PORT SECONDS|0 [--interval-us N] [--json]");
	for (size_t i = 0; i < sizeof(loads) / sizeof(loads[0]); i++)
		if (!strcmp(argv[1], loads[i].name))
			s.load = &loads[i];
	mib = strtoul(argv[2], NULL, 10);
	if (!s.load || !mib || mib > 1 << 20)
		die(0, "LOAD is memaslap, memaslap-sets or ycsb, and MIB from 1 to 2^20");
	options = parse_options(argc - 2, argv + 2, 100 * NSEC_PER_USEC);
	s.interval_ns = options.interval_ns;
	s.keys = (uint32_t)((mib << 20) / VALUE_BYTES / CONNECTIONS * CONNECTIONS);
	s.versions = calloc(s.keys, sizeof(*s.versions));
	block = malloc(BLOCK_BYTES);
	if (!s.versions || !block)
		die(errno, "no memory for %u keys", s.keys);
	for (size_t i = 0; i < BLOCK_BYTES; i++)
		block[i] =
			"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"[mix64(i) %
											 62];
	if (s.load->zipf)
		prepare_zipf(&s);
	for (unsigned int i = 0; i < CONNECTIONS; i++) {
		s.connections[i].fd = connect_to(&options, SOCK_STREAM);
		s.connections[i].next = i;
		s.polled[i].fd = s.connections[i].fd;
	}
	run(&s, options.duration_ns ? now_ns() + options.duration_ns : INT64_MAX);
	tally_print(&s.tally, error, options.json);
	return error[0] ? EXIT_FAILURE : EXIT_SUCCESS;
}
