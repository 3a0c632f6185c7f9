// SPDX-License-Identifier: GPL-2.0-or-later
/* storage_source.c - a VM's disks are copied with its memory: the source's half; see storage.h. */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "cleanup.h"
#include "error.h"
#include "live.h"
#include "log.h"
#include "mirror.h"
#include "source_env.h"
#include "storage.h"
#include "tunnel.h"

#define LOOK_MS 100

/* QEMU greets the server while it does nothing else: some round trips. */
#define GREET_NS (5 * GW_S)

/* A QEMU that does not answer so long after what it may wait is waiting for the other side. */
#define CUT_ALL_NS (5 * GW_S)

/* A copy of which nothing moves for so long will not end. */
#define STALL_NS (60 * GW_S)

struct gw_storage {
	json_t *disks; /* mirror.h's */
	json_t *told;  /* of them */
	struct gw_tunnel tunnels[GW_MIRRORS_MAX];
	_Atomic unsigned int nr; /* of these, that were begun */
	bool begun;		 /* there may be jobs of ours */
	uint64_t before;	 /* bytes that jobs have copied which are over */

	pthread_t watch; /* cuts the tunnels at @cut_at */
	bool watches, ends;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	int64_t cut_at, cut_all_at; /* those that owe an answer; all */
};

static void cut(struct gw_storage *s, bool all)
{
	for (unsigned int i = 0; i < s->nr; i++)
		if (all || gw_tunnel_owes(&s->tunnels[i]))
			gw_tunnel_cut(&s->tunnels[i]);
}

static void *watch(void *arg)
{
	struct gw_storage *s = arg;

	gw_locked(&s->lock);
	while (!s->ends) {
		const int64_t now = gw_now();

		/* What is slow for other reasons does not get faster without its copy. */
		if (now >= s->cut_at) {
			cut(s, now >= s->cut_all_at);
			s->cut_at = now < s->cut_all_at ? now + LOOK_MS * GW_MS / 4 : GW_FOREVER;
		}
		if (s->cut_at == GW_FOREVER)
			pthread_cond_wait(&s->changed, &s->lock);
		else
			gw_wait_until(&s->changed, &s->lock, s->cut_at);
	}
	return NULL;
}

void gw_storage_within(struct gw_source_env *e, int64_t deadline)
{
	struct gw_storage *s = e->storage;

	if (!s || !s->watches)
		return;
	{
		gw_locked(&s->lock);
		s->cut_at = deadline;
		s->cut_all_at = deadline == GW_FOREVER ? GW_FOREVER : deadline + CUT_ALL_NS;
	}
	pthread_cond_signal(&s->changed);
}

void gw_storage_free(struct gw_storage *s)
{
	if (!s)
		return;
	if (s->watches) {
		{
			gw_locked(&s->lock);
			s->ends = true;
		}
		pthread_cond_signal(&s->changed);
		pthread_join(s->watch, NULL);
	}
	for (unsigned int i = 0; i < s->nr; i++)
		gw_tunnel_stop(&s->tunnels[i]);
	pthread_mutex_destroy(&s->lock);
	pthread_cond_destroy(&s->changed);
	json_decref(s->disks);
	json_decref(s->told);
	free(s);
}

static struct gw_storage *new_storage(void)
{
	struct gw_storage *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	s->cut_at = s->cut_all_at = GW_FOREVER;
	pthread_mutex_init(&s->lock, NULL);
	pthread_cond_init(&s->changed, NULL);
	if (pthread_create(&s->watch, NULL, watch, s)) {
		free(s);
		return NULL;
	}
	s->watches = true;
	return s;
}

/* Files by the names that both hosts know them by, and nothing that is this host's business. */
static json_t *told_of(const struct gw_source_env *e, const json_t *disks)
{
	gw_autofree char *dir = gw_vm_dir(e->w->paths, e->vm.def.name);
	json_t *told = json_array();
	const json_t *disk;
	size_t i;

	json_array_foreach((json_t *)disks, i, disk) {
		json_t *copy = json_copy((json_t *)disk);
		gw_autofree char *file = gw_live_file(e->vm.process.pid, dir,
						      gw_qmp_text(disk, "file"));

		json_object_del(copy, "node");
		json_object_set_new(copy, "file", json_string(file));
		json_array_append_new(told, copy);
	}
	return told;
}

