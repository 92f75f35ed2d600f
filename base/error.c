/* SPDX-License-Identifier: Apache-2.0 */
#include "error.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const struct error_class {
	int code;
	const char *name;
	int exit;
} classes[] = {
	{-EINVAL, "usage", 2},
	{-ENOENT, "not-found", 3},
	{-EEXIST, "conflict", 4},
	{-EBUSY, "conflict", 4},
	{-ECONNREFUSED, "unreachable", 5},
	{-EBADMSG, "verification", 6},
	{-ENOSPC, "no-space", 7},
	{-EDQUOT, "no-space", 7},
	{-EALREADY, "unchanged", 77},
	{-EACCES, "forbidden", 1},
	{-EPERM, "forbidden", 1},
	{-ECANCELED, "cancelled", 1},
	{-EIO, "failed", 1},
};

#define CLASS_COUNT (sizeof(classes) / sizeof(classes[0]))

/* Bytes of one character of UTF-8; 0 when there is none. */
static size_t character_size(const unsigned char *text)
{
	size_t size = *text < 0x80                    ? 1
		      : *text >= 0xc2 && *text < 0xe0 ? 2
		      : *text >= 0xe0 && *text < 0xf0 ? 3
		      : *text >= 0xf0 && *text < 0xf5 ? 4
						      : 0;

	for (size_t i = 1; i < size; i++)
		if ((text[i] & 0xc0) != 0x80)
			return 0;
	/* Longer than needed, a surrogate, beyond the last character. */
	if ((text[0] == 0xe0 && text[1] < 0xa0) || (text[0] == 0xed && text[1] > 0x9f) ||
	    (text[0] == 0xf0 && text[1] < 0x90) || (text[0] == 0xf4 && text[1] > 0x8f))
		return 0;
	return size;
}

/* Names of files and requests may hold anything, and a text that was cut may end within a
 * character: terminals and JSON get neither. */
static void make_printable(char *text)
{
	unsigned char *c = (unsigned char *)text;

	while (*c) {
		size_t size = *c < ' ' || *c == 0x7f ? 0 : character_size(c);

		if (size == 0)
			*c = '?';
		c += size ? size : 1;
	}
}

int error_set(struct error *err, int code, const char *format, ...)
{
	va_list args;

	if (!err)
		return code;
	err->code = code;
	va_start(args, format);
	vsnprintf(err->text, sizeof(err->text), format, args);
	va_end(args);
	make_printable(err->text);
	return code;
}

const char *error_name(int code)
{
	for (size_t i = 0; i < CLASS_COUNT; i++)
		if (classes[i].code == code)
			return classes[i].name;
	return "failed";
}

int error_exit(const char *name)
{
	for (size_t i = 0; i < CLASS_COUNT; i++)
		if (!strcmp(classes[i].name, name))
			return classes[i].exit;
	return 1;
}

int error_from_name(const char *name)
{
	for (size_t i = 0; i < CLASS_COUNT; i++)
		if (!strcmp(classes[i].name, name))
			return classes[i].code;
	return -EIO;
}
