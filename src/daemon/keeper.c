// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * keeper.c - the keeper of a VM whose memory is only in part here (decision 32): from "split", or
 * its arrival by a migration to several hosts, until "merge", or its guest's end.
 *
 *   take over  where another process has paged: what it left is mended first
 *   keep       faults, servers and their threads work; this one looks after all of it:
 *              history, room, how it stands, and what the daemon says
 *   merge      all of it comes back, and the VM is like any other
 *
 * Who dies is followed by another: record, table and watch say how it stands.
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "blocks.h"
#include "budget.h"
#include "cleanup.h"
#include "clock.h"
#include "error.h"
#include "io.h"
#include "keeper.h"
#include "log.h"
#include "worker_pages.h"

#define LOOK_NS	       (100 * GW_MS)
#define REPORT_NS      (500 * GW_MS)
#define DISMISS_NS     (5 * GW_S)
/* A sub-host that cannot be reached for so long has no copies, if another can have them. */
#define MISSED_NS      (30 * GW_S)
/* Entries that may be dropped of memory whose history nobody knows yet, each time: 0.4 s. */
#define DROPS_FIRST    (1UL << 20)
/* And then, each second, so many as the guest makes again: 1 % of a processor (accessed.h). */
#define MADE_PER_S     4096
/* More where it pages, and it matters what is cold: 20 us a fault. */
#define MADE_PER_FAULT 8
/* Of this one's time a tenth at most, which are guests of hundreds of GiB. */
#define LOOK_SHARE     10
#define COUNT_SHARE    50
/* So often is looked before anything leaves, however large it is. */
#define LOOKS_FIRST    10
#define UNSTICK_NS     (5 * GW_S)
/* Of a sub-host that has not answered, when another has failed. */
#define UNDECIDED_NS   (2 * GW_S)

/* What is to be undone, and has no room here, is tried again. */
#define MERGE_AGAIN_NS (5 * GW_S)

static void hear(void *env, const struct gw_fault *faults, unsigned int n)
{
	gw_split_fault(&((struct gw_keeper *)env)->split, faults, n);
}

/* The VM's memory, without its monitor: QEMU may wait for a page. */
static int open_memory(struct gw_keeper *k)
{
	const struct gw_definition *def = &k->vm.def;
	int rc = 0;

	if (k->vm.watch.nr_ranges != def->nr_memory)
		return gw_fail(-EINVAL, "the record of VM '%s' does not say where its memory is",
			       def->name);
	for (unsigned int i = 0; !rc && i < def->nr_memory; i++) {
		uint64_t hva = k->vm.watch.ranges[i].hva;
		const int fd = gw_blocks_open(k->vm.process.pid, def->memory[i].id, NULL,
					      def->memory[i].size, &hva);

		rc = fd < 0 ? fd
			    : gw_ram_add(&k->ram, def->memory[i].id, fd, def->memory[i].size, hva);
	}
	return rc;
}

static int map_memory(struct gw_keeper *k)
{
	const struct gw_memory *m = &k->ram.memory;

	for (unsigned int i = 0; i < m->nr_blocks; i++) {
		void *at = mmap(NULL, m->blocks[i].nr_pages * GW_PAGE_SIZE, PROT_READ, MAP_SHARED,
				k->ram.files[i].fd, 0);

		if (at == MAP_FAILED)
			return gw_fail(-errno, "RAM file of backend '%s': %s", m->blocks[i].id,
				       strerror(errno));
		k->maps[i] = at;
	}
	return 0;
}

int gw_keeper_watch(struct gw_keeper *k, struct gw_vm *vm, struct gw_qmp *qmp)
{
	pid_t threads[GW_WATCH_VCPUS];
	const unsigned int vcpus = gw_pages_vcpus(qmp, threads);
	int rc = gw_watch_split(&vm->watch, vm->process.pid, &k->ram,
				vcpus < GW_WATCH_PARTS ? vcpus : GW_WATCH_PARTS);

	if (rc)
		return rc;
	vm->watch.nr_vcpus = vcpus;
	memcpy(vm->watch.vcpus, threads, sizeof(threads[0]) * vcpus);
	return 0;
}

