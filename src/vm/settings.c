// SPDX-License-Identifier: GPL-2.0-or-later
/* settings.c - migration capabilities and parameters, found and put back; see settings.h. */
#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "cleanup.h"
#include "error.h"
#include "log.h"
#include "settings.h"

/* QEMU must not pace a few hundred KB through a local socket. */
#define BANDWIDTH (1LL << 40)

static bool named(const char *const names[], const char *name)
{
	for (; *names; names++)
		if (!strcmp(*names, name))
			return true;
	return false;
}

/* What parameter @name must be while device state travels; NULL: Godwit does not care. */
static json_t *needed_parameter(const char *name)
{
	if (!strcmp(name, "max-bandwidth"))
		return json_integer(BANDWIDTH);
	if (!strcmp(name, "tls-creds")) /* the socket never leaves this host */
		return json_string("");
	if (!strcmp(name, "mode"))
		return json_string("normal");
	return NULL;
}

static int find_capabilities(const struct gw_question *asked, const char *const on[],
			     json_t *changes)
{
	const json_t *list = NULL, *entry;
	size_t i, needed = 0, known = 0;
	int rc = gw_question_answer(asked, &list);

	if (rc)
		return rc;
	json_array_foreach(list, i, entry) {
		const char *name = json_string_value(json_object_get(entry, "capability"));
		const json_t *state = json_object_get(entry, "state");
		const bool need = name && named(on, name);

		known += need;
		if (name && json_is_boolean(state) && json_is_true(state) != need)
			json_object_set_new(changes, name, json_boolean(!need));
	}
	while (on[needed])
		needed++;
	if (known < needed)
		return gw_fail(-ENOTSUP, "this QEMU lacks a migration capability that Godwit "
					 "needs (x-ignore-shared)");
	return 0;
}

static int find_parameters(const struct gw_question *asked, json_t *changes)
{
	const json_t *all = NULL;
	json_t *value;
	const char *name;
	int rc = gw_question_answer(asked, &all);

	if (rc)
		return rc;
	json_object_foreach((json_t *)all, name, value) {
		json_t *need = needed_parameter(name);

		if (need && !json_equal(need, value))
			json_object_set(changes, name, value);
		json_decref(need);
	}
	return 0;
}

int gw_settings_find(struct gw_qmp *q, const char *const on[], json_t **found)
{
	enum {
		CAPABILITIES,
		PARAMETERS
	};
	struct gw_question asked[] = {
		[CAPABILITIES] = { .command = "query-migrate-capabilities" },
		[PARAMETERS] = { .command = "query-migrate-parameters" },
	};
	json_t *capabilities = json_object(), *parameters = json_object();
	int rc = gw_qmp_ask(q, asked, GW_ARRAY_SIZE(asked));

	if (!rc)
		rc = find_capabilities(&asked[CAPABILITIES], on, capabilities);
	if (!rc)
		rc = find_parameters(&asked[PARAMETERS], parameters);
	gw_questions_free(asked, GW_ARRAY_SIZE(asked));
	*found = json_pack("{s:o,s:o}", "capabilities", capabilities, "parameters", parameters);
	if (!rc && !*found)
		rc = gw_fail(-ENOMEM, "no memory for QEMU's migration settings");
	if (rc) {
		json_decref(*found);
		*found = NULL;
	}
	return rc;
}

/* Set what @found lists: to its opposite or our need (@ours), or to what it was. */
static int set(struct gw_qmp *q, const json_t *found, bool ours)
{
	json_t *capabilities = json_object_get(found, "capabilities"), *list = json_array();
	json_t *parameters = json_object_get(found, "parameters"), *values = json_object();
	const char *name;
	json_t *was;
	int rc = 0, second = 0;

	json_object_foreach(capabilities, name, was) {
		json_array_append_new(list, json_pack("{s:s,s:b}", "capability", name, "state",
						      json_is_true(was) != ours));
	}
	json_object_foreach(parameters, name, was) {
		json_object_set_new(values, name, ours ? needed_parameter(name) : json_incref(was));
	}
	if (json_array_size(list))
		rc = gw_qmp_call(q, "migrate-set-capabilities",
				 json_pack("{s:O}", "capabilities", list), NULL);
	/* One that cannot be put back is no reason to leave the others. */
	if (json_object_size(values) && (!rc || !ours))
		second = gw_qmp_call(q, "migrate-set-parameters", json_incref(values), NULL);
	json_decref(list);
	json_decref(values);
	return rc ? rc : second;
}

int gw_settings_apply(struct gw_qmp *q, const json_t *found)
{
	return set(q, found, true);
}

int gw_settings_restore(struct gw_qmp *q, const json_t *found)
{
	int rc = set(q, found, false);

	return rc ? gw_fail_prefix(rc, "QEMU's migration capabilities are not as they were (see "
				       "'info migrate_capabilities' in its monitor): ")
		  : 0;
}

void gw_settings_put_back(struct gw_qmp *q, json_t **found, const char *name)
{
	if (*found && gw_settings_restore(q, *found))
		gw_warn("VM '%s': %s", name, gw_error());
	json_decref(*found);
	*found = NULL;
}

int gw_settings_format(const json_t *found, char text[GW_SETTINGS_MAX])
{
	size_t n = found ? json_dumpb(found, text, GW_SETTINGS_MAX - 1, JSON_COMPACT) : 0;

	text[0] = n && n < GW_SETTINGS_MAX ? text[0] : '\0';
	if (n >= GW_SETTINGS_MAX)
		return gw_fail(-E2BIG, "QEMU's migration settings take %zu bytes to write down", n);
	text[n] = '\0';
	return 0;
}

json_t *gw_settings_parse(const char *text)
{
	return *text ? json_loads(text, 0, NULL) : NULL;
}
