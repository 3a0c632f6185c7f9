// SPDX-License-Identifier: GPL-2.0-or-later
/* worker_vm.c - workers that start, adopt and stop VMs. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "budget.h"
#include "cleanup.h"
#include "clock.h"
#include "error.h"
#include "io.h"
#include "live.h"
#include "log.h"
#include "qemu_log.h"
#include "registry_report.h"
#include "source.h"
#include "vm_folder.h"
#include "worker.h"

#define START_MS  60000
#define QUIT_MS	  10000
#define ENDING_MS 2000

/* Make the folder of a new VM, take its lock, claim its name. Return: the lock, or -errno. */
static int claim(struct gw_worker *w, const char *name)
{
	gw_autofd int lock = gw_vm_claim(w->paths, w->host, name);

	if (lock >= 0 && gw_report_claim(w, name)) {
		struct gw_definition def = { .nr_memory = 0 };
		gw_autofree char *why = strdup(gw_error());

		snprintf(def.name, sizeof(def.name), "%s", name);
		if (gw_vm_remove(w->paths, &def, true))
			gw_err("%s", gw_error());
		return gw_fail(-EEXIST, "%s", why);
	}
	return gw_steal_fd(&lock);
}

/* Learn what QEMU made of the VM: machine version, memory map. */
static int inspect(struct gw_worker *w, struct gw_vm *vm, struct gw_qmp *qmp)
{
	struct gw_guest_facts facts;
	struct gw_ram ram;
	int rc = gw_attach(qmp, vm->process.pid, &ram, &facts);

	if (rc)
		return rc;
	snprintf(vm->def.machine, sizeof(vm->def.machine), "%s", facts.machine);
	if (!vm->attached && facts.discards && !vm->def.discards)
		gw_warn("VM '%s' can give memory back, but its RAM file has huge pages: a balloon "
			"device belongs on the command line",
			vm->def.name);
	gw_vm_describe(vm, &ram);
	gw_ram_close(&ram);
	return gw_vm_save(w->paths, vm);
}

static int start(struct gw_worker *w, struct gw_vm *vm)
{
	gw_autofree char *dir = gw_vm_dir(w->paths, vm->def.name);
	char *ram_paths[GW_MEMORY_BLOCKS_MAX] = { NULL };
	struct gw_qmp *qmp = NULL;
	struct gw_ram ram = { 0 };
	int rc;

	vm->qmp = gw_vm_qmp_path(dir);
	rc = gw_budget_reserve(w->paths, w->host, vm, 0);
	if (!rc) {
		/* What a former VM of this name left is of no use to this one. */
		if (gw_image_drop(&w->paths->store, vm->def.name))
			gw_warn("%s", gw_error());
		gw_budget_make_room(w->paths, gw_now() + GW_BUDGET_DEMOTE_S * GW_S);
		rc = gw_vm_make_ram(w->paths, &vm->def, false, &ram);
		gw_ram_close(&ram);
	}
	for (unsigned int i = 0; i < vm->def.nr_memory; i++)
		ram_paths[i] = gw_vm_ram_path(w->paths, &vm->def, i);
	if (!rc)
		rc = gw_launch(&vm->def, dir, ram_paths, false, &vm->process);
	for (unsigned int i = 0; i < GW_MEMORY_BLOCKS_MAX; i++)
		free(ram_paths[i]);
	if (rc)
		return rc;
	rc = gw_vm_save(w->paths, vm);
	if (!rc) {
		qmp = gw_qmp_open(vm->qmp, gw_now() + START_MS * GW_MS);
		rc = qmp ? inspect(w, vm, qmp) : -EPIPE;
	}
	gw_qmp_close(qmp);
	/* It closes its monitor a moment before it ends. */
	if (rc && gw_process_ended(&vm->process, rc == -EPIPE ? ENDING_MS : 0)) {
		gw_autofree char *said = gw_qemu_said(w->paths, w->host, vm->def.name);

		rc = gw_fail(-ECHILD, "QEMU ended at once. %s", said);
	}
	return rc;
}

int gw_worker_run_vm(struct gw_worker *w, const json_t *args, json_t **result)
{
	const char *name = json_string_value(json_object_get(args, "name"));
	const char *cwd = json_string_value(json_object_get(args, "cwd"));
	struct gw_vm vm = { 0 };
	gw_autofd int lock = -1;
	int rc = gw_definition_run(&vm.def, name,
				   (uint64_t)json_integer_value(json_object_get(args, "memory")),
				   json_object_get(args, "argv"), cwd ? cwd : "/");

	if (!rc) {
		lock = claim(w, name);
		rc = lock < 0 ? lock : 0;
	}
	if (!rc) {
		rc = start(w, &vm);
		if (rc) {
			gw_autofree char *why = strdup(gw_error());

			gw_process_kill(&vm.process);
			if (gw_vm_remove(w->paths, &vm.def, false))
				gw_err("removing VM '%s' again: %s", name, gw_error());
			gw_report_release(w, name);
			gw_fail(rc, "%s", why);
		}
	}
	if (!rc)
		*result = json_pack("{s:s,s:i,s:s}", "name", name, "pid", (int)vm.process.pid,
				    "machine", vm.def.machine);
	gw_vm_free(&vm);
	return rc;
}

