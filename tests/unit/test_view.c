// SPDX-License-Identifier: GPL-2.0-or-later
/* test_view.c - images through a real qemu-nbd; this process is the QEMU that has them open. */
#include "shell.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "images.h"
#include "view.h"

#define CLUSTER 65536
#define SIZE	(16 << 20)

static const char *folder;
static int held[8]; /* what "QEMU" has open */
static size_t nr_held;

#define shell(...) unit_shell(folder, __VA_ARGS__)
static char *hold(const char *name)
{
	char *path = gw_path("%s/%s", folder, name);

	held[nr_held] = open(path, O_RDWR | O_CLOEXEC);
	assert_true(held[nr_held++] >= 0);
	return path;
}

static json_t *qcow2(const char *path, const char *backing)
{
	json_t *node = json_pack("{s:s,s:{s:s,s:s}}", "driver", "qcow2", "file", "driver", "file",
				 "filename", path);

	if (backing)
		json_object_set_new(node, "backing",
				    json_pack("{s:s,s:{s:s,s:s}}", "driver", "raw", "file",
					      "driver", "file", "filename", backing));
	return node;
}

/* Open it; nothing of that is left in the folder, and nothing of @node is changed. */
static struct gw_view *open_it(json_t *node)
{
	json_t *before = json_deep_copy(node);
	struct gw_view *v;
	int rc = gw_view_open(node, getpid(), folder, &v);

	assert_int_equal(!rc, v != NULL);
	assert_true(json_equal(before, node));
	json_decref(before);
	json_decref(node);
	shell("! test -e view.sock");
	return v;
}

static void close_it(struct gw_view *v)
{
	gw_view_close(v);
	errno = 0;
	assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
	assert_int_equal(errno, ECHILD);
}

static void expect(struct gw_view *v, uint64_t offset, uint8_t filling)
{
	uint8_t bytes[4096];

	assert_int_equal(gw_view_read(v, bytes, sizeof(bytes), offset), 0);
	for (size_t i = 0; i < sizeof(bytes); i++)
		assert_int_equal(bytes[i], filling);
}

/* What a guest sees is in three files, two of which have lost their names. */
static void chain(void **state)
{
	gw_autofree char *base = NULL, *top = NULL;
	struct gw_view *v;

	(void)state;
	shell("qemu-img create -q -f raw base 16M && "
	      "qemu-io -f raw -c 'write -P 5 0 64k' -c 'write -P 6 8M 64k' base >log && "
	      "qemu-img create -q -f qcow2 -b base -F raw top && "
	      "qemu-io -c 'write -P 7 8M 64k' -c 'write -P 8 16711680 64k' top >log");
	base = hold("base");
	top = hold("top");
	shell("rm base && echo another >new && mv new top");
	v = open_it(qcow2(top, base));
	if (!v)
		fail_msg("%s", gw_error());
	assert_int_equal(gw_view_size(v), SIZE);
	expect(v, 0, 5);
	expect(v, 1 << 20, 0);
	expect(v, 8 << 20, 7);
	expect(v, SIZE - 4096, 8);
	assert_int_equal(gw_view_data(v, 0), 0);
	assert_int_equal(gw_view_data(v, 1 << 20), 8 << 20);
	assert_int_equal(gw_view_data(v, (8 << 20) + CLUSTER), SIZE - CLUSTER);
	close_it(v);
}

/* QEMU writes to it: it has its lock, and a view neither needs nor takes one. */
static void locked(void **state)
{
	const struct flock all = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
	gw_autofree char *path = NULL;
	struct gw_view *v;

	(void)state;
	shell("qemu-img create -q -f qcow2 disk 16M");
	path = hold("disk");
	assert_int_equal(fcntl(held[nr_held - 1], F_OFD_SETLK, &all), 0);
	v = open_it(qcow2(path, NULL));
	if (!v)
		fail_msg("%s", gw_error());
	assert_int_equal(gw_view_data(v, 0), -ENODATA);
	close_it(v);
}

