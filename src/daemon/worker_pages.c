// SPDX-License-Identifier: GPL-2.0-or-later
/* worker_pages.c - missing pages of a real QEMU's guest; see worker_pages.h. */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "cleanup.h"
#include "clock.h"
#include "error.h"
#include "inject.h"
#include "io.h"
#include "log.h"
#include "peers.h"
#include "qemu_log.h"
#include "sockets.h"
#include "worker_pages.h"

#define ACCEPT_NS     (5 * GW_S)
#define QUIT_MS	      2000
#define CALL_NS	      (200 * GW_MS)
#define CALL_AGAIN_NS (2 * GW_S)
#define KILL_MS	      10000
#define REUSE_MAX     (1U << 20)

void gw_pages_init(struct gw_pages *g, struct gw_worker *w, struct gw_vm *vm, struct gw_qmp **qmp,
		   uint16_t version)
{
	memset(g, 0, sizeof(*g));
	g->w = w;
	g->vm = vm;
	g->qmp = qmp;
	g->version = version;
	g->qemu = -1;
}

void gw_pages_free(struct gw_pages *g)
{
	gw_callers_drop(&g->callers);
	if (g->open)
		gw_watch_close(&g->paged);
	if (g->qemu >= 0)
		close(g->qemu);
	free(g->table);
	g->open = false;
	g->qemu = -1;
	g->table = NULL;
}

unsigned int gw_pages_vcpus(struct gw_qmp *qmp, pid_t threads[GW_WATCH_VCPUS])
{
	json_t *cpus = NULL, *one;
	unsigned int n = 0;
	size_t i;

	if (gw_qmp_call(qmp, "query-cpus-fast", NULL, &cpus))
		gw_error_clear();
	json_array_foreach(cpus, i, one) {
		if (n < GW_WATCH_VCPUS)
			threads[n++] = (pid_t)json_integer_value(json_object_get(one, "thread-id"));
	}
	json_decref(cpus);
	return n;
}

/* Whether it can be changed, while nobody has touched a page. */
static int try_paging(const struct gw_vm *vm)
{
	struct gw_memory_watch trial = vm->watch;
	struct gw_paged paged;
	int rc = gw_watch_open(&trial, vm->process.pid, &paged);

	if (rc)
		return rc;
	rc = gw_watch_page(&trial, &paged);
	if (!rc)
		rc = gw_watch_unpage(&trial, &paged);
	gw_watch_close(&paged);
	return rc;
}

/* What QEMU locks or allocates beforehand it has mapped by now: that would never fault. */
static int unmap(pid_t pid, const struct gw_ram *ram)
{
	int rc = 0;

	for (unsigned int i = 0; !rc && i < ram->memory.nr_blocks; i++)
		rc = gw_inject_unmap(pid, ram->files[i].hva,
				     ram->memory.blocks[i].nr_pages * GW_PAGE_SIZE);
	return rc;
}

int gw_pages_prepare(struct gw_pages *g, struct gw_qmp *qmp, const struct gw_ram *ram)
{
	pid_t threads[GW_WATCH_VCPUS];
	const unsigned int vcpus = gw_pages_vcpus(qmp, threads);
	int rc = gw_track_has_uffd() ? 0 : -ENOTSUP;

	if (!rc)
		rc = unmap(g->vm->process.pid, ram);
	if (!rc)
		rc = gw_watch_begin(&g->vm->watch, g->vm->process.pid, ram,
				    vcpus < GW_WATCH_PARTS ? vcpus : GW_WATCH_PARTS);
	else
		gw_fail(rc, "its kernel has no asynchronous write-protection");
	if (!rc) {
		g->vm->watch.nr_vcpus = vcpus;
		memcpy(g->vm->watch.vcpus, threads, sizeof(threads[0]) * vcpus);
	}
	if (!rc)
		rc = try_paging(g->vm);
	return rc ? gw_fail_prefix(rc,
				   "host '%s' cannot run a guest before its memory is there: this "
				   "needs what 'godwit check' calls F19 (Linux 6.7 or newer): ",
				   g->w->host)
		  : 0;
}

static char *reuse_path(const struct gw_pages *g)
{
	gw_autofree char *dir = gw_vm_dir(g->w->paths, g->vm->def.name);

	return gw_path("%s/reuse.json", dir);
}

int gw_pages_remember(struct gw_pages *g, const json_t *reuse)
{
	gw_autofree char *path = reuse_path(g);
	gw_autofree char *text = reuse ? json_dumps(reuse, JSON_COMPACT) : NULL;

	return text ? gw_write_file(path, text) : 0;
}

json_t *gw_pages_recall(const struct gw_pages *g)
{
	gw_autofree char *path = reuse_path(g);
	gw_autofree char *text = access(path, F_OK) ? NULL : gw_read_file(path, REUSE_MAX, NULL);

	return text ? json_loads(text, 0, NULL) : NULL;
}

void gw_pages_heed(struct gw_pages *g)
{
	struct gw_transport *t;
	unsigned int index;

	while ((t = gw_worker_caller(g->w, &index))) {
		t->send_by = gw_now() + ACCEPT_NS;
		if (gw_callers_add(&g->callers, t, index) &&
		    gw_frame_send(t, GW_MSG_ACCEPT, g->version, NULL, 0)) {
			gw_error_clear();
			gw_callers_drop(&g->callers);
		}
	}
}