int gw_keeper_save(struct gw_keeper *k)
{
	json_decref(k->vm.split);
	k->vm.split = gw_split_record_json(&k->record);
	return gw_vm_save(k->w->paths, &k->vm);
}

int gw_keeper_take_over(struct gw_keeper *k)
{
	int rc = gw_split_record_parse(&k->record, k->vm.split);

	if (!rc)
		rc = open_memory(k);
	if (rc)
		return rc;
	k->split.memory = &k->ram.memory;
	k->told = true;
	k->known = true; /* or rather: nobody must wait until it is */
	return gw_netpt_open(&k->split.table, k->table, &k->ram.memory, k->record.id);
}

/* Units that could leave for nobody: somebody may have come back, or have room. */
static void unstick(struct gw_keeper *k)
{
	if (!k->stuck || gw_now() < k->next_unstick)
		return;
	k->next_unstick = gw_now() + UNSTICK_NS;
	k->stuck = false;
	for (size_t unit = 0; unit < k->split.table.units.nr; unit++)
		gw_bitmap_put(&k->filled, unit);
}

/* Its memory is all here, and nobody watches it. */
static int forget_split(struct gw_keeper *k)
{
	int rc;

	json_decref(k->vm.split);
	k->vm.split = NULL;
	memset(&k->vm.watch, 0, sizeof(k->vm.watch));
	rc = gw_vm_save(k->w->paths, &k->vm);
	if (!rc && unlink(k->table))
		gw_warn("%s: %s", k->table, strerror(errno));
	return rc;
}

static void name_servers(struct gw_keeper *k)
{
	k->all.ops = &gw_servers_live_ops;
	k->all.tasks = &gw_threads;
	k->all.env = k;
	k->all.name = k->vm.def.name;
	k->all.host = k->w->host;
	k->all.split = &k->split;
	k->all.missed_ns = MISSED_NS;
	k->all.servers = k->servers;
	k->all.nr = k->record.nr_servers;
	for (unsigned int i = 0; i < k->all.nr; i++) {
		memcpy(k->servers[i].address, k->record.servers[i].address, GW_ADDRESS_MAX);
		k->servers[i].size = k->record.servers[i].size;
		k->servers[i].leaves = k->record.servers[i].leaves;
		k->servers[i].gone = k->record.servers[i].gone;
	}
}

/*
 * What is here beyond the limit at first is no reason to have the guest wait until it has left: it
 * may use what it needs as long as it becomes less. What is on its way counts as here.
 */
static void lower_limit(struct gw_keeper *k)
{
	const uint64_t target = k->record.main_memory / GW_PAGE_SIZE;
	const uint64_t least = gw_split_here(&k->split) + k->split.coming + gw_keeper_spare(k);

	if (k->record.merging || k->split.limit <= target || least >= k->split.limit)
		return;
	k->split.limit = least > target ? least : target;
}

int gw_keeper_start(struct gw_keeper *k, bool took_over)
{
	const struct gw_memory *m = &k->ram.memory;
	int rc = map_memory(k);

	k->split.ops = &gw_split_live_ops;
	k->split.env = k;
	k->split.pinned = k->record.direct_io;
	/* Until the guest runs here what lies at the sub-hosts is another's, too. */
	k->split.frozen = k->all.carried = k->record.carried;
	k->split.limit = k->arrives ? k->record.main_memory / GW_PAGE_SIZE : m->nr_pages;
	lower_limit(k); /* before anything is fetched ahead */
	if (!rc)
		rc = gw_split_init(&k->split, GW_MEMORY_CONNECTIONS * k->record.nr_servers);
	if (!rc)
		rc = gw_ageing_init(&k->ageing, m, k->record.unit_pages);
	if (!rc)
		rc = gw_bitmap_init(&k->filled, k->split.table.units.nr);
	if (!rc)
		rc = gw_bitmap_init(&k->sampled, m->nr_pages);
	if (!rc)
		rc = gw_watch_open(&k->vm.watch, k->vm.process.pid, &k->paged);
	/* All of it is back, and who saw to that died before he had written it down. */
	if (rc == -ENOENT && took_over && !k->split.table.away)
		return forget_split(k) ?: GW_KEEPER_MERGED;
	if (rc)
		return rc;
	k->watched = true;
	rc = gw_watch_arm(&k->paged);
	if (rc)
		return rc;
	gw_bitmap_set_range(&k->filled, 0, k->split.table.units.nr);
	rc = took_over ? gw_split_mend(&k->split) : 0;
	if (!rc)
		rc = gw_accessed_open(&k->accessed, k->vm.process.pid, k->vm.watch.ranges,
				      k->vm.watch.nr_ranges);
	if (rc)
		return rc;
	k->sampling = true;
	gw_split_in_init(&k->in, &k->split);
	name_servers(k);
	k->all.sink = &k->in.sink;
	k->all.options = (struct gw_page_options){ .compress = GW_COMPRESS_AUTO };
	k->all.merging = k->record.merging;
	rc = gw_faults_start(&k->faults, hear, k, &k->paged);
	return rc ? rc : gw_servers_start(&k->all);
}

