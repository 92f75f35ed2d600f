/* SPDX-License-Identifier: Apache-2.0 */
#include "reply.h"

#include "size.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

int reply_unexpected(struct error *err, const char *what)
{
	return error_set(
		err, -EIO,
		"unexpected reply of the daemon: %s; are deployctl and deployfsd "
		"of the same version?",
		what);
}

int reply_read(json_t *json, struct error *err, const char *format, ...)
{
	json_error_t problem;
	va_list args;
	int r;

	va_start(args, format);
	r = json_vunpack_ex(json, &problem, 0, format, args);
	va_end(args);
	return r < 0 ? reply_unexpected(err, problem.text) : 0;
}

const char *reply_text(const json_t *json, const char *otherwise)
{
	const char *text = json_string_value(json);

	return text ? text : otherwise;
}

uint64_t reply_number(const json_t *json, uint64_t otherwise)
{
	double number;

	if (json_is_integer(json) && json_integer_value(json) >= 0)
		return (uint64_t)json_integer_value(json);
	number = json_is_real(json) ? json_real_value(json) : -1;
	return number >= 0 && number < 9e18 ? (uint64_t)number : otherwise;
}

const char *reply_size(const json_t *json, char text[static 32])
{
	uint64_t bytes = reply_number(json, UINT64_MAX);

	if (bytes != UINT64_MAX)
		return size_format(bytes, text);
	snprintf(text, 32, "-");
	return text;
}

int reply_changed(json_t *reply, struct error *err)
{
	int changed;
	int r;

	r = reply_read(reply, err, "{s:b}", "changed", &changed);
	return r < 0 ? r : changed;
}

int body_make(json_t **ret, struct error *err, const char *format, ...)
{
	json_error_t problem;
	va_list args;
	json_t *body;

	va_start(args, format);
	body = json_vpack_ex(&problem, 0, format, args);
	va_end(args);
	if (!body)
		return error_set(err, -EINVAL, "an argument is not text in UTF-8");
	*ret = body;
	return 0;
}
