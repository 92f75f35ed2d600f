/* SPDX-License-Identifier: Apache-2.0 */
/*
 * origin_private.h - what the origin_*.c files share
 */
#pragma once

#include "error.h"
#include "url.h"

/**
 * origin_parse() - url_parse() with an error text that tells which origin
 * Return: 0 or -EINVAL.
 */
int origin_parse(const char *url, struct url *ret, struct error *err);

/**
 * origin_folder() - a URL's path with its escapes resolved
 * @path: as in struct url, or an absolute path without escapes' meaning; without slashes
 *        at its end in the result, but for "/" alone; "" gives "/"
 * Return: to be freed with free(); NULL when out of memory or an escape is %00.
 */
char *origin_folder(const char *path);

/** origin_error() - "cannot read 'URL/PATH': reason"; returns @code */
int origin_error(struct error *err, int code, const char *url, const char *path,
		 const char *format, ...) __attribute__((format(printf, 5, 6)));