static json_t *latencies(const struct gw_fault_stats *f)
{
	json_t *list = json_array();

	for (unsigned int i = 0; i < GW_LATENCIES; i++)
		json_array_append_new(list, json_integer((json_int_t)f->latency[i]));
	return list;
}

/* Where copies are missing, each page is looked at: seldom enough that nobody waits for that. */
static struct gw_missing_copies missing_copies(struct gw_keeper *k)
{
	const int64_t began = gw_now();

	if (began < k->next_count)
		return k->missing;
	gw_servers_missing(&k->all, &k->missing);
	k->next_count = gw_now() + COUNT_SHARE * (gw_now() - began);
	return k->missing;
}

static json_t *status_of(struct gw_keeper *k, const char *state)
{
	const uint64_t resident = gw_split_here(&k->split) * GW_PAGE_SIZE;
	struct gw_missing_copies missing = missing_copies(k);
	struct gw_split_stats s;
	json_t *split;

	gw_split_stats(&k->split, &s);
	split = json_pack(
		"{s:I,s:I,s:I,s:i,s:I,s:i,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:o,s:o}", "resident",
		(json_int_t)resident, "main-memory", (json_int_t)k->record.main_memory,
		"away-pages", (json_int_t)k->split.table.away, "chunk-pages",
		(int)k->record.unit_pages, "single-pages", (json_int_t)missing.single, "replicas",
		(int)k->record.replicas, "page-ins", (json_int_t)s.page_ins, "page-outs",
		(json_int_t)s.page_outs, "fetched-ahead", (json_int_t)s.ahead,
		"written-while-leaving", (json_int_t)s.units_kept, "faults",
		(json_int_t)s.faults.faults, "faults-per-s", (json_int_t)k->per_s,
		"faults-deferred", (json_int_t)s.deferred, "latency",
		(json_int_t)(s.faults.measured ? s.faults.sum_ns / s.faults.measured : 0),
		"latency-dist", latencies(&s.faults), "holders", gw_servers_json(&k->all));
	return json_pack("{s:s,s:{s:s,s:o}}", "status", state, "godwit", "mode", "split", "split",
			 split);
}

static const char *state_of(struct gw_keeper *k)
{
	struct gw_missing_copies missing = missing_copies(k);

	if (missing.none)
		return "split-paused";
	for (unsigned int i = 0; !k->record.merging && i < k->all.nr; i++)
		if (k->servers[i].leaves && !k->servers[i].gone)
			return "split-evacuating";
	return k->record.merging ? "split-merging"
	       : missing.single	 ? "split-degraded"
				 : "split-active";
}

json_t *gw_keeper_status(struct gw_keeper *k)
{
	return status_of(k, state_of(k));
}

static void report(struct gw_keeper *k)
{
	const int64_t now = gw_now();
	struct gw_split_stats s;

	if (now < k->next_report)
		return;
	gw_split_stats(&k->split, &s);
	if (k->counted_ns)
		k->per_s = (s.faults.faults - k->counted) * GW_S / (uint64_t)(now - k->counted_ns);
	k->counted = s.faults.faults;
	k->counted_ns = now;
	k->next_report = now + REPORT_NS;
	gw_worker_progress(k->w, gw_keeper_status(k));
}

