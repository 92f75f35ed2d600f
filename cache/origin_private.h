/* SPDX-License-Identifier: Apache-2.0 */
/*
 * origin_private.h - what the origin_*.c files share
 */
#pragma once

#include "error.h"

#include <curl/curl.h>

/**
 * origin_url_parse() - take a URL apart, with the checks of origin_url_check()
 * @ret: to be freed with curl_url_cleanup(); untouched on failure
 */
int origin_url_parse(const char *url, CURLU **ret, struct error *err);

/**
 * origin_url_part() - one part, percent-decoded; NULL when it is not there
 * Return: to be freed with free().
 */
char *origin_url_part(CURLU *parsed, CURLUPart part);

/**
 * origin_error() - "cannot read 'URL/PATH': reason"; returns @code
 */
int origin_error(struct error *err, int code, const char *url, const char *path,
		 const char *format, ...) __attribute__((format(printf, 5, 6)));
