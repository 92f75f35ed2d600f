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

int error_set(struct error *err, int code, const char *format, ...)
{
	va_list args;
	char *c;

	if (!err)
		return code;
	err->code = code;
	va_start(args, format);
	vsnprintf(err->text, sizeof(err->text), format, args);
	va_end(args);
	for (c = err->text; *c; c++)
		if ((unsigned char)*c < ' ' || *c == 0x7f)
			*c = '?';
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