/* How many page table entries the guest may have to make again by the next look. */
static size_t may_be_made(struct gw_keeper *k)
{
	struct gw_split_stats s;
	size_t most;

	gw_split_stats(&k->split, &s);
	most = MADE_PER_S * (size_t)k->record.period_ms / 1000 +
	       MADE_PER_FAULT * (size_t)(s.faults.faults - k->sampled_faults);
	k->sampled_faults = s.faults.faults;
	return k->known ? most : DROPS_FIRST;
}

/* What the guest has accessed since, and what that makes of its history. */
static int sample(struct gw_keeper *k)
{
	int64_t began, took;
	int rc;

	if (gw_now() < k->next_sample || k->record.merging)
		return 0;
	began = gw_now();
	k->known = k->known || k->accessed.rounds || k->periods >= LOOKS_FIRST;
	gw_bitmap_zero(&k->sampled);
	rc = gw_accessed_sample(&k->accessed, &k->sampled, may_be_made(k));
	if (rc == -ESRCH) { /* known here before its process can be waited for */
		k->split.gone = true;
		return 0;
	}
	if (rc && rc != -EAGAIN)
		return rc;
	/* An entry that was never dropped says nothing. */
	if (k->known)
		gw_ageing_add(&k->ageing, &k->sampled);
	if (++k->periods % k->record.shift_periods == 0)
		gw_ageing_shift(&k->ageing);
	if (!k->record.direct_io) {
		gw_locked(&k->lock);
		k->nr_victims = 0; /* there may be colder ones now */
	}
	took = gw_now() - began;
	k->next_sample = began + (int64_t)k->record.period_ms * GW_MS;
	if (k->next_sample < began + LOOK_SHARE * took)
		k->next_sample = began + LOOK_SHARE * took;
	return 0;
}

/*
 * Why a sub-host cannot be called, if one cannot. A host that is named twice ends its own other
 * connection: then that is why, and not that one was closed, so that is tried again first.
 */
static int look_for_failure(struct gw_keeper *k)
{
	char why[sizeof(k->servers[0].error)] = "";
	const char *address = NULL;
	bool undecided = false;

	for (unsigned int i = 0; i < k->all.nr; i++) {
		struct gw_server *s = &k->servers[i];
		gw_locked(&s->lock);

		if (s->up || s->gone)
			continue;
		undecided = undecided || !s->error[0];
		if (!s->error[0] || (address && !s->alias))
			continue;
		memcpy(why, s->error, sizeof(why));
		address = s->address;
		undecided = undecided || (s->dropped && !s->alias);
	}
	if (!address)
		return 0;
	if (!k->failed_at)
		k->failed_at = gw_now();
	if (undecided && gw_now() < k->failed_at + UNDECIDED_NS)
		return 0;
	return gw_fail(-EHOSTUNREACH, "sub-host %s: %s", address, why);
}

/* Whoever asked for the split hears of it once its memory is within the limit. */
static int tell(struct gw_keeper *k)
{
	int rc;

	if (k->told || k->why)
		return 0;
	rc = look_for_failure(k);
	if (rc)
		return rc;
	for (unsigned int i = 0; i < k->all.nr; i++)
		if (!k->servers[i].up && !k->servers[i].gone)
			return 0;
	if (k->split.limit * GW_PAGE_SIZE > k->record.main_memory)
		return 0;
	gw_worker_answer(k->w, status_of(k, "split-active"));
	k->told = true;
	return 0;
}

static int merge(struct gw_keeper *k)
{
	int rc;

	if (k->record.merging || gw_now() < k->next_merge)
		return 0;
	k->next_merge = gw_now() + MERGE_AGAIN_NS;
	k->record.merging = true;
	json_decref(k->vm.split);
	k->vm.split = gw_split_record_json(&k->record);
	rc = gw_budget_grow(k->w->paths, k->w->host, &k->vm);
	if (rc) {
		gw_worker_refuse(k->w, "merge", NULL, gw_error());
		gw_error_clear();
		k->record.merging = false;
		return gw_keeper_save(k);
	}
	gw_budget_make_room(k->w->paths, gw_now() + GW_BUDGET_DEMOTE_S * GW_S);
	k->split.limit = k->ram.memory.nr_pages;
	k->all.merging = true;
	gw_servers_wake(&k->all);
	return 0;
}

/* It cannot be what was asked for: the VM is to be as it was. */
static void undo(struct gw_keeper *k, const char *why)
{
	if (!k->why)
		k->why = strdup(why);
	gw_error_clear();
}

