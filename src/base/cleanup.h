/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * cleanup.h - scope-bound release of memory, descriptors and locks.
 *
 * Rules: a variable declared with one of these owns what it holds; hand it on
 * with gw_steal(). `goto undo` is only for reversing visible effects.
 */
#ifndef GW_CLEANUP_H
#define GW_CLEANUP_H

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static inline void gw_cleanup_free(void *p)
{
	free(*(void **)p);
}

static inline void gw_cleanup_fd(const int *fd)
{
	if (*fd >= 0)
		close(*fd);
}

static inline void gw_cleanup_file(FILE **f)
{
	if (*f)
		fclose(*f);
}

static inline void gw_cleanup_unlock(pthread_mutex_t **lock)
{
	pthread_mutex_unlock(*lock);
}

static inline pthread_mutex_t *gw_lock_taken(pthread_mutex_t *lock)
{
	pthread_mutex_lock(lock);
	return lock;
}

/** gw_autofree - a heap pointer, freed when the scope ends. */
#define gw_autofree __attribute__((cleanup(gw_cleanup_free)))

/** gw_autofd - a descriptor, closed when the scope ends if it is >= 0. */
#define gw_autofd __attribute__((cleanup(gw_cleanup_fd)))

/** gw_autofile - a stdio stream, closed when the scope ends. */
#define gw_autofile __attribute__((cleanup(gw_cleanup_file)))

/** gw_locked - hold @lock until the scope ends. */
/* A declaration cannot be in parentheses. NOLINTBEGIN(bugprone-macro-parentheses) */
#define gw_locked(lock)                                     \
	__attribute__((cleanup(gw_cleanup_unlock), unused)) \
	pthread_mutex_t *gw_lock_held_ = gw_lock_taken(lock)
/* NOLINTEND(bugprone-macro-parentheses) */

/** gw_steal_fd - take a descriptor out of a gw_autofd variable. */
static inline int gw_steal_fd(int *fd)
{
	int taken = *fd;

	*fd = -1;
	return taken;
}

/** gw_steal - take the pointer out of a gw_autofree variable. */
#define gw_steal(p)                         \
	({                                  \
		__typeof__(p) taken_ = (p); \
		(p) = NULL;                 \
		taken_;                     \
	})

#define GW_ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

#endif