static const char *op_table(void *env)
{
	struct gw_pages *g = env;
	gw_autofree char *dir = NULL;

	if (!g->table) {
		dir = gw_vm_dir(g->w->paths, g->vm->def.name);
		g->table = gw_path("%s/missing", dir);
	}
	return g->table;
}

static int op_start(void *env, struct gw_pager *p)
{
	struct gw_pages *g = env;
	int rc = gw_watch_open(&g->vm->watch, g->vm->process.pid, &g->paged);

	g->open = !rc;
	if (!rc && g->qemu < 0) {
		g->qemu = gw_process_open(&g->vm->process);
		rc = g->qemu < 0 ? g->qemu : 0;
	}
	if (!rc)
		rc = gw_watch_page(&g->vm->watch, &g->paged);
	if (!rc)
		rc = gw_vm_save(g->w->paths, g->vm);
	if (!rc)
		rc = gw_faults_start(&g->faults, gw_pager_hear, p, &g->paged);
	g->hearing = !rc;
	return rc;
}

static void op_halt(void *env)
{
	struct gw_pages *g = env;

	if (g->hearing)
		gw_faults_stop(&g->faults);
	g->hearing = false;
}

static int op_stop(void *env)
{
	struct gw_pages *g = env;
	int rc = gw_watch_unpage(&g->vm->watch, &g->paged);

	if (rc)
		return rc;
	op_halt(g);
	rc = gw_vm_save(g->w->paths, g->vm);
	if (!rc && unlink(g->table))
		gw_warn("%s: %s", g->table, strerror(errno));
	if (!rc) {
		gw_autofree char *path = reuse_path(g);

		unlink(path);
	}
	return rc;
}

static int op_map(void *env, size_t page, size_t count, size_t *mapped)
{
	return gw_uffd_map(&((struct gw_pages *)env)->paged, page, count, mapped);
}

static int op_map_zero(void *env, size_t page)
{
	return gw_uffd_map_zero(&((struct gw_pages *)env)->paged, page);
}

static void op_wake(void *env, size_t page, size_t count)
{
	gw_uffd_wake(&((struct gw_pages *)env)->paged, page, count);
}

static void op_wake_all(void *env)
{
	if (gw_watch_wake(&((struct gw_pages *)env)->paged))
		gw_error_clear();
}

static unsigned int op_vcpus(void *env)
{
	const struct gw_pages *g = env;

	return g->paged.nr_vcpus;
}

static void op_urgency(void *env, enum gw_urgency urgency)
{
	(void)env;
	gw_thread_urgency(urgency);
}

static bool op_called(void *env, unsigned int n)
{
	return ((const struct gw_pages *)env)->callers.nr >= n;
}

static bool op_connections(void *env, struct gw_transport **t, unsigned int n)
{
	return gw_callers_take(&((struct gw_pages *)env)->callers, t, n);
}

/* The guest is to end, whatever it waits for. */
static int end_it(struct gw_pages *g)
{
	struct pollfd pfd = { .fd = g->qemu, .events = POLLIN };

	if (!*g->qmp)
		*g->qmp = gw_qmp_open(g->vm->qmp, gw_now() + QUIT_MS * GW_MS);
	else
		gw_qmp_patience(*g->qmp, QUIT_MS);
	if (!*g->qmp || gw_qmp_call(*g->qmp, "quit", NULL, NULL) || poll(&pfd, 1, QUIT_MS) <= 0)
		gw_process_end(&g->vm->process, KILL_MS);
	return gw_fail(-ECANCELED, "VM '%s' was stopped", g->vm->def.name);
}

/* Only its monitor tells how QEMU ended. One that waits for a page answers later. */
static void listen_in(struct gw_pages *g)
{
	if (*g->qmp || gw_now() < g->next_call)
		return;
	*g->qmp = gw_qmp_open(g->vm->qmp, gw_now() + CALL_NS);
	g->next_call = gw_now() + CALL_AGAIN_NS;
	gw_error_clear();
}

static int ended(struct gw_pages *g)
{
	gw_autofree char *said = NULL;

	if (*g->qmp && gw_qmp_shut_down(*g->qmp))
		return gw_fail(-ECANCELED, "the guest of VM '%s' has powered off", g->vm->def.name);
	said = gw_qemu_said(g->w->paths, g->w->host, g->vm->def.name);
	return gw_fail(-ECHILD,
		       "the QEMU of VM '%s' was killed or crashed on host '%s' before all of its "
		       "memory had come. %s",
		       g->vm->def.name, g->w->host, said);
}

static int op_look(void *env)
{
	struct gw_pages *g = env;
	struct pollfd pfd = { .fd = g->qemu, .events = POLLIN };

	gw_pages_heed(g);
	if (g->qemu >= 0 && poll(&pfd, 1, 0) > 0)
		return ended(g);
	listen_in(g);
	if (g->w->stop)
		return end_it(g);
	return gw_worker_replaced(g->w, &g->next_look)
		       ? gw_fail(-ESTALE, "a younger godwitd starts another")
		       : 0;
}

const struct gw_dest_page_ops gw_pages_ops = {
	.table = op_table,
	.start = op_start,
	.halt = op_halt,
	.stop = op_stop,
	.map = op_map,
	.map_zero = op_map_zero,
	.wake = op_wake,
	.wake_all = op_wake_all,
	.vcpus = op_vcpus,
	.urgency = op_urgency,
	.connections = op_connections,
	.called = op_called,
	.look = op_look,
};