int gw_keeper_end(struct gw_keeper *k)
{
	int rc;

	gw_keeper_dismiss(k);
	gw_faults_stop(&k->faults);
	gw_watch_close(&k->paged);
	k->watched = false;
	rc = gw_watch_unsplit(&k->vm.watch, k->vm.process.pid);
	return rc ? rc : forget_split(k);
}

/* 1: QEMU has ended; 0: it has not. */
static int qemu_ended(const struct gw_keeper *k)
{
	struct pollfd pfd = { .fd = k->qemu, .events = POLLIN };

	return k->split.gone || poll(&pfd, 1, 0) > 0;
}

/* What woke us is heeded now. */
static void quiet(const struct gw_keeper *k)
{
	uint64_t n;

	if (read(k->event, &n, sizeof(n)) < 0 && errno != EAGAIN)
		gw_err("eventfd: %s", strerror(errno));
}

static void wait_a_while(const struct gw_keeper *k)
{
	struct pollfd fds[] = { { .fd = k->event, .events = POLLIN },
				{ .fd = k->w->ctl, .events = POLLIN },
				{ .fd = k->qemu, .events = POLLIN } };

	poll(fds, GW_ARRAY_SIZE(fds), (int)(LOOK_NS / GW_MS));
	quiet(k);
}

/* What is done now and then whatever else happens to the VM. */
static void look_after(struct gw_keeper *k)
{
	if (atomic_exchange(&k->split.retry, false))
		gw_watch_wake(&k->paged);
	lower_limit(k);
	gw_split_ask(&k->split);
	if (gw_split_here(&k->split) > gw_keeper_aim(k))
		gw_servers_wake(&k->all);
	unstick(k);
}

static void *beside(void *arg)
{
	struct gw_beside *b = arg;

	while (!b->ended) {
		struct pollfd pfd = { .fd = b->keeper->event, .events = POLLIN };

		poll(&pfd, 1, (int)(LOOK_NS / GW_MS));
		quiet(b->keeper);
		look_after(b->keeper);
	}
	return NULL;
}

int gw_beside_start(struct gw_beside *b, struct gw_keeper *k)
{
	b->keeper = k;
	b->ended = false;
	b->runs = !pthread_create(&b->thread, NULL, beside, b);
	return b->runs ? 0 : gw_fail(-EAGAIN, "no thread to page VM '%s'", k->vm.def.name);
}

void gw_beside_stop(struct gw_beside *b)
{
	if (!b->runs)
		return;
	b->ended = true;
	gw_split_live_ops.notify(b->keeper);
	pthread_join(b->thread, NULL);
	b->runs = false;
}

/* Who would move it is told here why that cannot be, or what others wait for would be ended. */
static bool may_yield(struct gw_keeper *k)
{
	if (!gw_carry_check(&k->record, k->vm.def.name))
		return true;
	gw_worker_refuse(k->w, "migrate", NULL, gw_error());
	gw_error_clear();
	k->w->yield = false;
	return false;
}

/* Until the guest ends, or all of its memory is here. 0: it is; -ECHILD: it has ended. */
static int keep(struct gw_keeper *k)
{
	int rc = 0;

	while (!rc) {
		wait_a_while(k);
		gw_worker_heed(k->w, NULL, NULL);
		if (qemu_ended(k))
			return gw_fail(-ECHILD, "the QEMU of VM '%s' has ended", k->vm.def.name);
		if (k->w->stop)
			gw_process_end(&k->vm.process, 0);
		if (gw_worker_replaced(k->w, &k->next_look))
			return gw_fail(-ESTALE, "a younger godwitd starts another");
		if (k->w->yield && may_yield(k))
			return gw_fail(-ESTALE, "another process goes on");
		look_after(k);
		rc = sample(k);
		gw_keeper_quiesce_by(k, NULL);
		if (!rc && tell(k))
			undo(k, gw_error());
		if (!rc && k->w->cancelled && !k->told)
			undo(k, "cancelled");
		if (k->w->merge)
			k->next_merge = 0;
		if (!rc && (k->w->merge || k->why))
			rc = merge(k);
		k->w->merge = k->w->cancelled = false;
		if (k->w->evacuate)
			gw_keeper_evacuate(k);
		if (!rc)
			rc = gw_keeper_look_at_servers(k);
		report(k);
		if (!rc && k->record.merging && !k->split.table.away)
			rc = gw_servers_finish(&k->all);
	}
	return rc > 0 ? 0 : rc;
}

