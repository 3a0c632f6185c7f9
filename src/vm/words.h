/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * words.h - the words of a QEMU command line, in whichever form they are written.
 *
 * QEMU takes -object memory-backend-file,id=m, -object qom-type=memory-backend-file,id=m
 * and -object '{"qom-type":"memory-backend-file","id":"m"}' for the same thing,
 * and so must everybody who looks for a thing there.
 */
#ifndef GW_WORDS_H
#define GW_WORDS_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

/** gw_word_option() - the option in @word without its dashes ("-m" and "--m" are one), or "". */
const char *gw_word_option(const char *word);

/** gw_words_option() - the same for word @i of @argv. */
const char *gw_words_option(const json_t *argv, size_t i);

/**
 * gw_word_value() - an option's value as an object.
 * @implied: the key of a first part that has none ("qom-type", "driver"); may be NULL
 *
 * JSON is taken as it is; in QEMU's own syntax all values are strings, and a
 * part without '=' is "on".
 *
 * Return: owned by the caller; NULL, without a message, for what is neither.
 */
json_t *gw_word_value(const char *value, const char *implied);

/** gw_word_is() - whether @key is set to @text, as a string, or (for "on") as JSON's true. */
bool gw_word_is(const json_t *value, const char *key, const char *text);

/**
 * gw_words_movable() - whether a VM that is started like this could ever leave its host.
 * @argv: the user's command
 *
 * Only what the words alone tell: gw_attach() sees what QEMU made of them.
 *
 * Return: 0, or -ENOTSUP with the word and the reason.
 */
int gw_words_movable(const json_t *argv);

#endif
