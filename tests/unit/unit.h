/* SPDX-License-Identifier: GPL-2.0-or-later */
/* unit.h - what every unit test needs: cmocka, and a folder of its own. */
#ifndef TEST_UNIT_H
#define TEST_UNIT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "cleanup.h"
#include "error.h"
#include "io.h"

/** unit_folder() - cmocka setup: *state is the path of a new empty folder. */
static inline int unit_folder(void **state)
{
	char *path = strdup("/tmp/gw-unit-XXXXXX");

	*state = path;
	return path && mkdtemp(path) ? 0 : -1;
}

/** unit_folder_remove() - cmocka teardown for unit_folder(). */
static inline int unit_folder_remove(void **state)
{
	int rc = gw_remove_tree(*state);

	free(*state);
	return rc;
}

/** unit_folder_test() - a test that gets a folder in *state. */
#define unit_folder_test(fn) cmocka_unit_test_setup_teardown(fn, unit_folder, unit_folder_remove)

/** assert_message() - the recorded message says @text. */
#define assert_message(text) assert_non_null(strstr(gw_error(), text))

#endif
