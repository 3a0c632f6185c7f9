/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * define.h - a VM's definition: what its QEMU is started with, on any host.
 *
 * It travels with the VM as JSON:
 *   {"name":"web1","argv":["qemu-system-x86_64",...],"cwd":"/root",
 *    "machine":"pc-q35-7.2","managed":true,"discards":false,
 *    "memory":[{"id":"godwit-ram","size":2147483648}]}
 *
 * `argv` is the user's. Where `managed` (godwit run), Godwit adds -m and
 * -machine memory-backend=; where not (godwit attach), they are in argv
 * already and only the memory backends themselves were taken out. {dir}
 * stands for the VM's run directory on the host where it runs.
 */
#ifndef GW_DEFINE_H
#define GW_DEFINE_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "attach.h"
#include "memory.h"

#define GW_NAME_MAX 64

/* QEMU rounds -m up to a multiple of this, and then its size is not the RAM file's. */
#define GW_RAM_GRAIN 8192

struct gw_definition {
	char name[GW_NAME_MAX];
	json_t *argv; /* array of strings */
	char *cwd;
	char machine[64]; /* versioned machine type, empty until known */
	bool managed;
	bool discards; /* the guest may give memory back piecemeal: small pages only */
	struct {
		char id[GW_MEMORY_ID_MAX];
		uint64_t size;
	} memory[GW_MEMORY_BLOCKS_MAX];
	unsigned int nr_memory;
	bool flat; /* its RAM files have the names of before (vm/ram.h); not part of the JSON */
};

/**
 * gw_definition_run() - the definition for `godwit run`.
 * @argv: the user's; his memory backends become RAM files of Godwit's
 *
 * Return: 0; -EINVAL with what Godwit cannot allow there; -ENOTSUP with what
 * could never be moved.
 */
int gw_definition_run(struct gw_definition *def, const char *name, uint64_t memory, json_t *argv,
		      const char *cwd);

/**
 * gw_definition_attach() - the definition of a running QEMU, from its command line.
 * @qmp_path: the monitor that it was attached by; becomes {dir}/user.qmp elsewhere
 */
int gw_definition_attach(struct gw_definition *def, const char *name, pid_t pid,
			 const char *qmp_path, const struct gw_memory *memory,
			 const struct gw_guest_facts *facts);

/** gw_definition_parse() - check and read the JSON form, also a peer's (invariant 10). */
int gw_definition_parse(struct gw_definition *def, const json_t *json);

/** gw_definition_bytes() - of all its memory. */
uint64_t gw_definition_bytes(const struct gw_definition *def);

/** gw_definition_json() - the JSON form, owned by the caller. */
json_t *gw_definition_json(const struct gw_definition *def);

void gw_definition_free(struct gw_definition *def);

/** gw_name_ok() - whether @name can name a VM. Records a message if not. */
bool gw_name_ok(const char *name);

/**
 * gw_definition_command() - the command line for this host.
 * @dir: the VM's run directory
 * @ram_paths: a RAM file's path for each memory backend
 * @qmp_fd: number of the listening monitor socket in the new process
 * @incoming: wait for a migration
 *
 * Return: NULL-terminated argv, each string and the array owned by the caller
 * (gw_strings_free()).
 */
char **gw_definition_command(const struct gw_definition *def, const char *dir,
			     char *const ram_paths[], int qmp_fd, bool incoming);

/** gw_strings_free() - free a NULL-terminated array of strings. */
void gw_strings_free(char **strings);

#endif
