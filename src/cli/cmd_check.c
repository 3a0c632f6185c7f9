// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * cmd_check.c - check: what this host's kernel and QEMU offer, in words.
 *
 * Rules: nothing is concluded from a version number that can be tried instead
 * (probe/probe.h); nothing is left behind; no daemon is needed. "possible" means
 * that a VM can be migrated from and to this host, whatever else is missing.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cleanup.h"
#include "cli.h"
#include "error.h"
#include "io.h"
#include "probe.h"
#include "run.h"

#define HUGE_PAGE (2UL << 20)

static const char help[] =
	"usage: godwit check [--qemu BINARY] [--json]\n"
	"       godwit check NAME [--json]\n"
	"\n"
	"Tell what this host's kernel and QEMU offer, and what to do where something is missing.\n"
	"Needs no godwitd. The exit status is 0 if a migration is possible on this host.\n"
	"\n"
	"With NAME: which disks of that VM can be read when it moves, instead of its page cache, and\n"
	"whether its guest tells of that.\n"
	"\n"
	"  --qemu BINARY  the QEMU to ask (default: qemu-system-x86_64)\n"
	"  --json         print the result as JSON\n";

struct check {
	struct utsname kernel;
	const char *qemu; /* binary */
	char qemu_version[64];
	bool qemu_ok, kvm, swap, possible, huge, nbd;
	char qemu_why[256], kvm_why[256], huge_why[256];
	int userfaultfd_sysctl, ptrace_scope; /* -1: this kernel has none */
	const char *tracker;		      /* or NULL */
	struct {
		int rc;
		char why[GW_ERROR_MAX];
	} facts[16];
};

static void check_qemu(struct check *c)
{
	char binary[4096], text[4096];
	char *const argv[] = { binary, "--version", NULL };
	int major, minor, rc;

	snprintf(binary, sizeof(binary), "%s", c->qemu);
	rc = gw_run(argv, false, text, sizeof(text));
	if (rc < 0) {
		snprintf(c->qemu_why, sizeof(c->qemu_why),
			 "%s; install QEMU 7.2 or newer, or name it with --qemu", gw_error());
	} else if (rc || sscanf(text, "QEMU emulator version %63[^ \n]", c->qemu_version) != 1 ||
		   sscanf(c->qemu_version, "%d.%d", &major, &minor) != 2) {
		snprintf(c->qemu_why, sizeof(c->qemu_why), "%.200s is no QEMU; name it with --qemu",
			 c->qemu);
		c->qemu_version[0] = '\0';
	} else if (major < 7 || (major == 7 && minor < 2)) {
		snprintf(c->qemu_why, sizeof(c->qemu_why), "install QEMU 7.2 or newer");
	} else {
		c->qemu_ok = true;
	}
}

/* What reads disks of other formats than raw, to compare them; godwitd prefers one beside QEMU. */
static void check_nbd(struct check *c)
{
	char *const argv[] = { (char *)"qemu-nbd", (char *)"--version", NULL };
	char text[4096];

	c->nbd = !gw_run(argv, false, text, sizeof(text));
}

static void check_kvm(struct check *c)
{
	gw_autofd int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);

	c->kvm = fd >= 0 && ioctl(fd, KVM_GET_API_VERSION, 0) == KVM_API_VERSION;
	if (!c->kvm)
		snprintf(c->kvm_why, sizeof(c->kvm_why), "/dev/kvm: %s; VMs run under TCG, slowly",
			 fd < 0 ? strerror(errno) : "of an unknown kind");
}

/* A number in a file of /proc/sys, or -1. */
static int sysctl_number(const char *path)
{
	gw_autofree char *text = gw_read_file(path, 64, NULL);

	return text ? atoi(text) : -1;
}

/* /proc/swaps is a heading and a line for each swap area. */
static bool host_has_swap(void)
{
	gw_autofree char *text = gw_read_file("/proc/swaps", 1 << 20, NULL);
	const char *newline = text ? strchr(text, '\n') : NULL;

	return newline && newline[1];
}

/* A tmpfs of our own, mounted nowhere: it is gone with its last descriptor. */
static int open_huge_tmpfs(void)
{
	gw_autofd int fs = fsopen("tmpfs", FSOPEN_CLOEXEC);

	if (fs < 0 || fsconfig(fs, FSCONFIG_SET_STRING, "huge", "within_size", 0) ||
	    fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0))
		return -1;
	return fsmount(fs, FSMOUNT_CLOEXEC, 0);
}

/* How many bytes of the mapping that begins at @at are huge pages of a file. */
static unsigned long huge_bytes(const void *at)
{
	gw_autofile FILE *f = fopen("/proc/self/smaps", "re");
	bool ours = false;
	char line[512];
	unsigned long start, end, kib;

	while (f && fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%lx-%lx ", &start, &end) == 2)
			ours = start == (uintptr_t)at;
		else if (ours && sscanf(line, "ShmemPmdMapped: %lu", &kib) == 1)
			return kib << 10;
	}
	return 0;
}

