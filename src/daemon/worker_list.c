// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * worker_list.c - the worker behind `godwit list`: all VMs of a host, and how they are.
 *
 * A host has a thousand of them, and some monitors do not answer. So many are asked at
 * once, and who has not answered in time is unreachable, and delays nobody but its lot.
 */
#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "cleanup.h"
#include "clock.h"
#include "error.h"
#include "io.h"
#include "lines.h"
#include "sockets.h"
#include "source.h"
#include "worker.h"

/* How long a VM's monitor may take, and how many are asked at once. */
#define LIST_MS	   1000
#define LOT	   256
#define ANSWER_MAX (1UL << 20)

struct asked {
	struct gw_vm vm;
	char state[32];
	int fd;	  /* of its monitor; -1: nothing more is to come */
	int step; /* lines that have come: greeting, capabilities, status */
	struct gw_lines in;
};

/* How a VM stands that moves, or did when its worker died. */
static const char *moving_state(struct gw_worker *w, const struct gw_vm *vm,
				const struct gw_journal *j)
{
	const char *name = vm->def.name;
	const bool source = j->role == GW_ROLE_SOURCE;
	int lock = gw_vm_lock(w->paths, name);
	const bool moves = lock < 0 && !json_object_get(w->recovering, name);

	if (lock >= 0)
		close(lock); /* only looked */
	if (!source && j->phase == GW_DEST_PHASE_RUNNING && vm->watch.mode == GW_WATCH_PAGING)
		return j->why[0] ? "lost" : "postcopy";
	if (source && j->phase == GW_SOURCE_SERVING)
		return j->lost ? "lost" : "serving";
	if (source && j->phase == GW_SOURCE_GONE)
		return "lost";
	if (moves)
		return source ? "migrating" : "incoming";
	if (source ? j->phase == GW_SOURCE_COMMITTING : gw_settled_doubted(w->paths, j->id))
		return "in-doubt";
	return "recovering";
}

static void hang_up(struct asked *a)
{
	if (a->fd >= 0)
		close(a->fd);
	a->fd = -1;
	gw_lines_free(&a->in);
}

/* A monitor that is busy with others does not even take the connection. */
static void call(struct asked *a)
{
	a->in.max = ANSWER_MAX;
	a->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (a->fd >= 0 && gw_unix_connect(a->fd, a->vm.qmp))
		hang_up(a);
}

/* What the records say, or the beginning of a call. */
static void begin(struct gw_worker *w, struct asked *a)
{
	const char *name = a->vm.def.name;
	struct gw_journal j;
	int lock;

	a->fd = -1;
	if (!gw_journal_load(w->paths, name, &j)) {
		snprintf(a->state, sizeof(a->state), "%s", moving_state(w, &a->vm, &j));
		return;
	}
	/* Its monitor may wait for a page. */
	if (a->vm.split && gw_process_alive(&a->vm.process)) {
		snprintf(a->state, sizeof(a->state), "split");
		return;
	}
	snprintf(a->state, sizeof(a->state), "busy");
	lock = gw_vm_lock(w->paths, name);
	if (lock < 0)
		return;
	close(lock); /* only looked: nobody shall find the VM busy because of a list */
	if (!gw_process_alive(&a->vm.process)) {
		snprintf(a->state, sizeof(a->state), "ended");
		return;
	}
	snprintf(a->state, sizeof(a->state), "unreachable");
	call(a);
}

/* The next line of a monitor: say the next command, or note the state. */
static void take_line(struct asked *a, const char *line, size_t len)
{
	static const char *const commands[] = { "{\"execute\":\"qmp_capabilities\"}\n",
						"{\"execute\":\"query-status\"}\n" };
	json_t *msg = json_loadb(line, len, 0, NULL);
	const char *status =
		json_string_value(json_object_get(json_object_get(msg, "return"), "status"));

	if (json_object_get(msg, "event")) {
		json_decref(msg);
		return;
	}
	if (!msg || json_object_get(msg, "error")) {
		hang_up(a);
	} else if (a->step < 2) {
		const char *say = commands[a->step++];

		if (gw_send_fd(a->fd, say, strlen(say), -1, MSG_DONTWAIT))
			hang_up(a);
	} else {
		if (status)
			snprintf(a->state, sizeof(a->state), "%s", status);
		hang_up(a);
	}
	json_decref(msg);
}