/* Adopt the QEMU behind a monitor socket. */
static int adopt(struct gw_worker *w, struct gw_vm *vm, const char *name)
{
	struct gw_qmp *qmp = gw_qmp_open(vm->qmp, gw_now() + GW_QMP_TIMEOUT_MS * GW_MS);
	struct gw_guest_facts facts;
	struct gw_ram ram = { 0 };
	pid_t pid = 0;
	int rc;

	if (!qmp)
		return -EPIPE;
	rc = gw_qmp_pid(qmp, &pid);
	if (!rc)
		rc = gw_qmp_check(qmp, pid);
	if (!rc)
		rc = gw_process_identify(pid, &vm->process);
	if (!rc)
		rc = gw_attach(qmp, pid, &ram, &facts);
	if (!rc)
		rc = gw_live_refuse_temporary(qmp, pid);
	if (!rc)
		rc = gw_definition_attach(&vm->def, name, pid, vm->qmp, &ram.memory, &facts);
	if (!rc) {
		gw_vm_describe(vm, &ram);
		rc = gw_vm_save(w->paths, vm);
	}
	gw_ram_close(&ram);
	gw_qmp_close(qmp);
	return rc;
}

int gw_worker_attach(struct gw_worker *w, const json_t *args, json_t **result)
{
	const char *name = json_string_value(json_object_get(args, "name"));
	const char *qmp = json_string_value(json_object_get(args, "qmp"));
	struct gw_vm vm = { .attached = true };
	gw_autofd int lock = -1;
	int rc;

	if (!gw_name_ok(name))
		return -EINVAL;
	if (!qmp)
		return gw_fail(-EINVAL, "which QEMU? give its monitor with --qmp SOCKET");
	vm.qmp = strdup(qmp);
	lock = claim(w, name);
	rc = lock < 0 ? lock : adopt(w, &vm, name);
	if (rc && lock >= 0) {
		gw_autofree char *dir = gw_vm_dir(w->paths, name);
		gw_autofree char *why = strdup(gw_error());

		if (gw_remove_tree(dir))
			gw_err("%s", gw_error());
		gw_report_release(w, name);
		gw_fail(rc, "%s", why);
	}
	if (!rc)
		*result = json_pack("{s:s,s:i,s:s}", "name", name, "pid", (int)vm.process.pid,
				    "machine", vm.def.machine);
	gw_vm_free(&vm);
	return rc;
}

int gw_worker_stop_vm(struct gw_worker *w, const json_t *args, json_t **result)
{
	const char *name = json_string_value(json_object_get(args, "name"));
	struct pollfd pfd = { .events = POLLIN };
	struct gw_qmp *qmp;
	struct gw_vm vm;
	gw_autofd int lock = -1, qemu = -1;
	bool ended = true;
	int rc;

	if (!gw_name_ok(name))
		return -EINVAL;
	rc = gw_vm_load(w->paths, name, &vm);
	if (rc == -ENOENT)
		return gw_fail(rc, "no VM '%s' on this host; see godwit list", name);
	if (rc)
		return rc;
	lock = gw_vm_lock(w->paths, name);
	if (lock < 0) {
		gw_vm_free(&vm);
		return lock;
	}
	qemu = gw_process_open(&vm.process);
	pfd.fd = qemu;
	if (qemu >= 0) {
		qmp = gw_qmp_open(vm.qmp, gw_now() + 2 * GW_S);
		if (!qmp || gw_qmp_check(qmp, vm.process.pid) ||
		    gw_qmp_call(qmp, "quit", NULL, NULL) || poll(&pfd, 1, QUIT_MS) <= 0)
			ended = gw_process_end(&vm.process, QUIT_MS);
		gw_qmp_close(qmp);
	}
	/* What it has open it may still write to; godwitd removes the rest when it has ended. */
	if (!ended)
		rc = gw_fail(-EBUSY,
			     "QEMU (process %d) is killed, but waits in the kernel, for storage "
			     "that does not answer as a rule; the guest never runs again, and the "
			     "name is free when the process has ended",
			     (int)vm.process.pid);
	else
		rc = gw_vm_remove(w->paths, &vm.def, vm.attached);
	if (!rc)
		gw_report_release(w, name);
	if (!rc)
		*result = json_pack("{s:s}", "name", name);
	gw_vm_free(&vm);
	return rc;
}