void gw_keeper_free(struct gw_keeper *k)
{
	gw_servers_stop(&k->all);
	if (k->faults.hear)
		gw_faults_stop(&k->faults);
	if (k->watched)
		gw_watch_close(&k->paged);
	if (k->sampling)
		gw_accessed_close(&k->accessed);
	gw_ageing_free(&k->ageing);
	gw_bitmap_free(&k->filled);
	gw_bitmap_free(&k->sampled);
	gw_split_free(&k->split);
	for (unsigned int i = 0; i < k->ram.memory.nr_blocks; i++)
		if (k->maps[i])
			munmap(k->maps[i], k->ram.memory.blocks[i].nr_pages * GW_PAGE_SIZE);
	gw_ram_close(&k->ram);
	if (k->qemu >= 0)
		close(k->qemu);
	if (k->event >= 0)
		close(k->event);
	free(k->table);
	free(k->why);
	pthread_mutex_destroy(&k->lock);
	gw_vm_free(&k->vm);
	free(k);
}

struct gw_keeper *gw_keeper_new(struct gw_worker *w, const char *name)
{
	gw_autofree char *dir = gw_vm_dir(w->paths, name);
	struct gw_keeper *k = calloc(1, sizeof(*k));

	if (!k) {
		gw_fail(-ENOMEM, "no memory");
		return NULL;
	}
	k->w = w;
	k->qemu = k->event = -1;
	k->table = gw_path("%s/pages", dir);
	pthread_mutex_init(&k->lock, NULL);
	return k;
}

int gw_keeper_open(struct gw_keeper *k, const char *name)
{
	int rc = gw_vm_load(k->w->paths, name, &k->vm);

	if (rc == -ENOENT)
		return gw_fail(rc, "no VM '%s' on this host; see godwit list", name);
	if (rc)
		return rc;
	k->qemu = gw_process_open(&k->vm.process);
	k->event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	return k->qemu < 0 ? k->qemu : k->event < 0 ? -errno : 0;
}

void gw_keeper_dismiss(struct gw_keeper *k)
{
	gw_servers_stop(&k->all);
	if (k->record.carried) /* it is not ours to dismiss */
		return;
	gw_servers_dismiss(&k->all, gw_now() + DISMISS_NS);
}

int gw_keeper_bury(struct gw_keeper *k)
{
	const struct gw_definition *def = &k->vm.def;
	struct gw_memory memory = { 0 };
	int rc = gw_split_record_parse(&k->record, k->vm.split);

	for (unsigned int i = 0; !rc && i < def->nr_memory; i++)
		if (gw_memory_add(&memory, def->memory[i].id, def->memory[i].size) < 0)
			rc = -EINVAL;
	if (rc)
		return rc;
	k->split.memory = &memory;
	name_servers(k);
	gw_keeper_dismiss(k);
	k->split.memory = NULL;
	return forget_split(k);
}

/* Its guest has ended, and nobody needs to hold anything of it. */
static int end_vm(struct gw_keeper *k)
{
	gw_info("VM '%s' has ended, which was split", k->vm.def.name);
	gw_keeper_dismiss(k);
	gw_error_clear();
	return 0;
}

/* The guest runs here: its sub-hosts are this host's from here on. */
static int own_it(struct gw_keeper *k)
{
	int rc;

	if (!k->record.carried)
		return 0;
	k->record.carried = false;
	rc = gw_keeper_save(k);
	if (rc)
		return rc;
	/* Before anything leaves: what they have and need not have takes its room. */
	k->all.carried = false;
	gw_servers_compare(&k->all);
	if (gw_split_thaw(&k->split))
		gw_servers_compare(&k->all);
	return 0;
}

int gw_keeper_keep(struct gw_keeper *k)
{
	int rc = own_it(k);

	if (!rc)
		rc = keep(k);
	return !rc ? gw_keeper_end(k) : rc == -ECHILD ? end_vm(k) : rc;
}
