// SPDX-License-Identifier: GPL-2.0-or-later
/* storage.c - a disk that is copied; see storage.h. */
#include <errno.h>
#include <jansson.h>
#include <string.h>

#include "clock.h"
#include "error.h"
#include "sim.h"
#include "storage.h"

#define DISK	(64U << 20)
#define COPY_NS (200 * GW_MS)
#define END_NS	GW_MS

static struct {
	struct rng rng;
	json_t *wanted;
	uint64_t written, there; /* bytes, since it was made */
	bool mirrored, sealed;
} storage;

void storage_init(void)
{
	memset(&storage, 0, sizeof(storage));
	storage.rng.state = sim.seed ^ 0x5708a6e;
	storage.written = DISK;
	if (sim.sc->copies)
		storage.wanted = json_pack("{s:[]}", "disks");
}

void storage_free(void)
{
	json_decref(storage.wanted);
	storage.wanted = NULL;
}

const void *storage_wanted(void)
{
	return storage.wanted;
}

static void write_some(void)
{
	storage.written += rng_below(&storage.rng, 64 << 10);
}

void storage_stops(void)
{
	write_some();
}

/* QEMU's jobs end with their other end. */
static int look(void)
{
	if (sim.dst.qemu == QEMU_ENDED || storage.sealed)
		return gw_fail(-EIO, "the copy has failed");
	if (sim.src.qemu == QEMU_RUNNING)
		write_some();
	return 0;
}

int storage_copy(void *env)
{
	int rc = sim_step(env, "storage_copy", STEP_FAILS);

	if (!rc)
		fiber_sleep_until(sim_now() + COPY_NS);
	if (((struct process *)env)->dead)
		return gw_fail(-ESHUTDOWN, "killed");
	rc = rc ?: look();
	if (rc)
		return rc;
	storage.mirrored = true;
	storage.there = storage.written;
	return 0;
}

int storage_left(void *env, uint64_t *bytes)
{
	int rc = sim_step(env, "storage_left", STEP_FAILS);

	rc = rc ?: look();
	if (rc)
		return rc;
	sim_check(storage.mirrored, "nothing is copied yet");
	storage.there += rng_below(&storage.rng, storage.written - storage.there + 1);
	*bytes = storage.written - storage.there;
	return 0;
}

int storage_settle(void *env, int64_t deadline)
{
	int rc = sim_step(env, "storage_settle", STEP_FAILS);

	rc = rc ?: look();
	if (rc)
		return rc;
	sim_check(sim.src.qemu != QEMU_RUNNING || source_disturbed(),
		  "a disk is settled that is written to");
	sim_check(!sim.src.saving, "QEMU has given its disks up already");
	if (deadline != GW_FOREVER && rng_one_in(&storage.rng, 8)) {
		if (deadline > sim_now())
			fiber_sleep_until(deadline);
		return gw_fail(-EAGAIN, "it is still being copied");
	}
	fiber_sleep_until(sim_now() + END_NS);
	if (((struct process *)env)->dead)
		return gw_fail(-ESHUTDOWN, "killed");
	if (sim.src.qemu != QEMU_RUNNING)
		storage.there = storage.written;
	return 0;
}

int storage_sealed(void *env)
{
	int rc = sim_step(env, "storage_sealed", STEP_FAILS | STEP_QEMU);

	if (!rc)
		storage.sealed = true;
	return rc;
}

void storage_check(void)
{
	if (!storage.wanted)
		return;
	sim_check(storage.sealed, "others can write to a running guest's disk");
	sim_check(storage.there == storage.written, "%llu bytes that the guest wrote are not there",
		  (unsigned long long)(storage.written - storage.there));
}
