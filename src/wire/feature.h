/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * feature.h - what one release may ask of the other, by name; the one place
 * that names it.
 *
 * From version 2 on DEFINE and READY carry two lists each: `features`, what a
 * host can do beyond what its version says, and `stages`, the page records that
 * it can read (page/stage.h). A peer that lacks a stage is never sent one, a
 * peer that lacks a feature is never asked for it. So what is new needs a name
 * here, or a stage, and no new version.
 *
 * Rules: a name that is not known says nothing and is no error, since it is the
 * other side's business to do without. A peer of version 1 tells none: it has no
 * features, and the stages of that version.
 */
#ifndef GW_FEATURE_H
#define GW_FEATURE_H

#include <jansson.h>
#include <stdint.h>

/* A bit each; their names are in feature.c and in godwit-wire(5). */
enum gw_feature {
	GW_FEATURE_KEYED,  /* digests are keyed with the VM's secret (invariant 15) */
	GW_FEATURE_RUN,	   /* COMMIT says whether the guest is to run, not DEFINE */
	GW_FEATURE_DISKS,  /* SAMPLE asks for digests of blocks of the disks */
	GW_FEATURE_LATER,  /* a kept image is compared during the rounds: COMPARE asks how far */
	GW_FEATURE_VERIFY, /* both sides verify at a time, and the destination says how far it is */
	GW_FEATURE_AGAIN,  /* a switchover is taken back by RESUMED, until LOAD */
	GW_FEATURE_POSTCOPY,   /* its memory may follow a guest that runs (decision 28) */
	GW_FEATURE_RETURN,     /* and what is kept of it is compared as the guest runs (29) */
	GW_FEATURE_SPLIT,      /* a part of its memory goes to sub-hosts (32) */
	GW_FEATURE_CARRIED,    /* a VM that is split already moves, and its sub-hosts do not (32) */
	GW_FEATURE_STORAGE,    /* its disks are copied with it (35) */
	GW_FEATURE_DISK_MAP,   /* replicas of its disks are read instead of pages (34) */
	GW_FEATURE_PUSH_DISKS, /* of the pages that follow a guest some are read from disks (34) */
	GW_FEATURE_COUNT,
};

#define GW_FEATURES_ALL ((1U << GW_FEATURE_COUNT) - 1)

/** gw_feature_name() - its name on the wire, or NULL. */
const char *gw_feature_name(unsigned int feature);

/** gw_features_json() - all that this release has, as it travels; the caller's, NULL: no memory. */
json_t *gw_features_json(void);

/**
 * gw_names_json() - a list of names, as it travels.
 * @set: a bit for each number that is in it
 * @count: numbers that there are, at most 32
 * @name: of a number; NULL: it has none
 *
 * Return: owned by the caller; NULL if there is no memory.
 */
json_t *gw_names_json(uint32_t set, unsigned int count, const char *(*name)(unsigned int number));

/**
 * gw_names_parse() - the reverse; trusts nothing (invariant 10).
 * @list: NULL: an empty one
 * @set: bits of the names that are known here
 *
 * Return: 0, or -EPROTO with a message if it is no list of names.
 */
int gw_names_parse(const json_t *list, unsigned int count, const char *(*name)(unsigned int number),
		   uint32_t *set);

#endif
