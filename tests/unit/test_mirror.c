// SPDX-License-Identifier: GPL-2.0-or-later
/* Copies of disks, against a scripted monitor: which, and when they are whole. */
#include "script.h"

#include <errno.h>

#include "mirror.h"

#define BLOCK(name, more) \
	"{\"device\":\"" name "\",\"inserted\":{\"node-name\":\"#" name "\"," more "}}"
#define IMAGE(file, format, more)                                                \
	"\"ro\":false,\"image\":{\"filename\":\"" file "\",\"format\":\"" format \
	"\",\"virtual-size\":4096" more "}"
#define JOB(i, status, done, more)                                                             \
	"{\"id\":\"godwit-mirror-" i "\",\"status\":\"" status "\",\"current-progress\":" done \
	",\"total-progress\":100" more "}"
#define LOOK(jobs)                                          \
	{                                                   \
		"query-jobs", "{\"return\":[" jobs "]}\r\n" \
	}

static json_t *two_disks(void)
{
	return json_pack("[{s:s,s:s},{s:s,s:s}]", "disk", "a", "node", "#a", "disk", "b", "node",
			 "#b");
}

/* What is copied is what can be written, and lies in files. */
static void which(void **state)
{
	static const struct step steps[] = {
		{ NULL, GREETING },
		{ "qmp_capabilities", OK },
		{ "query-block",
		  "{\"return\":[" BLOCK("a", IMAGE("/d/a.img", "raw", "")) "," BLOCK("cd", "\"ro\":true,\"image\":{\"filename\":\"/d/x.iso\",\"format\":\"raw\"}") "," BLOCK(
			  "n",
			  IMAGE("nbd://host", "raw",
				"")) "," BLOCK("b",
					       IMAGE("/d/b.qcow2", "qcow2",
						     ",\"backing-filename\":\"base.img\",\"backing-image\":{\"format\":\"raw\"},\"cluster-size\":32768")) ",{\"device\":\"empty\"}]}\r\n" },
		{ 0 },
	};
	struct gw_qmp *q = open_with(*state, steps);
	json_t *disks = NULL;

	assert_int_equal(gw_mirror_disks(q, &disks), 0);
	assert_int_equal(json_array_size(disks), 2);
	assert_string_equal(gw_qmp_text(json_array_get(disks, 0), "file"), "/d/a.img");
	assert_null(json_object_get(json_array_get(disks, 0), "backing"));
	assert_string_equal(gw_qmp_text(json_array_get(disks, 1), "node"), "#b");
	assert_string_equal(gw_qmp_text(json_array_get(disks, 1), "backing"), "base.img");
	assert_string_equal(gw_qmp_text(json_array_get(disks, 1), "backing-format"), "raw");
	json_decref(disks);
	end(*state);
	gw_qmp_close(q);
}

/* What a copy would not have is refused by name. */
static void refused(void **state)
{
	static const struct {
		const char *answer, *why;
	} cases[] = {
		{ BLOCK("a", IMAGE("/d/a", "qcow2", ",\"snapshots\":[{\"name\":\"s\"}]")),
		  "internal snapshots" },
		{ BLOCK("a",
			IMAGE("/d/a", "qcow2",
			      ",\"format-specific\":{\"data\":{\"bitmaps\":[{\"name\":\"b\"}]}}")),
		  "bitmaps" },
		{ BLOCK("a",
			IMAGE("/d/a", "qcow2", ",\"format-specific\":{\"data\":{\"encrypt\":{}}}")),
		  "encryption" },
		{ BLOCK("a", IMAGE("/d/a", "vmdk", "")), "its format is 'vmdk'" },
		{ BLOCK("a", IMAGE("json:{}", "raw", "")), "options" },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		gw_autofree char *answer = gw_path("{\"return\":[%s]}\r\n", cases[i].answer);
		const struct step steps[] = { { NULL, GREETING },
					      { "qmp_capabilities", OK },
					      { "query-block", answer },
					      { 0 } };
		struct gw_qmp *q = open_with(*state, steps);
		json_t *disks = NULL;

		assert_int_equal(gw_mirror_disks(q, &disks), -ENOTSUP);
		assert_message("'a'");
		assert_message(cases[i].why);
		json_decref(disks);
		end(*state);
		gw_qmp_close(q);
	}
}

