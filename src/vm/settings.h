/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * settings.h - the migration capabilities and parameters of a QEMU, as Godwit
 * needs them and as it found them.
 *
 * They outlive a migration, and whoever else uses this QEMU goes by them: with
 * x-ignore-shared left on, `savevm` saves no memory. So they are Godwit's only
 * while device state travels, and what was there is put back on every way out
 * (invariant 14).
 *
 * Rules: first gw_settings_find(), whose answer is written into the journal;
 * then gw_settings_apply(); gw_settings_restore() may be called by whoever
 * finds that journal, any number of times, whatever became of the migration.
 */
#ifndef GW_SETTINGS_H
#define GW_SETTINGS_H

#include <jansson.h>

#include "qmp.h"

/** GW_SETTINGS_MAX - bytes of the text form at most, with its NUL. */
#define GW_SETTINGS_MAX 2048

/**
 * gw_settings_find() - what this QEMU has that device state could not travel with.
 * @on: NULL-terminated names of the capabilities that are needed; all others are to be off
 * @found: set to {"capabilities":{NAME:bool},"parameters":{NAME:value}}, only what must
 *   change, each as it is now; owned by the caller
 *
 * Changes nothing. Return: 0; -ENOTSUP if QEMU lacks one of @on; -errno.
 */
int gw_settings_find(struct gw_qmp *q, const char *const on[], json_t **found);

/** gw_settings_apply() - change what @found lists to what Godwit needs. */
int gw_settings_apply(struct gw_qmp *q, const json_t *found);

/**
 * gw_settings_restore() - put back what @found says (NULL: nothing).
 *
 * QEMU refuses it while a migration of its own is under way: end that first.
 */
int gw_settings_restore(struct gw_qmp *q, const json_t *found);

/**
 * gw_settings_put_back() - the same for a move that ends: what fails is logged.
 * @found: *@found is freed, and NULL afterwards
 * @name: of the VM, for the log
 */
void gw_settings_put_back(struct gw_qmp *q, json_t **found, const char *name);

/** gw_settings_format() - @found as text for a journal; -E2BIG if that has no room for it. */
int gw_settings_format(const json_t *found, char text[GW_SETTINGS_MAX]);

/** gw_settings_parse() - the reverse; NULL for none, and for what is none. Owned by the caller. */
json_t *gw_settings_parse(const char *text);

#endif