static void hear(struct asked *a)
{
	int rc = gw_lines_fill(&a->in, a->fd);
	const char *line;
	size_t len;

	while (a->fd >= 0 && (line = gw_lines_next(&a->in, &len)))
		take_line(a, line, len);
	if (a->fd >= 0 && rc && rc != -EAGAIN)
		hang_up(a);
}

/* Ask @n VMs how they are. */
static void ask(struct gw_worker *w, struct asked *lot, size_t n)
{
	const int64_t deadline = gw_now() + LIST_MS * GW_MS;
	struct pollfd fds[LOT];

	for (size_t i = 0; i < n; i++)
		begin(w, &lot[i]);
	for (;;) {
		bool any = false;

		for (size_t i = 0; i < n; i++) {
			fds[i] = (struct pollfd){ .fd = lot[i].fd, .events = POLLIN };
			any = any || lot[i].fd >= 0;
		}
		if (!any || gw_now() >= deadline)
			break;
		if (poll(fds, n, gw_poll_ms(deadline)) <= 0)
			continue;
		for (size_t i = 0; i < n; i++)
			if (fds[i].fd >= 0 && fds[i].revents)
				hear(&lot[i]);
	}
	for (size_t i = 0; i < n; i++)
		hang_up(&lot[i]);
	gw_error_clear(); /* who could not be asked is listed so */
}

/* The sub-hosts of a VM's record that it still has. */
static json_t *servers_of(const json_t *split)
{
	json_t *one, *list = json_array();
	size_t i;

	json_array_foreach(json_object_get(split, "servers"), i, one) {
		if (!json_is_true(json_object_get(one, "gone")))
			json_array_append(list, one);
	}
	return list;
}

static json_t *describe(const struct asked *a)
{
	const struct gw_vm *vm = &a->vm;
	/* Not its id: whoever knows that can read what lies at the sub-hosts. */
	json_t *split = vm->split ? json_pack("{s:O?,s:o}", "main-memory",
					      json_object_get(vm->split, "main-memory"), "servers",
					      servers_of(vm->split))
				  : NULL;
	uint64_t memory = 0;

	for (unsigned int m = 0; m < vm->def.nr_memory; m++)
		memory += vm->def.memory[m].size;
	return json_pack("{s:s,s:s,s:I,s:i,s:s,s:b,s:O?,s:o*}", "name", vm->def.name, "state",
			 a->state, "memory", (json_int_t)memory, "pid", (int)vm->process.pid,
			 "machine", vm->def.machine, "attached", vm->attached, "blocks", vm->blocks,
			 "split", split);
}

static void answer_lot(struct gw_worker *w, struct asked *lot, size_t n, json_t *list)
{
	ask(w, lot, n);
	for (size_t i = 0; i < n; i++) {
		json_array_append_new(list, describe(&lot[i]));
		gw_vm_free(&lot[i].vm);
	}
	memset(lot, 0, n * sizeof(*lot));
}

int gw_worker_list(struct gw_worker *w, const json_t *args, json_t **result)
{
	gw_autofree char *path = gw_path("%s/vm", w->paths->run);
	gw_autofree struct asked *lot = calloc(LOT, sizeof(*lot));
	struct dirent **entries;
	size_t used = 0;
	int n;

	(void)args;
	if (!lot)
		return gw_fail(-ENOMEM, "no memory for the list");
	n = scandir(path, &entries, NULL, alphasort);
	*result = json_array();
	for (int i = 0; i < n; i++) {
		const char *name = entries[i]->d_name;

		if (name[0] != '.' && !gw_vm_load(w->paths, name, &lot[used].vm))
			used++;
		if (used == LOT) {
			answer_lot(w, lot, used, *result);
			used = 0;
		}
		free(entries[i]);
	}
	answer_lot(w, lot, used, *result);
	if (n >= 0)
		free(entries);
	return 0;
}
