// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * fiber.c - fibers on ucontext and their schedule; see fiber.h.
 *
 * Stacks have a guard page below and are used again by later fibers: a sweep
 * makes some hundred thousand of them.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

#include "error.h"
#include "fiber.h"
#include "rng.h"

#if defined(__SANITIZE_ADDRESS__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SANITIZED 1
#endif
#endif

#ifdef SANITIZED
#include <sanitizer/common_interface_defs.h>
#else
#define __sanitizer_start_switch_fiber(save, bottom, size) \
	do {                                               \
		(void)(save);                              \
		(void)(bottom);                            \
	} while (0)
#define __sanitizer_finish_switch_fiber(save, bottom, size) (void)(save)
#endif

#define FIBERS_MAX 128
#define STACK_SIZE (512UL << 10)
#define GUARD_SIZE 4096UL

/* What a turn costs, so that time moves even where nothing waits. */
#define TURN_NS 2000

struct fiber {
	struct process *process;
	char name[32];
	void (*fn)(void *arg, unsigned int i);
	void *arg;
	unsigned int i;
	ucontext_t context;
	uint8_t *stack;
	void *fake_stack;
	fiber_ready ready; /* NULL: runnable, or waiting for the deadline alone */
	void *ready_arg;
	int64_t deadline; /* INT64_MIN: runnable */
	uint64_t last_turn;
	bool ended;
	char error[GW_ERROR_MAX];
};

static struct {
	struct fiber *fibers[FIBERS_MAX];
	unsigned int n;
	struct fiber *running;
	ucontext_t scheduler;
	void *fake_stack;
	const void *stack_bottom;
	size_t stack_size;
	struct rng rng;
	bool ordered;
	int64_t now;
	uint64_t turns;
	uint8_t *free_stacks[FIBERS_MAX];
	unsigned int nr_free;
} sched;

int64_t sim_now(void)
{
	return sched.now;
}

int __wrap_pthread_mutex_lock(pthread_mutex_t *lock);

static bool is_free(void *arg, int64_t *when)
{
	pthread_mutex_t *lock = arg;

	(void)when;
	return !pthread_mutex_trylock(lock) && !pthread_mutex_unlock(lock);
}

/* A fiber that holds a lock may wait for the network: whoever wants it waits for that one. */
int __wrap_pthread_mutex_lock(pthread_mutex_t *lock)
{
	while (pthread_mutex_trylock(lock)) {
		if (!sched.running)
			abort();
		fiber_wait(is_free, lock, INT64_MAX);
	}
	return 0;
}