/* What is not what its QEMU takes it for says so in qemu-nbd's words. */
static void no_image(void **state)
{
	gw_autofree char *path = NULL;

	(void)state;
	shell("truncate -s 1M disk");
	path = hold("disk");
	assert_null(open_it(qcow2(path, NULL)));
	assert_message("qemu-nbd: Image is not in qcow2 format");
	assert_null(strstr(gw_error(), "json:"));
	assert_null(open_it(qcow2("/nowhere", NULL)));
	assert_message("QEMU does not have /nowhere open");
	assert_null(open_it(
		json_pack("{s:s,s:s}", "legacy", "nvme://0000:44:00.0/1", "format", "raw")));
	assert_message("'nvme' is nothing");
	assert_null(open_it(json_pack("{s:s,s:{s:s,s:s}}", "driver", "raw", "file", "driver",
				      "nvme-io_uring", "path", "/dev/ng0n1")));
	assert_message("'nvme-io_uring' is nothing");
	close_it(NULL);
}

static void no_tool(void **state)
{
	gw_autofree char *old = strdup(getenv("PATH")), *path = NULL;
	struct gw_view *v;
	json_t *node;

	(void)state;
	shell("qemu-img create -q -f qcow2 disk 16M");
	path = hold("disk");
	node = qcow2(path, NULL);
	setenv("PATH", folder, 1);
	assert_int_equal(gw_view_open(node, getpid(), folder, &v), -ENOENT);
	setenv("PATH", old, 1);
	json_decref(node);
	assert_message("qemu-nbd is needed");
	assert_message("qemu-utils");
	close_it(NULL);
}

/* Whoever has it open is killed: the tool does not outlive him. */
static void killed(void **state)
{
	gw_autofree char *path = NULL, *children = NULL, *stat = NULL;
	pid_t reader, tool;
	int ready[2];
	char byte;

	(void)state;
	shell("qemu-img create -q -f qcow2 disk 16M");
	path = hold("disk");
	assert_int_equal(pipe(ready), 0);
	reader = fork();
	if (!reader) {
		struct gw_view *v;

		if (!gw_view_open(qcow2(path, NULL), getpid(), folder, &v) &&
		    write(ready[1], "", 1) == 1)
			for (;;)
				pause();
		_exit(1);
	}
	close(ready[1]);
	assert_int_equal(read(ready[0], &byte, 1), 1);
	close(ready[0]);
	children = gw_path("/proc/%d/task/%d/children", (int)reader, (int)reader);
	stat = gw_read_file(children, 100, NULL);
	tool = stat ? (pid_t)atol(stat) : 0;
	assert_true(tool > 0);
	kill(reader, SIGKILL);
	assert_int_equal(waitpid(reader, NULL, 0), reader);
	/* Not ours to wait for; a zombie has ended, too. */
	for (bool ended = false; !ended; usleep(1000)) {
		gw_autofree char *name = gw_path("/proc/%d/stat", (int)tool);
		gw_autofree char *text = gw_read_file(name, 1000, NULL);

		ended = !text || strstr(text, ") Z") || strstr(text, ") X");
	}
}

static void network(void **state)
{
	gw_autofree char *name = gw_path("nbd+unix:///?socket=%s/server", folder);
	struct gw_view *v;

	(void)state;
	shell("truncate -s 16M disk && qemu-io -f raw -c 'write -P 5 1M 4k' disk >log && "
	      "qemu-nbd -f raw -e 3 -t -k %s/server --fork --pid-file=pid disk",
	      folder);
	v = open_it(json_pack("{s:s,s:s}", "legacy", name, "format", "raw"));
	if (!v)
		fail_msg("%s", gw_error());
	assert_int_equal(gw_view_size(v), SIZE);
	expect(v, 1 << 20, 5);
	close_it(v);
	v = open_it(json_pack("{s:s,s:{s:s,s:{s:s,s:o}}}", "driver", "raw", "file", "driver", "nbd",
			      "server", "type", "unix", "path", json_sprintf("%s/server", folder)));
	if (!v)
		fail_msg("%s", gw_error());
	expect(v, 1 << 20, 5);
	close_it(v);
	shell("kill $(cat pid)");
	/* A view that lost its storage says so. */
	assert_null(open_it(json_pack("{s:s,s:s}", "legacy", "nbd+unix:///?socket=/nowhere/server",
				      "format", "raw")));
	assert_message("qemu-nbd: ");
	close_it(NULL);
}

static int begin(void **state)
{
	int rc = unit_folder(state);

	folder = *state;
	return rc;
}

static int finish(void **state)
{
	while (nr_held)
		close(held[--nr_held]);
	return unit_folder_remove(state);
}

#define view_test(fn) cmocka_unit_test_setup_teardown(fn, begin, finish)

int main(void)
{
	const struct CMUnitTest tests[] = {
		view_test(chain),   view_test(locked),	view_test(no_image),
		view_test(no_tool), view_test(network), view_test(killed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