/* Not told to end before nothing is left, and over once all have ended. */
static void settled(void **state)
{
	static const struct step steps[] = {
		{ NULL, GREETING },
		{ "qmp_capabilities", OK },
		LOOK(JOB("0", "ready", "90", "") "," JOB("1", "ready", "100", "")),
		LOOK(JOB("0", "ready", "100", "") "," JOB("1", "ready", "100", "")),
		{ "\"arguments\":{\"device\":\"godwit-mirror-0\"}", OK },
		{ "\"arguments\":{\"device\":\"godwit-mirror-1\"}", OK },
		LOOK(JOB("0", "concluded", "100", "") "," JOB("1", "ready", "100", "")),
		LOOK(JOB("0", "concluded", "100", "") "," JOB("1", "waiting", "100", "")),
		LOOK(JOB("0", "concluded", "100", "") "," JOB("1", "concluded", "100", "")),
		{ "\"arguments\":{\"id\":\"godwit-mirror-0\"}", OK },
		{ "\"arguments\":{\"id\":\"godwit-mirror-1\"}", OK },
		{ "\"device\":\"#a\",\"target\":\"godwit-target-0\",\"sync\":\"none\"", OK },
		{ "\"device\":\"#b\",\"target\":\"godwit-target-1\",\"sync\":\"none\"", OK },
		{ 0 },
	};
	struct gw_qmp *q = open_with(*state, steps);
	json_t *disks = two_disks();

	assert_int_equal(gw_mirror_end(q, disks, SOON), 0);
	assert_int_equal(gw_mirror_again(q, disks), 0);
	json_decref(disks);
	end(*state);
	gw_qmp_close(q);
}

/* Time is over before: they go on as they are, since nobody can untell them. */
static void too_late(void **state)
{
	static const struct step steps[] = {
		{ NULL, GREETING },
		{ "qmp_capabilities", OK },
		LOOK(JOB("0", "ready", "90", "") "," JOB("1", "ready", "100", "")),
		{ 0 },
	};
	struct gw_qmp *q = open_with(*state, steps);
	json_t *disks = two_disks();

	assert_int_equal(gw_mirror_end(q, disks, gw_now()), -EAGAIN);
	json_decref(disks);
	end(*state);
	gw_qmp_close(q);
}

/* One that has failed is not taken for one that has ended. */
static void failed(void **state)
{
	static const struct step steps[] = {
		{ NULL, GREETING },
		{ "qmp_capabilities", OK },
		LOOK(JOB("0", "ready", "100", "") "," JOB("1", "ready", "100", "")),
		{ "block-job-cancel", OK },
		{ "block-job-cancel", OK },
		LOOK(JOB("0", "concluded", "100", "") "," JOB("1", "ready", "100", "")),
		LOOK(JOB("0", "concluded", "100", "") "," JOB("1", "concluded", "100",
							      ",\"error\":\"no space\"")),
		{ 0 },
	};
	struct gw_qmp *q = open_with(*state, steps);
	json_t *disks = two_disks();

	assert_int_equal(gw_mirror_end(q, disks, SOON), -EIO);
	assert_message("'b'");
	assert_message("no space");
	json_decref(disks);
	end(*state);
	gw_qmp_close(q);
}

/* Each job of a QEMU that can; one that cannot says so. */
static void slowed_down(void **state)
{
	static const struct step steps[] = {
		{ NULL, GREETING },
		{ "qmp_capabilities", OK },
		{ "\"arguments\":{\"id\":\"godwit-mirror-0\",\"type\":\"mirror\",\"copy-mode\":\"write-blocking\"}",
		  OK },
		{ "\"arguments\":{\"id\":\"godwit-mirror-1\"", OK },
		{ "block-job-change",
		  "{\"error\":{\"class\":\"CommandNotFound\",\"desc\":\"not found\"}}\r\n" },
		{ 0 },
	};
	struct gw_qmp *q = open_with(*state, steps);
	json_t *disks = two_disks();

	assert_int_equal(gw_mirror_block(q, disks), 0);
	assert_int_equal(gw_mirror_block(q, disks), -EREMOTEIO);
	json_decref(disks);
	end(*state);
	gw_qmp_close(q);
}

/* Whatever is there of ours, told once, and nothing that is another's. */
static void forgotten(void **state)
{
	static const struct step steps[] = {
		{ NULL, GREETING },
		{ "qmp_capabilities", OK },
		LOOK(JOB("0", "running", "5", "") ",{\"id\":\"backup\",\"status\":\"running\"}"),
		{ "\"device\":\"godwit-mirror-0\",\"force\":true", OK },
		LOOK(JOB("0", "aborting", "5", "") ",{\"id\":\"backup\",\"status\":\"running\"}"),
		LOOK(JOB("0", "concluded", "5", ",\"error\":\"x\"")),
		{ "job-dismiss", OK },
		{ "query-named-block-nodes",
		  "{\"return\":[{\"node-name\":\"#a\"},{\"node-name\":\"godwit-target-0\"}]}\r\n" },
		{ "\"arguments\":{\"node-name\":\"godwit-target-0\"}", OK },
		{ 0 },
	};
	struct gw_qmp *q = open_with(*state, steps);

	assert_int_equal(gw_mirror_forget(q), 0);
	end(*state);
	gw_qmp_close(q);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(which, make, drop),
		cmocka_unit_test_setup_teardown(refused, make, drop),
		cmocka_unit_test_setup_teardown(settled, make, drop),
		cmocka_unit_test_setup_teardown(too_late, make, drop),
		cmocka_unit_test_setup_teardown(failed, make, drop),
		cmocka_unit_test_setup_teardown(slowed_down, make, drop),
		cmocka_unit_test_setup_teardown(forgotten, make, drop),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
