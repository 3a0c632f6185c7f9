// SPDX-License-Identifier: GPL-2.0-or-later
/* test_settings.c - what a move sets in a QEMU, and puts back, against a scripted monitor. */
#include "script.h"

#include <errno.h>

#include "settings.h"

#define CAPABILITY(name, state) "{\"capability\":\"" name "\",\"state\":" state "}"

/* A QEMU whose user has multifd on: only what must change is changed, and changed back. */
static void settings_are_put_back(void **state)
{
	static const struct step steps[] = {
		{ NULL, GREETING },
		{ "qmp_capabilities", OK },
		{ "query-migrate-capabilities",
		  "{\"return\":[" CAPABILITY("x-ignore-shared", "false") "," CAPABILITY(
			  "events", "true") "," CAPABILITY("multifd",
							   "true") "," CAPABILITY("xbzrle",
										  "false") "]}\n" },
		{ "query-migrate-parameters",
		  "{\"return\":{\"max-bandwidth\":5,\"tls-creds\":\"\","
		  "\"downtime-limit\":300,\"mode\":\"cpr-reboot\"}}\n" },
		{ "{\"capabilities\":[" CAPABILITY("x-ignore-shared",
						   "true") "," CAPABILITY("multifd", "false") "]}",
		  OK },
		{ "\"arguments\":{\"max-bandwidth\":1099511627776,\"mode\":\"normal\"}", OK },
		/* One that is refused keeps nobody from putting back the other. */
		{ "{\"capabilities\":[" CAPABILITY("x-ignore-shared",
						   "false") "," CAPABILITY("multifd", "true") "]}",
		  "{\"error\":{\"desc\":\"in progress\"}}\n" },
		{ "\"arguments\":{\"max-bandwidth\":5,\"mode\":\"cpr-reboot\"}", OK },
		{ 0 },
	};
	static const char *const on[] = { "x-ignore-shared", "events", NULL };
	struct gw_qmp *q = open_with(*state, steps);
	char text[GW_SETTINGS_MAX];
	json_t *found = NULL, *noted;

	assert_int_equal(gw_settings_find(q, on, &found), 0);
	assert_int_equal(gw_settings_apply(q, found), 0);
	/* Whoever comes after us has the journal only. */
	assert_int_equal(gw_settings_format(found, text), 0);
	noted = gw_settings_parse(text);
	assert_true(json_equal(found, noted));
	assert_int_equal(gw_settings_restore(q, noted), -EREMOTEIO);
	assert_message("are not as they were");
	assert_message("in progress");
	json_decref(found);
	json_decref(noted);
	end(*state);
	gw_qmp_close(q);
}

static void settings_that_are_right(void **state)
{
	static const struct step steps[] = {
		{ NULL, GREETING },
		{ "qmp_capabilities", OK },
		{ "query-migrate-capabilities",
		  "{\"return\":[" CAPABILITY("x-ignore-shared", "true") "]}\n" },
		{ "query-migrate-parameters", "{\"return\":{\"max-bandwidth\":1099511627776}}\n" },
		{ "query-migrate-capabilities",
		  "{\"return\":[" CAPABILITY("events", "false") ",{},7]}\n" },
		{ "query-migrate-parameters", "{\"return\":{}}\n" },
		{ 0 },
	};
	static const char *const on[] = { "x-ignore-shared", NULL };
	struct gw_qmp *q = open_with(*state, steps);
	char text[GW_SETTINGS_MAX];
	json_t *found = NULL;

	assert_int_equal(gw_settings_find(q, on, &found), 0);
	/* Nothing to change: QEMU is not even asked. */
	assert_int_equal(gw_settings_apply(q, found), 0);
	assert_int_equal(gw_settings_restore(q, found), 0);
	assert_int_equal(gw_settings_restore(q, NULL), 0);
	json_decref(found);
	assert_int_equal(gw_settings_find(q, on, &found), -ENOTSUP);
	assert_null(found);
	end(*state);
	gw_qmp_close(q);
	assert_int_equal(gw_settings_format(NULL, text), 0);
	assert_string_equal(text, "");
	assert_null(gw_settings_parse(text));
	assert_null(gw_settings_parse("{"));
}

static void settings_too_long_to_write_down(void **state)
{
	char text[GW_SETTINGS_MAX], value[GW_SETTINGS_MAX + 1];
	json_t *found;

	(void)state;
	memset(value, 'x', sizeof(value) - 1);
	value[sizeof(value) - 1] = '\0';
	found = json_pack("{s:{s:s}}", "parameters", "tls-creds", value);
	assert_int_equal(gw_settings_format(found, text), -E2BIG);
	assert_string_equal(text, "");
	json_decref(found);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(settings_are_put_back, make, drop),
		cmocka_unit_test_setup_teardown(settings_that_are_right, make, drop),
		cmocka_unit_test(settings_too_long_to_write_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
