// SPDX-License-Identifier: GPL-2.0-or-later
/* test_error.c - one message per thread, whatever its arguments point at. */
#include "unit.h"

#include <errno.h>
#include <pthread.h>

static void code_and_message(void **state)
{
	(void)state;
	gw_error_clear();
	assert_string_equal(gw_error(), "no error recorded");
	assert_int_equal(gw_fail(-EPROTO, "a %s of %d bytes", "frame", 7), -EPROTO);
	assert_string_equal(gw_error(), "a frame of 7 bytes");
	assert_int_equal(gw_fail_prefix(-EIO, "web%d: ", 1), -EIO);
	assert_string_equal(gw_error(), "web1: a frame of 7 bytes");
	gw_error_clear();
	assert_string_equal(gw_error(), "no error recorded");
}

static void message_as_its_own_argument(void **state)
{
	(void)state;
	gw_fail(-EIO, "inner");
	gw_fail(-EIO, "outer (%s), again (%s)", gw_error(), gw_error());
	assert_string_equal(gw_error(), "outer (inner), again (inner)");
	gw_fail_prefix(-EIO, "%s / ", gw_error());
	assert_string_equal(gw_error(),
			    "outer (inner), again (inner) / outer (inner), again (inner)");
}

static void too_long_is_cut(void **state)
{
	char text[2 * GW_ERROR_MAX];

	(void)state;
	memset(text, 'x', sizeof(text) - 1);
	text[sizeof(text) - 1] = '\0';
	gw_fail(-EIO, "%s", text);
	assert_int_equal(strlen(gw_error()), GW_ERROR_MAX - 1);
	gw_fail_prefix(-EIO, "front: ");
	assert_int_equal(strlen(gw_error()), GW_ERROR_MAX - 1);
	assert_int_equal(strncmp(gw_error(), "front: xxx", 10), 0);
	gw_fail_prefix(-EIO, "%s", text);
	assert_int_equal(strlen(gw_error()), GW_ERROR_MAX - 1);
	assert_int_equal(gw_error()[0], 'x');
}

static void *other_thread(void *arg)
{
	char *seen = arg;

	gw_fail(-EIO, "theirs");
	snprintf(seen, 32, "%s", gw_error());
	return NULL;
}

static void belongs_to_the_thread(void **state)
{
	char seen[32] = "";
	pthread_t thread;

	(void)state;
	gw_fail(-EIO, "mine");
	assert_int_equal(pthread_create(&thread, NULL, other_thread, seen), 0);
	pthread_join(thread, NULL);
	assert_string_equal(seen, "theirs");
	assert_string_equal(gw_error(), "mine");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(code_and_message),
		cmocka_unit_test(message_as_its_own_argument),
		cmocka_unit_test(too_long_is_cut),
		cmocka_unit_test(belongs_to_the_thread),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