int gw_storage_ask(struct gw_source_env *e, const json_t *args)
{
	const char *word = json_string_value(json_object_get(args, "copy-storage"));
	struct gw_storage *s;
	int rc;

	if (!word)
		return 0;
	if (strcmp(word, "new") && strcmp(word, "overwrite"))
		return gw_fail(-EINVAL, "--copy-storage is new or overwrite, not '%s'", word);
	if (e->saved)
		return gw_fail(-ENOTSUP,
			       "the guest is paused and its state has been saved, with which its "
			       "disks became inactive: continue it before its disks are copied");
	s = e->storage = new_storage();
	if (!s)
		return gw_fail(-ENOMEM, "no memory to copy disks");
	rc = gw_mirror_forget(e->qmp);
	if (!rc)
		rc = gw_mirror_disks(e->qmp, &s->disks);
	if (!rc && !json_array_size(s->disks))
		rc = gw_fail(-ENOTSUP,
			     "VM '%s' has no disk that would have to be copied: migrate it "
			     "without --copy-storage",
			     e->vm.def.name);
	if (rc)
		return rc;
	s->told = json_pack("{s:o,s:b}", "disks", told_of(e, s->disks), "overwrite",
			    !strcmp(word, "overwrite"));
	e->s.storage = s->told;
	return 0;
}

void gw_storage_below(const struct gw_source_env *e, json_t *images)
{
	if (e->storage)
		gw_mirror_below(e->storage->disks, images);
}

/* The @i-th disk's way to the other side, and a job that goes it. */
static int begin(struct gw_source_env *e, unsigned int i)
{
	struct gw_storage *s = e->storage;
	struct gw_tunnel *n = &s->tunnels[i];
	int pair[2], rc;

	rc = gw_holder_connect(&e->s.holder, GW_OPEN_STORAGE, i, &n->t);
	if (rc)
		return rc;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair)) {
		rc = gw_fail(-errno, "socketpair: %s", strerror(errno));
		gw_transport_close(&n->t);
		return rc;
	}
	n->fd = pair[0];
	n->pace = &e->s.pace;
	n->limit = e->s.params.max_bandwidth;
	rc = gw_tunnel_start(n);
	if (!rc) {
		s->nr = i + 1;
		s->begun = true;
		gw_storage_within(e, gw_now() + GREET_NS);
		rc = gw_mirror_begin(e->qmp, s->disks, i, pair[1]);
		gw_storage_within(e, GW_FOREVER);
	}
	close(pair[1]);
	return rc;
}

static uint64_t moved(const struct gw_storage *s)
{
	uint64_t bytes = 0;

	for (unsigned int i = 0; i < s->nr; i++)
		bytes += s->tunnels[i].sent + s->tunnels[i].received;
	return bytes;
}

static int look(struct gw_source_env *e, struct gw_mirrors *m)
{
	const int rc = gw_mirror_look(e->qmp, e->storage->disks, m);

	if (rc)
		return rc;
	e->s.storage_total = e->storage->before + m->total;
	e->s.storage_done = e->storage->before + m->done;
	return 0;
}

/* Until a moment has passed, or somebody has something to say. */
static int wait_a_moment(struct gw_source_env *e)
{
	struct pollfd fds[2] = { { .fd = e->s.holder.control->poll_fd, .events = POLLIN },
				 { .fd = e->w->ctl, .events = POLLIN } };

	if (poll(fds, 2, LOOK_MS) > 0 && fds[0].revents)
		return gw_fail(-ECONNRESET, "the destination has ended it while disks were copied");
	return e->s.ops->cancelled(e);
}