static void check_huge(struct check *c)
{
	gw_autofd int mount = open_huge_tmpfs(), fd = -1;
	uint8_t *at;

	if (mount < 0) {
		snprintf(c->huge_why, sizeof(c->huge_why), "tmpfs with huge=within_size: %s",
			 strerror(errno));
		return;
	}
	fd = openat(mount, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	if (fd < 0 || ftruncate(fd, 2 * HUGE_PAGE)) {
		snprintf(c->huge_why, sizeof(c->huge_why), "file in tmpfs: %s", strerror(errno));
		return;
	}
	at = mmap(NULL, 2 * HUGE_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (at == MAP_FAILED) {
		snprintf(c->huge_why, sizeof(c->huge_why), "mmap: %s", strerror(errno));
		return;
	}
	at[0] = at[HUGE_PAGE] = 1;
	c->huge = huge_bytes(at) > 0;
	if (!c->huge)
		snprintf(c->huge_why, sizeof(c->huge_why),
			 "the kernel gave small pages (no huge one free, or "
			 "/sys/kernel/mm/transparent_hugepage/shmem_enabled is 'deny')");
	munmap(at, 2 * HUGE_PAGE);
}

static int rc_of(const struct check *c, const char *fact)
{
	const struct gw_probe *p = gw_probe_find(fact);

	return p ? c->facts[p - gw_probes].rc : -ENOENT;
}

static void check_facts(struct check *c)
{
	for (size_t i = 0; i < gw_nr_probes && i < GW_ARRAY_SIZE(c->facts); i++) {
		const struct gw_probe *p = &gw_probes[i];

		c->facts[i].rc = p->needs ? rc_of(c, p->needs) : 0;
		if (c->facts[i].rc)
			gw_fail(0, "it stands on %s", p->needs);
		else
			c->facts[i].rc = p->run(-1);
		if (c->facts[i].rc)
			snprintf(c->facts[i].why, sizeof(c->facts[i].why), "%s", gw_error());
	}
	/* As a migration chooses: what misbehaves or is forbidden is not worked around. */
	if (!rc_of(c, "F2"))
		c->tracker = "write-protect";
	else if (rc_of(c, "F2") == -ENOTSUP && !rc_of(c, "F4"))
		c->tracker = "soft-dirty";
}

static json_t *optional(bool present, json_t *value)
{
	if (present)
		return value;
	json_decref(value);
	return json_null();
}

static json_t *to_json(const struct check *c)
{
	json_t *facts = json_object();

	for (size_t i = 0; i < gw_nr_probes; i++) {
		const struct gw_probe *p = &gw_probes[i];
		bool ok = !c->facts[i].rc;

		json_object_set_new(facts, p->key,
				    json_pack("{s:s,s:s,s:s,s:s,s:o,s:o}", "fact", p->fact, "title",
					      p->title, "needed-for", p->needed_for, "verdict",
					      gw_probe_verdict(c->facts[i].rc), "error-desc",
					      optional(!ok, json_string(c->facts[i].why)), "remedy",
					      optional(!ok, json_string(p->remedy))));
	}
	return json_pack(
		"{s:b,s:s,s:o,s:{s:s,s:o,s:b,s:o},s:b,s:{s:b,s:o},s:{s:b,s:o},s:b,s:o,s:o,s:o}",
		"possible", c->possible, "kernel", c->kernel.release, "tracker",
		optional(c->tracker, json_string(c->tracker ? c->tracker : "")), "qemu", "binary",
		c->qemu, "version", optional(c->qemu_version[0], json_string(c->qemu_version)),
		"ok", c->qemu_ok, "error-desc", optional(!c->qemu_ok, json_string(c->qemu_why)),
		"qemu-nbd", c->nbd, "kvm", "ok", c->kvm, "error-desc",
		optional(!c->kvm, json_string(c->kvm_why)), "huge-pages", "ok", c->huge,
		"error-desc", optional(!c->huge, json_string(c->huge_why)), "swap", c->swap,
		"unprivileged-userfaultfd",
		optional(c->userfaultfd_sysctl >= 0, json_integer(c->userfaultfd_sysctl)),
		"ptrace-scope", optional(c->ptrace_scope >= 0, json_integer(c->ptrace_scope)),
		"facts", facts);
}

static void print_facts(const struct check *c)
{
	for (size_t i = 0; i < gw_nr_probes; i++) {
		const struct gw_probe *p = &gw_probes[i];
		const char *why = c->facts[i].why;
		const char *verdict = gw_probe_verdict(c->facts[i].rc);

		if (!c->facts[i].rc)
			printf("  %-9s  %s %s\n", verdict, p->fact, p->title);
		else if (!strcmp(p->fact, "F4") && !rc_of(c, "F2"))
			printf("  %-9s  %s %s; not needed where F2 is ok\n", verdict, p->fact,
			       p->title);
		else if (p->needs && rc_of(c, p->needs))
			printf("  %-9s  %s %s: %s\n", verdict, p->fact, p->title, why);
		else
			printf("  %-9s  %s %s: %s. Needed for %s. What to do: %s\n", verdict,
			       p->fact, p->title, why, p->needed_for, p->remedy);
	}
}

static void print_text(const struct check *c)
{
	printf("kernel       %s\n", c->kernel.release);
	printf("QEMU         %s%s%s\n", c->qemu_version,
	       c->qemu_version[0] && c->qemu_why[0] ? ": " : "", c->qemu_why);
	printf("qemu-nbd     %s\n",
	       c->nbd ? "present"
		      : "missing: disks that are not raw files or devices are not compared when a "
			"VM moves; install it (Debian's package qemu-utils)");
	printf("KVM          %s\n", c->kvm ? "present" : c->kvm_why);
	printf("tracker      %s\n",
	       c->tracker ? c->tracker : "none: no VM can be migrated from here");
	printf("huge pages   %s%s\n",
	       c->huge ? "in tmpfs, with huge=within_size" : "none: ", c->huge_why);
	printf("swap         %s\n",
	       !c->swap ? "none"
	       : c->tracker && !strcmp(c->tracker, "write-protect")
		       ? "present, which is no matter here"
		       : "present: soft-dirty bits do not survive it; swapoff -a");
	printf("userfaultfd  %s\n",
	       c->userfaultfd_sysctl < 0 ? "not in this kernel"
	       : c->userfaultfd_sysctl
		       ? "for everybody"
		       : "for QEMUs that run as root; for others set vm.unprivileged_userfaultfd=1");
	if (c->ptrace_scope > 0)
		printf("ptrace       kernel.yama.ptrace_scope is %d: %s\n", c->ptrace_scope,
		       c->ptrace_scope < 3
			       ? "godwitd must have CAP_SYS_PTRACE, as root has"
			       : "no process may trace another; it takes a reboot with less");
	else
		printf("ptrace       not restricted\n");
	printf("\nwhat the kernel can do:\n");
	print_facts(c);
	printf("\n%s\n", c->possible ? "A migration is possible on this host."
				     : "A migration is not possible on this host.");
}

static void print_vm(const json_t *vm)
{
	const json_t *disks = json_object_get(vm, "disks"), *agent = json_object_get(vm, "agent");
	const json_t *disk;
	size_t i;

	if (!json_array_size(disks))
		printf("no disks\n");
	json_array_foreach(disks, i, disk) {
		const char *why = json_string_value(json_object_get(disk, "error-desc"));

		printf("%-12s %s%s%s\n", json_string_value(json_object_get(disk, "disk")),
		       json_string_value(json_object_get(disk, "file")),
		       why ? ": cannot be read: " : "", why ? why : "");
	}
	printf("%-12s %s\n", "agent",
	       json_string_value(json_object_get(agent, "error-desc")) ?: "answers");
}

/* Of a VM: what migrate --teleport has to go by. */
static int check_vm(const char *name, bool json)
{
	struct gw_call call = { .command = "check", .args = json_pack("{s:s}", "name", name) };
	json_t *result;

	if (gw_cli_call(&call, &result))
		return gw_cli_fail();
	if (json) {
		gw_cli_print(result);
		return 0;
	}
	print_vm(result);
	json_decref(result);
	return 0;
}

int gw_cmd_check(int argc, char **argv)
{
	static const struct option longs[] = { { "qemu", 1, NULL, 'q' },
					       { "json", 0, NULL, 'j' },
					       { "help", 0, NULL, 'h' },
					       { NULL, 0, NULL, 0 } };
	struct check c = { .qemu = "qemu-system-x86_64" };
	const char *name = NULL;
	bool json = false;
	int opt;

	for (;;) {
		while ((opt = gw_cli_options(argc, argv, longs, help)) != -1) {
			if (opt == 'j')
				json = true;
			else
				c.qemu = optarg;
		}
		if (name || optind >= argc)
			break;
		name = argv[optind++];
	}
	if (optind < argc)
		return gw_cli_usage("check", "the name of one VM at most is needed");
	if (name)
		return check_vm(name, json);
	uname(&c.kernel);
	check_qemu(&c);
	check_nbd(&c);
	check_kvm(&c);
	check_huge(&c);
	c.swap = host_has_swap();
	c.userfaultfd_sysctl = sysctl_number("/proc/sys/vm/unprivileged_userfaultfd");
	c.ptrace_scope = sysctl_number("/proc/sys/kernel/yama/ptrace_scope");
	check_facts(&c);
	c.possible = c.qemu_ok && c.tracker;
	if (json)
		gw_cli_print(to_json(&c));
	else
		print_text(&c);
	return c.possible ? 0 : 1;
}