static uint8_t *take_stack(void)
{
	uint8_t *stack;

	if (sched.nr_free)
		return sched.free_stacks[--sched.nr_free];
	stack = mmap(NULL, GUARD_SIZE + STACK_SIZE, PROT_READ | PROT_WRITE,
		     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
	if (stack == MAP_FAILED || mprotect(stack, GUARD_SIZE, PROT_NONE))
		abort();
	return stack;
}

void fibers_init(uint64_t seed)
{
	sched.n = 0;
	sched.now = 0;
	sched.turns = 0;
	sched.rng.state = seed;
	sched.ordered = seed == 0;
}

/* Back to the scheduler, until it is our turn again. */
static void leave(void)
{
	struct fiber *f = sched.running;

	snprintf(f->error, sizeof(f->error), "%s", gw_error());
	__sanitizer_start_switch_fiber(f->ended ? NULL : &f->fake_stack, sched.stack_bottom,
				       sched.stack_size);
	swapcontext(&f->context, &sched.scheduler);
	__sanitizer_finish_switch_fiber(f->fake_stack, &sched.stack_bottom, &sched.stack_size);
	gw_fail(0, "%s", f->error);
}

static void begin(void)
{
	struct fiber *f = sched.running;

	__sanitizer_finish_switch_fiber(NULL, &sched.stack_bottom, &sched.stack_size);
	gw_error_clear();
	f->fn(f->arg, f->i);
	f->ended = true;
	leave();
	abort(); /* an ended fiber has no turn */
}

void fiber_new(struct process *process, const char *name, void (*fn)(void *arg, unsigned int i),
	       void *arg, unsigned int i)
{
	struct fiber *f = calloc(1, sizeof(*f));

	if (!f || sched.n == FIBERS_MAX)
		abort();
	snprintf(f->name, sizeof(f->name), "%s", name);
	f->process = process;
	f->fn = fn;
	f->arg = arg;
	f->i = i;
	f->deadline = INT64_MIN;
	f->stack = take_stack();
	getcontext(&f->context);
	f->context.uc_stack.ss_sp = f->stack + GUARD_SIZE;
	f->context.uc_stack.ss_size = STACK_SIZE;
	f->context.uc_link = NULL;
	makecontext(&f->context, begin, 0);
	sched.fibers[sched.n++] = f;
}

static void turn(struct fiber *f)
{
	sched.running = f;
	f->last_turn = ++sched.turns;
	__sanitizer_start_switch_fiber(&sched.fake_stack, f->stack + GUARD_SIZE, STACK_SIZE);
	swapcontext(&sched.scheduler, &f->context);
	__sanitizer_finish_switch_fiber(sched.fake_stack, NULL, NULL);
	sched.running = NULL;
}

/* Whether @f can go on; if only time is missing, until when. */
static bool can_run(struct fiber *f, int64_t *when)
{
	if (f->process->stopped_until > sched.now) {
		if (f->process->stopped_until < *when)
			*when = f->process->stopped_until;
		return false;
	}
	if (f->deadline <= sched.now)
		return true;
	if (f->deadline < *when)
		*when = f->deadline;
	return f->ready && f->ready(f->ready_arg, when);
}

/* The fiber whose turn it is; NULL and the next moment if none can go on now. */
static struct fiber *choose(int64_t *when)
{
	struct fiber *ready[FIBERS_MAX], *oldest;
	unsigned int n = 0;

	*when = INT64_MAX;
	for (unsigned int k = 0; k < sched.n; k++)
		if (can_run(sched.fibers[k], when))
			ready[n++] = sched.fibers[k];
	if (!n)
		return NULL;
	if (!sched.ordered)
		return ready[rng_below(&sched.rng, n)];
	oldest = ready[0];
	for (unsigned int k = 1; k < n; k++)
		if (ready[k]->last_turn < oldest->last_turn)
			oldest = ready[k];
	return oldest;
}

static void reap(struct fiber *f)
{
	for (unsigned int k = 0; k < sched.n; k++)
		if (sched.fibers[k] == f)
			sched.fibers[k] = sched.fibers[--sched.n];
	sched.free_stacks[sched.nr_free++] = f->stack;
	free(f);
}

bool fibers_run(void (*tick)(void *arg), void *arg)
{
	while (sched.n) {
		int64_t when;
		struct fiber *f = choose(&when);

		if (!f && when == INT64_MAX)
			return false;
		if (!f) {
			sched.now = when > sched.now ? when : sched.now + 1;
			continue;
		}
		sched.now += TURN_NS;
		tick(arg);
		turn(f);
		if (f->ended)
			reap(f);
	}
	return true;
}

void fibers_dump(void)
{
	for (unsigned int k = 0; k < sched.n; k++)
		fprintf(stderr, "  %s of %s%s waits%s\n", sched.fibers[k]->name,
			sched.fibers[k]->process->name,
			sched.fibers[k]->process->dead ? " (dead)" : "",
			sched.fibers[k]->deadline == INT64_MAX ? " for ever" : "");
}

void fiber_yield(void)
{
	sched.running->ready = NULL;
	sched.running->deadline = INT64_MIN;
	leave();
}

bool fiber_wait(fiber_ready ready, void *arg, int64_t deadline)
{
	int64_t when;

	sched.running->ready = ready;
	sched.running->ready_arg = arg;
	sched.running->deadline = deadline;
	leave();
	return ready(arg, &when);
}

void fiber_sleep_until(int64_t when)
{
	sched.running->ready = NULL;
	sched.running->deadline = when;
	leave();
}