/* Whether a copy gets nearer to its end, of which so much is left. */
struct pace_of_copy {
	int64_t began, moved_ns, better_ns; /* when; something has moved; it was nearer than ever */
	uint64_t moved, best;
	bool blocking;
};

static int too_fast(struct gw_source_env *e, struct pace_of_copy *p, const struct gw_mirrors *m)
{
	const double rate = (double)m->done * GW_S / (double)(gw_now() - p->began);

	/* Each write is its own copy then: the guest is slower, and the end is certain. */
	if (!p->blocking && !gw_mirror_block(e->qmp, e->storage->disks)) {
		gw_info("VM '%s' writes to its disks faster than they are copied: its writes wait for "
			"the other host from now on",
			e->vm.def.name);
		p->blocking = true;
		p->better_ns = gw_now();
		return 0;
	}
	return gw_fail(
		-ETIME,
		"the guest writes to its disks faster than they can be copied, at %.1f MiB/s, "
		"and %s: use more bandwidth, or a quieter moment",
		rate / 1048576,
		p->blocking ? "that its writes wait for the other host did not help"
			    : "its QEMU (before 8.2) cannot slow it down");
}

static int check_pace(struct gw_source_env *e, struct pace_of_copy *p, const struct gw_mirrors *m)
{
	const uint64_t left = m->total > m->done ? m->total - m->done : 0;
	const int64_t now = gw_now();
	/* How long a tenth of what is left should take. */
	const double tenth =
		m->done ? (double)(now - p->began) * (double)p->best / 10 / (double)m->done : 0;

	if (moved(e->storage) != p->moved)
		p->moved_ns = now;
	p->moved = moved(e->storage);
	if (now - p->moved_ns > STALL_NS)
		return gw_fail(-ETIMEDOUT,
			       "nothing of the VM's disks has been copied for %lld s: is the "
			       "destination's storage slow, or the network?",
			       STALL_NS / GW_S);
	if (!p->best || left < p->best - p->best / 10) {
		p->best = left;
		p->better_ns = now;
	}
	return (double)(now - p->better_ns) > (double)STALL_NS + 3 * tenth ? too_fast(e, p, m) : 0;
}

int gw_storage_copy(void *env)
{
	struct gw_source_env *e = env;
	struct gw_storage *s = e->storage;
	struct pace_of_copy p = { .began = gw_now(), .moved_ns = gw_now(), .better_ns = gw_now() };
	struct gw_mirrors m = { 0 };
	int rc = 0;

	for (unsigned int i = 0; !rc && i < json_array_size(s->disks); i++)
		rc = begin(e, i);
	while (!rc && !m.ready) {
		rc = look(e, &m);
		e->s.ops->report(e);
		if (!rc && !m.ready)
			rc = check_pace(e, &p, &m);
		if (!rc && !m.ready)
			rc = wait_a_moment(e);
	}
	return rc;
}

int gw_storage_left(void *env, uint64_t *bytes)
{
	struct gw_mirrors m;
	const int rc = look(env, &m);

	*bytes = rc || m.total < m.done ? 0 : m.total - m.done;
	return rc;
}

int gw_storage_settle(void *env, int64_t deadline)
{
	struct gw_source_env *e = env;
	const int64_t most = gw_now() + STALL_NS;
	int rc = gw_mirror_end(e->qmp, e->storage->disks, deadline < most ? deadline : most);

	if (rc)
		return rc;
	e->storage->before = e->s.storage_done = e->s.storage_total;
	return gw_mirror_again(e->qmp, e->storage->disks);
}

void gw_storage_stop(struct gw_source_env *e)
{
	struct gw_storage *s = e->storage;

	if (!s || !s->begun)
		return;
	/* Whatever QEMU waits for there does not come any more. */
	cut(s, true);
	s->begun = false;
	if (e->qmp && gw_mirror_forget(e->qmp))
		gw_warn("VM '%s': the copy of its disks is left in its QEMU: %s", e->vm.def.name,
			gw_error());
}
