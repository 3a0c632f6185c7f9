// SPDX-License-Identifier: GPL-2.0-or-later
/* words.c - the words of a QEMU command line; see words.h. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "error.h"
#include "words.h"

const char *gw_word_option(const char *word)
{
	if (!word || word[0] != '-')
		return "";
	return word[1] == '-' ? word + 2 : word + 1;
}

const char *gw_words_option(const json_t *argv, size_t i)
{
	return gw_word_option(json_string_value(json_array_get(argv, i)));
}

/* Copy up to a single comma into @out, two of which stand for one. Return: what is left. */
static const char *take_part(const char *text, char *out)
{
	while (*text && (text[0] != ',' || text[1] == ',')) {
		text += text[0] == ',';
		*out++ = *text++;
	}
	*out = '\0';
	return *text ? text + 1 : text;
}

json_t *gw_word_value(const char *value, const char *implied)
{
	gw_autofree char *part = value ? malloc(strlen(value) + 1) : NULL;
	json_t *object;

	if (!part)
		return NULL;
	if (value[0] == '{') {
		object = json_loads(value, 0, NULL);
		return object;
	}
	object = json_object();
	for (bool first = true; *value; first = false) {
		char *equals;

		value = take_part(value, part);
		equals = strchr(part, '=');
		if (equals)
			*equals = '\0';
		/* What is no text is no name of anything either. */
		if (!equals && first && implied)
			json_object_set_new(object, implied, json_string(part));
		else if (*part)
			json_object_set_new(object, part, json_string(equals ? equals + 1 : "on"));
	}
	return object;
}

bool gw_word_is(const json_t *value, const char *key, const char *text)
{
	const json_t *is = json_object_get(value, key);

	if (json_is_true(is))
		return !strcmp(text, "on");
	return json_is_string(is) && !strcmp(json_string_value(is), text);
}

/* What stands in a word's @key: a name, or the beginning of one (with *). */
static const struct never {
	const char *option, *implied, *key, *name, *why;
} nevers[] = {
#define UNSEEN "it writes the guest's memory without QEMU"
#define FILE_  "its memory is a file of yours, which would stay behind"
	{ "device", "driver", "driver", "vfio-*", UNSEEN },
	{ "device", "driver", "driver", "vhost-user-*", UNSEEN },
	{ "device", "driver", "driver", "vhost-vdpa-*", UNSEEN },
	{ "device", "driver", "driver", "nvdimm", FILE_ },
	{ "device", "driver", "driver", "virtio-pmem*", FILE_ },
	{ "device", "driver", "driver", "ivshmem-*", FILE_ ", or shared with others" },
	{ "device", "driver", "driver", "acpi-erst", FILE_ },
	{ "device", "driver", "driver", "cxl-type3", FILE_ },
	{ "netdev", "type", "type", "vhost-user", UNSEEN },
	{ "netdev", "type", "type", "vhost-vdpa", UNSEEN },
	{ "blockdev", "driver", "driver", "nvme", UNSEEN },
	{ "drive", NULL, "file", "nvme://*", UNSEEN },
	{ "drive", NULL, "snapshot", "on",
	  "what the guest writes would be lost, because it is in a temporary file" },
	{ "object", "qom-type", "pmem", "on", FILE_ },
	{ "object", "qom-type", "readonly", "on", FILE_ },
	{ "object", "qom-type", "rom", "on", FILE_ },
	{ "object", "qom-type", "qom-type", "memory-backend-epc", "an enclave never moves" },
#undef UNSEEN
#undef FILE_
};

static bool matches(const json_t *value, const struct never *n)
{
	const char *is = json_string_value(json_object_get(value, n->key));
	const size_t len = strlen(n->name);

	if (n->name[len - 1] == '*')
		return is && !strncmp(is, n->name, len - 1);
	return gw_word_is(value, n->key, n->name);
}

int gw_words_movable(const json_t *argv)
{
	int rc = 0;

	for (size_t i = 1; !rc && i < json_array_size(argv); i++) {
		const char *option = gw_words_option(argv, i);
		const char *text = json_string_value(json_array_get(argv, i + 1));

		if (!strcmp(option, "snapshot"))
			return gw_fail(
				-ENOTSUP,
				"with -snapshot this VM could never be moved: what the guest "
				"writes would be lost, because it is in temporary files");
		for (size_t k = 0; !rc && k < GW_ARRAY_SIZE(nevers); k++) {
			json_t *value = strcmp(option, nevers[k].option)
						? NULL
						: gw_word_value(text, nevers[k].implied);

			if (value && matches(value, &nevers[k]))
				rc = gw_fail(-ENOTSUP,
					     "with '-%s %.100s' this VM could never be moved: %s",
					     option, text, nevers[k].why);
			json_decref(value);
		}
	}
	return rc;
}
